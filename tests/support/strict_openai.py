"""A judge of Chat Completions requests as strict as OpenAI itself, and in places stricter.

Used by the codec tests and by the fake upstream of the end-to-end harness. Written from the types of the
``openai`` SDK 3.54.0 (`CompletionCreateParamsBase` and the message params) and, for what these leave open,
from the refusals reported in public; it shares no code with the translation it judges.

Stricter than OpenAI, because some compatible server is: no empty texts, and arguments that are a JSON object.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["validate"]

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,[A-Za-z0-9+/=_-]+\Z")
MAX_CALL_ID = 40  # refused beyond that with code string_above_max_length
MAX_TOOLS = 128
MAX_STOPS = 4
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

# fmt: off
TOP_LEVEL = frozenset(
    {
        "model", "messages", "audio", "frequency_penalty", "function_call", "functions", "logit_bias",
        "logprobs", "max_completion_tokens", "max_tokens", "metadata", "modalities", "moderation", "n",
        "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention", "reasoning_effort", "response_format", "safety_identifier", "seed",
        "service_tier", "stop", "store", "stream", "stream_options", "temperature", "tool_choice", "tools",
        "top_logprobs", "top_p", "user", "verbosity", "web_search_options",
    }
)
# fmt: on
MESSAGE_FIELDS = {
    "system": frozenset({"role", "content", "name"}),
    "developer": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "tool_calls", "refusal", "audio"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
}
PART_TYPES = {
    "system": frozenset({"text"}),
    "developer": frozenset({"text"}),
    "user": frozenset({"text", "image_url", "input_audio", "file"}),
    "assistant": frozenset({"text", "refusal"}),
    "tool": frozenset({"text"}),
}
PART_FIELDS = {
    "text": frozenset({"type", "text", "prompt_cache_breakpoint"}),
    "image_url": frozenset({"type", "image_url", "prompt_cache_breakpoint"}),
    "file": frozenset({"type", "file", "prompt_cache_breakpoint"}),
}


def validate(body: Any, *, other_fields: bool = False) -> list[str]:
    """All the violations in a request body, one sentence each, prefixed by where; none for a good one.

    Args:
        other_fields: let fields pass that OpenAI does not know, at the top, in messages and in content parts:
            for the dialects of other vendors. What is known is still judged.
    """
    if not isinstance(body, dict):
        return ["body: not an object"]
    judge = _Judge(other_fields)
    judge.top_level(body)
    judge.tools(body)
    judge.messages(body.get("messages"))
    try:
        json.dumps(body, allow_nan=False)
    except (TypeError, ValueError) as exc:
        judge.say("body", f"has no JSON form ({exc})")
    return judge.violations


class _Judge:
    def __init__(self, other_fields: bool) -> None:
        self.violations: list[str] = []
        self.other_fields = other_fields

    def say(self, where: str, what: str) -> None:
        self.violations.append(f"{where}: {what}")

    def only(self, where: str, value: dict[str, Any], known: frozenset[str]) -> None:
        if not self.other_fields:
            for key in value.keys() - known:
                self.say(f"{where}.{key}", "unknown field")

    def number(self, body: dict[str, Any], key: str, low: float, high: float) -> None:
        if key in body and not (
            isinstance(body[key], (int, float))
            and not isinstance(body[key], bool)
            and low <= body[key] <= high
        ):
            self.say(key, f"not a number from {low} to {high}")

    def text(self, where: str, value: Any) -> None:
        if not isinstance(value, str):
            self.say(where, "not a string")
        elif not value.strip():
            self.say(where, "empty text")

    # -- top level

    def top_level(self, body: dict[str, Any]) -> None:
        self.only("body", body, TOP_LEVEL)
        self.text("model", body.get("model"))
        self.number(body, "temperature", 0, 2)
        self.number(body, "top_p", 0, 1)
        for key in ("max_tokens", "max_completion_tokens"):
            if key in body and not (type(body[key]) is int and body[key] >= 1):
                self.say(key, "not a positive integer")
        if "max_tokens" in body and "max_completion_tokens" in body:
            self.say("max_tokens", "given together with max_completion_tokens")
        for key in ("stream", "parallel_tool_calls", "store", "logprobs"):
            if key in body and not isinstance(body[key], bool):
                self.say(key, "not a boolean")
        if "stream_options" in body:
            options = body["stream_options"]
            if body.get("stream") is not True:
                self.say("stream_options", "only allowed when stream is true")
            if not isinstance(options, dict) or options.keys() - {"include_usage", "include_obfuscation"}:
                self.say("stream_options", "not an object of include_usage and include_obfuscation")
        self.stop(body)
        self.one_of(body, "reasoning_effort", EFFORTS)
        self.one_of(body, "service_tier", ("auto", "default", "flex", "scale", "priority", "fast"))
        self.one_of(body, "verbosity", ("low", "medium", "high"))
        for key, limit in (("prompt_cache_key", 64), ("safety_identifier", 128), ("user", 512)):
            if key in body and not (isinstance(body[key], str) and 0 < len(body[key]) <= limit):
                self.say(key, f"not a string of 1 to {limit} characters")
        if "response_format" in body:
            self.response_format(body["response_format"])

    def one_of(self, body: dict[str, Any], key: str, values: tuple[str, ...]) -> None:
        if key in body and body[key] not in values:
            self.say(key, f"not one of {', '.join(values)}")

    def stop(self, body: dict[str, Any]) -> None:
        if "stop" not in body:
            return
        stop = body["stop"]
        items = [stop] if isinstance(stop, str) else stop
        if not isinstance(items, list) or not items or (len(items) > MAX_STOPS and not self.other_fields):
            self.say("stop", f"not a string or 1 to {MAX_STOPS} strings")
        elif not all(isinstance(item, str) and item for item in items):
            self.say("stop", "holds something that is not a non-empty string")

    def response_format(self, value: Any) -> None:
        kind = value.get("type") if isinstance(value, dict) else None
        if kind not in ("text", "json_object", "json_schema"):
            self.say("response_format", "type is not text, json_object or json_schema")
        elif kind == "json_schema":
            schema = value.get("json_schema")
            if not isinstance(schema, dict):
                self.say("response_format.json_schema", "not an object")
                return
            if not (isinstance(schema.get("name"), str) and NAME.match(schema["name"])):
                self.say("response_format.json_schema.name", "missing or not [a-zA-Z0-9_-]{1,64}")
            if not isinstance(schema.get("schema"), dict):
                self.say("response_format.json_schema.schema", "not an object")
            elif schema.get("strict"):
                self.strict_schema("response_format.json_schema.schema", schema["schema"])

    def strict_schema(self, where: str, schema: Any) -> None:
        """OpenAI's strict subset: closed objects whose properties are all required."""
        if isinstance(schema, list):
            for number, item in enumerate(schema):
                self.strict_schema(f"{where}.{number}", item)
        if not isinstance(schema, dict):
            return
        if schema.get("type") == "object" or "properties" in schema:
            if schema.get("additionalProperties") is not False:
                self.say(where, "strict, but additionalProperties is not false")
            if set(schema.get("properties", {})) != set(schema.get("required", [])):
                self.say(where, "strict, but not all properties are required")
        for name, child in schema.get("properties", {}).items():
            self.strict_schema(f"{where}.properties.{name}", child)
        for key in ("items", "anyOf"):
            self.strict_schema(f"{where}.{key}", schema.get(key))
        for name, child in schema.get("$defs", {}).items():
            self.strict_schema(f"{where}.$defs.{name}", child)

    # -- tools

    def tools(self, body: dict[str, Any]) -> None:
        if "tools" not in body:
            for key in ("tool_choice", "parallel_tool_calls"):
                if key in body:
                    self.say(key, "only allowed when tools are specified")
            return
        tools = body["tools"]
        if not isinstance(tools, list) or not 1 <= len(tools) <= MAX_TOOLS:
            self.say("tools", f"not an array of 1 to {MAX_TOOLS}")
            return
        names = [self.tool(f"tools.{number}", tool) for number, tool in enumerate(tools)]
        if len(set(names)) != len(names):
            self.say("tools", "two of one name")
        if "tool_choice" in body:
            self.tool_choice(body["tool_choice"], names)

    def tool(self, where: str, tool: Any) -> str:
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or tool.get("type") != "function":
            self.say(where, "not a function tool")
            return where
        self.only(where, tool, frozenset({"type", "function"}))
        self.only(f"{where}.function", function, frozenset({"name", "description", "parameters", "strict"}))
        name = function.get("name")
        if not (isinstance(name, str) and NAME.match(name)):
            self.say(f"{where}.function.name", "missing or not [a-zA-Z0-9_-]{1,64}")
        if not isinstance(function.get("description", ""), str):
            self.say(f"{where}.function.description", "not a string")
        if not isinstance(function.get("strict", False), bool):
            self.say(f"{where}.function.strict", "not a boolean")
        if "parameters" in function:
            parameters = function["parameters"]
            if not isinstance(parameters, dict) or parameters.get("type") != "object":
                self.say(f"{where}.function.parameters", "schema must have type object")
            elif not isinstance(parameters.get("properties"), dict):
                self.say(f"{where}.function.parameters", "object schema missing properties")
            elif function.get("strict"):
                self.strict_schema(f"{where}.function.parameters", parameters)
        return str(name)

    def tool_choice(self, choice: Any, names: list[str]) -> None:
        if isinstance(choice, str):
            if choice not in ("none", "auto", "required"):
                self.say("tool_choice", "not none, auto or required")
            return
        function = choice.get("function") if isinstance(choice, dict) else None
        if not isinstance(function, dict) or choice.get("type") != "function":
            self.say("tool_choice", "neither a word nor a function")
        elif function.get("name") not in names:
            self.say("tool_choice", "names a function that is not in tools")

    # -- messages

    def messages(self, messages: Any) -> None:
        if not isinstance(messages, list) or not messages:
            self.say("messages", "not a non-empty array")
            return
        awaited: set[str] = set()
        for number, message in enumerate(messages):
            where = f"messages.{number}"
            role = message.get("role") if isinstance(message, dict) else None
            if role not in MESSAGE_FIELDS:
                self.say(where, "not a message with a known role")
                continue
            self.only(where, message, MESSAGE_FIELDS[role])
            if role == "tool":
                if message.get("tool_call_id") in awaited:
                    awaited.discard(message["tool_call_id"])
                else:
                    self.say(where, "a tool message that answers no preceding tool call")
            elif awaited:
                self.say(where, f"comes before {len(awaited)} tool call(s) were answered")
                awaited = set()
            if role == "assistant":
                awaited = self.assistant(where, message)
            else:
                self.content(f"{where}.content", message.get("content"), role)
        if awaited:
            self.say("messages", f"end before {len(awaited)} tool call(s) were answered")

    def assistant(self, where: str, message: dict[str, Any]) -> set[str]:
        calls = message.get("tool_calls")
        if message.get("content") is not None:
            self.content(f"{where}.content", message["content"], "assistant")
        elif not calls:
            self.say(where, "an assistant message with neither content nor tool calls")
        if "tool_calls" not in message:
            return set()
        if not isinstance(calls, list) or not calls:
            self.say(f"{where}.tool_calls", "not a non-empty array")
            return set()
        ids: set[str] = set()
        for number, call in enumerate(calls):
            ids.add(self.tool_call(f"{where}.tool_calls.{number}", call, ids))
        return ids

    def tool_call(self, where: str, call: Any, earlier: set[str]) -> str:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or call.get("type") != "function":
            self.say(where, "not a function call")
            return where
        self.only(where, call, frozenset({"id", "type", "function"}))
        self.only(f"{where}.function", function, frozenset({"name", "arguments"}))
        call_id = call.get("id")
        if not isinstance(call_id, str) or not call_id:
            self.say(f"{where}.id", "missing")
            return where
        if len(call_id) > MAX_CALL_ID and not self.other_fields:
            self.say(f"{where}.id", f"longer than {MAX_CALL_ID} characters")
        if call_id in earlier:
            self.say(f"{where}.id", "given twice in one message")
        if not (isinstance(function.get("name"), str) and NAME.match(function["name"])):
            self.say(f"{where}.function.name", "missing or not [a-zA-Z0-9_-]{1,64}")
        try:
            arguments = json.loads(function["arguments"])
        except (KeyError, TypeError, ValueError):
            self.say(f"{where}.function.arguments", "not a string of JSON")
        else:
            if not isinstance(arguments, dict):
                self.say(f"{where}.function.arguments", "not the JSON of an object")
        return call_id

    def content(self, where: str, content: Any, role: str) -> None:
        if isinstance(content, str):
            self.text(where, content)
            return
        if not isinstance(content, list) or not content:
            self.say(where, "not a string or a non-empty array")
            return
        for number, part in enumerate(content):
            kind = part.get("type") if isinstance(part, dict) else None
            if kind in PART_TYPES[role]:
                self.part(f"{where}.{number}", part, str(kind))
            elif not (self.other_fields and isinstance(kind, str)):
                self.say(
                    f"{where}.{number}", f"part type {kind!r} is not allowed in a message of role {role}"
                )

    def part(self, where: str, part: dict[str, Any], kind: str) -> None:
        self.only(where, part, PART_FIELDS.get(kind, frozenset(part)))
        if kind == "text":
            self.text(f"{where}.text", part.get("text"))
        elif kind == "image_url":
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, dict) else None
            if not isinstance(url, str) or not (
                DATA_URL.match(url) or url.startswith(("https://", "http://"))
            ):
                self.say(f"{where}.image_url.url", "neither a base64 data URL nor an http URL")
        elif kind == "file":
            file = part.get("file")
            data = file.get("file_data") if isinstance(file, dict) else None
            if not isinstance(file, dict) or file.keys() - {"file_data", "file_id", "filename"}:
                self.say(f"{where}.file", "not an object of file_data, file_id and filename")
            elif data is None and not file.get("file_id"):
                self.say(f"{where}.file", "neither file_data nor file_id")
            elif data is not None and not (isinstance(data, str) and DATA_URL.match(data)):
                self.say(f"{where}.file.file_data", "not a base64 data URL")

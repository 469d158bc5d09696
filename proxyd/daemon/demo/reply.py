"""Generates the demo's replies: a pure function from a Chat Completions request to a `Reply`.

::

    a tool result since the user's last text          ->  a closing sentence about that result
    tool_choice, or "use the X tool to …"             ->  one call of X with arguments that fit its schema
    response_format asks for JSON                     ->  JSON that fits the schema
    anything else                                     ->  what this model is, and how to add a real one

Limits: images are ignored; schemas are filled by type, ``enum`` and the names of properties, not by
``pattern``.
"""

from __future__ import annotations

import posixpath
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from proxyd import jsonio

__all__ = ["BadRequestError", "Reply", "reply_to"]

#: Arguments are sent in fragments of this many characters, since real models split them too.
ARGUMENT_FRAGMENT_CHARS = 16
#: Limit of quotations from the request.
QUOTE_CHARS = 160

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_REMINDER = ("<system-reminder>", "</system-reminder>")
_TOOL_REQUEST = re.compile(
    r"""(?P<negation>\b(?:not|never|without)\s+|n['’]t\s+)?\b(?:use|using|call|invoke|try)\s+(?:the\s+|your\s+)?"""
    r"""[`"'“]?(?P<name>[\w.-]+)[`"'”]?(?P<tool>\s+tool\b)?""",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"`([^`\n]+)`|\"([^\"\n]+)\"|“([^“”\n]+)”|(?<!\w)'([^'\n]+)'(?!\w)")
_PATH = re.compile(
    r"(?<![\w/.~-])(?:[~.]{0,2}/)?[\w.-]+(?:/[\w.-]+)*\.\w+\b|(?<![\w/.~-])(?:~|\.{0,2})/[\w./-]*\w"
)
_URL = re.compile(r"\bhttps?://[^\s\"'`<>]+")
_CONTENT = re.compile(
    r"\b(?:saying|that says|containing|which contains|with (?:the )?(?:text|contents?|words?|line))"
    r"\s{0,8}:?\s{1,8}(\S.*)",
    re.IGNORECASE | re.DOTALL,
)
_COMMAND = re.compile(
    r"\b(?:run|execute|runs)\s{0,8}:?\s{1,8}(?:the command\s{0,8}:?\s{1,8})?(\S[^\n]*)", re.IGNORECASE
)
_DIRECTORY = re.compile(r"\bworking directory\s*:\s*(/[^\n]*)", re.IGNORECASE)

_INTRODUCTION = """\
Hello from the demo model of claude-proxy. Your words went from Claude Code to the proxy, were translated to \
OpenAI Chat Completions, reached this small server inside the proxy, and this answer streams back the same \
way. No key and no network are needed for that, but there is no real intelligence here either.

You wrote: “{prompt}”

Things to try:
- use the Write tool to create hello.txt saying hi
- use the Bash tool to run `date`

To talk to a real model, add an entry to models.yaml (`claude-proxy init` writes one with comments):

```yaml
- model_id: my-model
  model_name: the-name-your-provider-uses
  api_base: https://api.your-provider.example/v1
  api_key: ${{MY_PROVIDER_KEY}}
```

For a provider that speaks the Anthropic API, add `direct: true`. Save the file and run \
`claude-proxy code my-model`.
"""
_LATER = """\
You wrote: “{prompt}” This is turn {turn} of our conversation, which began with “{first}”.

I am still the demo model, which runs inside the proxy: I can show you the path, and a tool when you ask for \
one by name, for example “use the Write tool to create hello.txt saying hi”. For real answers add a model to \
models.yaml, with a `model_id`, an `api_base` and an `api_key`, and pick it with `/model` or `claude-proxy code`.
"""
_CLOSING = """\
The {name} tool answered: “{result}” That was a whole round trip: the call went to Claude Code as a \
`tool_use` block, and its result came back to me as a `tool` message.
"""
_CLOSING_FAILED = """\
The {name} tool could not do it: “{result}” The round trip itself worked: the call went to Claude Code, and \
its answer came back to me. Say the same with other words, or allow the tool when Claude Code asks.
"""


class BadRequestError(Exception):
    """The body is not a Chat Completions request; `param` names the field, as OpenAI does."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to one request: reasoning, then text, then at most one tool call."""

    reasoning: str = ""
    text: str = ""
    tool_name: str = ""
    arguments: dict[str, Any] | None = None

    def parts(self) -> Iterator[tuple[str, str]]:
        """Split the reply into deltas: pairs of kind and text, in the order in which they are sent."""
        for kind, text in (("reasoning_content", self.reasoning), ("content", self.text)):
            for word in re.findall(r"\S+\s*|\s+", text):
                yield kind, word
        if self.arguments is not None:
            text = jsonio.dump_text(self.arguments)
            for start in range(0, len(text), ARGUMENT_FRAGMENT_CHARS):
                yield "arguments", text[start : start + ARGUMENT_FRAGMENT_CHARS]


def reply_to(body: Any) -> Reply:
    """Generate the reply to a Chat Completions request.

    Raises:
        BadRequestError: `body` is not such a request.
    """
    messages = _validated(body)
    prompts = [(at, text) for at, message in enumerate(messages) if (text := _user_text(messages, at))]
    at, prompt = prompts[-1] if prompts else (-1, "")
    is_silent = body.get("reasoning_effort") in ("none", "minimal")

    results = [message for message in messages[at + 1 :] if message["role"] == "tool"]
    if results:
        thought = "The tool has answered, so I sum up what happened. "
        return Reply("" if is_silent else thought, _closing(messages, results[-1]))

    tool = _requested_tool(body, prompt)
    if tool is not None:
        name = tool["name"]
        filler = _Filler(tool.get("parameters") or {}, prompt, directory=_directory(messages), name=name)
        thought = f"The user asks for the {name} tool by name. I fill in what its schema requires. "
        return Reply("" if is_silent else thought, f"I call the {name} tool.", name, filler.arguments())

    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        schema = (wanted.get("json_schema") or {}).get("schema") or {}
        return Reply(text=jsonio.dump_text(_Filler(schema, prompt).arguments()))
    if wanted.get("type") == "json_object":
        return Reply(text=jsonio.dump_text({"answer": f"The demo model read: {_quote(prompt)}"}))

    thought = (
        f"The user says “{_quote(prompt)}”. I am the demo model: I say where this answer comes from "
        "and how to get a real one. "
    )
    template = _INTRODUCTION if len(prompts) < 2 else _LATER
    first = _quote(prompts[0][1]) if prompts else ""
    text = template.format(prompt=_quote(prompt), turn=len(prompts), first=first)
    return Reply("" if is_silent else thought, text)


def _validated(body: Any) -> list[dict[str, Any]]:
    """Validate the request as far as a reply needs it, and return its messages."""
    if not isinstance(body, dict):
        raise BadRequestError("The request body must be a JSON object.")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise BadRequestError("You must provide a model parameter.", "model")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("'messages' must be an array with at least one message.", "messages")
    for at, message in enumerate(messages):
        where = f"messages[{at}]"
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise BadRequestError(
                f"'{where}.role' must be one of {', '.join(sorted(_ROLES))}.", f"{where}.role"
            )
        if not isinstance(message.get("content"), (str, list, type(None))):
            raise BadRequestError(
                f"'{where}.content' must be a string or an array of parts.", f"{where}.content"
            )
    for name in ("max_tokens", "max_completion_tokens"):
        limit = body.get(name)
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise BadRequestError(f"'{name}' must be an integer of at least 1.", name)
    tools = body.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(_function_of(tool) for tool in tools)):
        raise BadRequestError("'tools' must be an array of functions with a name.", "tools")
    for name in ("stream_options", "response_format"):
        if not isinstance(body.get(name), (dict, type(None))):
            raise BadRequestError(f"'{name}' must be an object.", name)
    return messages


def _function_of(tool: Any) -> dict[str, Any] | None:
    function = tool.get("function") if isinstance(tool, dict) else None
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        return function
    return None


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in content or [] if isinstance(part, dict)]
    return "\n\n".join(text for text in texts if isinstance(text, str))


def _user_text(messages: list[dict[str, Any]], at: int) -> str:
    """Return what the user wrote in this message, without the reminders of Claude Code; often empty."""
    message = messages[at]
    if message["role"] != "user":
        return ""
    content = message.get("content")
    has_image = isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") == "image_url" for part in content
    )
    if has_image and at > 0 and messages[at - 1]["role"] == "tool":
        return ""  # the image that a tool returned: OpenAI's tool messages contain text only
    begin, end = _REMINDER
    head, *rest = _text_of(message).split(begin)
    kept = [head] + [part.split(end, 1)[-1] for part in rest]
    return "\n".join(part.strip() for part in kept if part.strip())


def _quote(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= QUOTE_CHARS else line[: QUOTE_CHARS - 1] + "…"


def _closing(messages: list[dict[str, Any]], result: dict[str, Any]) -> str:
    names = {
        call.get("id"): (call.get("function") or {}).get("name")
        for message in messages
        for call in message.get("tool_calls") or []
        if isinstance(call, dict)
    }
    text = _text_of(result).replace("<tool_use_error>", "").replace("</tool_use_error>", "").strip()
    has_failed = text.casefold().startswith("error") or "<tool_use_error>" in _text_of(result)
    template = _CLOSING_FAILED if has_failed else _CLOSING
    name = names.get(result.get("tool_call_id")) or "called"
    return template.format(name=name, result=_quote(text) or "(nothing)")


def _directory(messages: list[dict[str, Any]]) -> str:
    """Return the working directory that Claude Code states, for tools that take absolute paths; else empty."""
    for message in messages:
        found = _DIRECTORY.search(_text_of(message)) if message["role"] != "assistant" else None
        if found:
            return found[1].strip()
    return ""


def _requested_tool(body: dict[str, Any], prompt: str) -> dict[str, Any] | None:
    """Return the function that `tool_choice` or the user names."""
    tools = {
        function["name"]: function for tool in body.get("tools") or [] if (function := _function_of(tool))
    }
    choice = body.get("tool_choice")
    if not tools or choice == "none":
        return None
    if isinstance(choice, dict):
        forced = _function_of(choice)
        if forced is None or forced["name"] not in tools:
            raise BadRequestError("'tool_choice' must name one of 'tools'.", "tool_choice")
        return tools[forced["name"]]
    folded = {name.casefold(): name for name in tools}
    for request in _TOOL_REQUEST.finditer(prompt):
        # "use Write" names the tool only in its exact spelling; "use the write tool" is unambiguous.
        name = folded.get(request["name"].casefold(), "") if request["tool"] else request["name"]
        if name in tools and not request["negation"]:
            return tools[name]
    return next(iter(tools.values())) if choice == "required" else None


class _Filler:
    """Fills the required properties of a JSON schema, from quotations of the user where they fit.

    Each quotation is used once, in order, so that "replace `a` by `b`" fills two properties.
    """

    def __init__(self, schema: dict[str, Any], prompt: str, *, directory: str = "", name: str = "") -> None:
        self._root = schema
        self._prompt = prompt
        self._directory = directory
        quotes = [next(filter(None, found)) for found in _QUOTED.findall(prompt)]
        # In "use the `Write` tool" the quotation is the name of the tool.
        self._quotes: list[str] = [quote for quote in quotes if quote.casefold() != name.casefold()]

    def arguments(self) -> dict[str, Any]:
        """Return an object that fits the schema."""
        return self._object(self._resolved(self._root), 0)

    def _resolved(self, schema: Any) -> dict[str, Any]:
        """Follow local ``$ref``s, and take the first branch of a union that is not null."""
        for _ in range(16):  # a reference may point at itself
            if not isinstance(schema, dict):
                return {}
            reference = schema.get("$ref")
            if isinstance(reference, str) and reference.startswith("#/"):
                target: Any = self._root
                for step in reference[2:].split("/"):
                    target = target.get(step) if isinstance(target, dict) else None
                schema = target
                continue
            branches = schema.get("anyOf") or schema.get("oneOf")
            if not isinstance(branches, list) or not branches:
                return schema
            schema = next((b for b in branches if isinstance(b, dict) and b.get("type") != "null"), {})
        return {}

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties")
        required = schema.get("required")
        if not isinstance(properties, dict) or not isinstance(required, list):
            return {}
        # Paths first, so that the remaining quotations go to the other properties.
        names = sorted((n for n in required if isinstance(n, str)), key=lambda name: not _is_path(name))
        filled = {name: self._value(properties.get(name), name, depth + 1) for name in names}
        return {name: filled[name] for name in required if name in filled}

    def _value(self, schema: Any, name: str, depth: int) -> Any:
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            text = self._prompt.casefold()
            return next((v for v in schema["enum"] if str(v).casefold() in text), schema["enum"][0])
        if "default" in schema:
            return schema["default"]
        kinds = schema.get("type", "object" if "properties" in schema else "string")
        kind = next((k for k in kinds if k != "null"), "null") if isinstance(kinds, list) else kinds
        if kind == "object":
            return self._object(schema, depth) if depth < 32 else {}
        if kind == "array":
            count = max(_number(schema.get("minItems"), 0), 0) if depth < 32 else 0
            return [self._value(schema.get("items"), name, depth + 1) for _ in range(min(int(count), 8))]
        if kind == "boolean":
            return False
        if kind in ("integer", "number"):
            low = _number(schema.get("minimum"), _number(schema.get("exclusiveMinimum"), 0) + 1)
            value = min(low, _number(schema.get("maximum"), low))
            return int(value) if kind == "integer" else value
        if kind == "null":
            return None
        return self._fitted(self._string(name.casefold(), schema), schema)

    def _string(self, name: str, schema: dict[str, Any]) -> str:
        kind = schema.get("format")
        if kind in ("uri", "url") or "url" in name or "uri" in name:
            found = _URL.search(self._prompt)
            return found[0].rstrip(".,;:!?)") if found else "https://example.com/"
        if kind == "date":
            return time.strftime("%Y-%m-%d", time.gmtime())
        if kind == "date-time":
            return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if _is_path(name):
            return self._path()
        if name in ("title", "description", "subject", "summary", "label", "header"):
            return _quote(self._prompt)[:60] or "Demo"
        if name == "prompt":
            return self._prompt or "Say hello."
        if self._quotes:
            return self._quotes.pop(0)
        if "command" in name or name in ("cmd", "script", "code"):
            found = _COMMAND.search(self._prompt)
            return found[1].strip().rstrip(".") if found else "echo hello from the demo model"
        found = _CONTENT.search(self._prompt)
        return found[1].strip().rstrip(".") if found else "Hello from the demo model."

    def _path(self) -> str:
        path = ""
        for at, quote in enumerate(self._quotes):
            if _PATH.fullmatch(quote):
                path = self._quotes.pop(at)
                break
        else:
            found = _PATH.search(_URL.sub(" ", self._prompt))
            path = found[0] if found else "demo.txt"
        if self._directory and not path.startswith(("/", "~")):
            path = posixpath.normpath(posixpath.join(self._directory, path))
        return path

    @staticmethod
    def _fitted(text: str, schema: dict[str, Any]) -> str:
        shortest = min(int(_number(schema.get("minLength"), 0)), 10_000)
        longest = max(int(_number(schema.get("maxLength"), len(text) + shortest)), 0)
        return text.ljust(shortest, ".")[:longest]


def _is_path(name: str) -> bool:
    folded = name.casefold()
    return "path" in folded or folded in ("file", "filename", "file_name", "directory", "dir", "folder")


def _number(value: Any, otherwise: float) -> float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else otherwise

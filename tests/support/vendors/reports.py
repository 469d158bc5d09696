"""What a reported refusal is, and what its rows are made of (`tests.support.vendors.reported`).

Each row is a vendor of its own that refuses one thing. Its request goes through ``generic``, and must be taken within
four tries, with all tools and texts. Words are those of the source, perhaps shortened; where there is none, they are
our own, in the manner of such servers.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from proxyd.codecs.anthropic.thinking_signature import encode_signature
from tests.captures import Capture

__all__ = [
    "EMPTY_CONTENT",
    "FORCED",
    "FORMAT",
    "GITHUB",
    "IMAGE",
    "NAMED",
    "NAMELESS",
    "NULL_CONTENT",
    "OURS",
    "PARALLEL_OFF",
    "SAMPLED",
    "TWO_CALLS",
    "Report",
    "any_message",
    "code",
    "detail",
    "forbidden_in",
    "gh",
    "google",
    "has",
    "is_in",
    "is_not_in",
    "late_system",
    "limit",
    "message",
    "minimax",
    "neighbours",
    "part_of",
    "parts",
    "request_of",
    "with_tools",
    "words_in_schemas",
    "xai",
]

Body = Mapping[str, Any]
GITHUB = "https://github.com/"
#: Source of words that were read nowhere.
OURS = "our own words"


@dataclass(frozen=True)
class Report:
    """One refusal.

    Args:
        source: the page where it was read, or `OURS`.
        refuses: whether a body is refused.
        words: the vendor's text.
        capture: the request of Claude Code that is sent, see `request_of`, and `fields` over it.
        envelope: the text -> the JSON of the error.
        quirks: of the profile, where only another one sends what is refused.
    """

    source: str
    refuses: Callable[[Body], bool]
    words: str
    capture: str = "tool_turn"
    fields: Mapping[str, Any] = field(default_factory=dict)
    status: int = 400
    envelope: Callable[[str], Any] = lambda text: {
        "error": {"message": text, "type": "invalid_request_error"}
    }
    quirks: Mapping[str, Any] = field(default_factory=dict)
    model: str = "some-model"
    most_tries: int = 4

    @property
    def name(self) -> str:
        return f"{self.source.removeprefix(GITHUB)}: {self.words[:60]}"


# -- requests


def request_of(report: Report, found: Mapping[str, Capture]) -> dict[str, Any]:
    """Return the client's request that is refused.

    Args:
        found: the captures of one version.
    """
    make = _MADE.get(report.capture)
    body = found[report.capture].body if make is None else make(found, report.model)
    fields = dict(report.fields)
    if "output_config" in fields:
        fields["output_config"] = {**body.get("output_config", {}), **fields["output_config"]}
    return {**body, **fields}


def _with_calls_alone(found: Mapping[str, Capture], model: str) -> dict[str, Any]:
    body = copy.deepcopy(found["tool_turn"].body)
    for each in body["messages"]:
        if each["role"] == "assistant":
            each["content"] = [block for block in each["content"] if block["type"] == "tool_use"]
    return body


def _reasoned(field: str, **signed: Any) -> Callable[[Mapping[str, Capture], str], dict[str, Any]]:
    def make(found: Mapping[str, Capture], model: str) -> dict[str, Any]:
        body = _with_calls_alone(found, model)
        signature = encode_signature(model, field, None, None, fields=signed)
        for each in body["messages"]:
            if each["role"] == "assistant":
                each["content"].insert(0, {"type": "thinking", "thinking": "Hm.", "signature": signature})
        return body

    return make


def _with_tool(**fields: Any) -> Callable[[Mapping[str, Capture], str], dict[str, Any]]:
    def make(found: Mapping[str, Capture], model: str) -> dict[str, Any]:
        body = found["first_turn"].body
        return {
            **body,
            "tools": [*body["tools"], {"name": "T", "input_schema": {"type": "object"}, **fields}],
        }

    return make


def _two_users(found: Mapping[str, Capture], model: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": text} for text in ("One.", "Two.")]
    return {**found["first_turn"].body, "messages": messages}


#: Requests that are made of captures.
_MADE: Mapping[str, Callable[[Mapping[str, Capture], str], dict[str, Any]]] = {
    "bare_call": _with_calls_alone,
    "reasoned": _reasoned("reasoning_content"),
    "reasoned_openrouter": _reasoned("reasoning"),
    "signed": _reasoned("reasoning_text", reasoning_opaque="abc"),
    "odd_names": _with_tool(name="1password__get"),
    "long_descriptions": _with_tool(description="word " * 500),
    "two_users": _two_users,
}


# -- envelopes


def xai(text: str) -> Any:
    return {"code": "Client specified an invalid argument", "error": text}


def detail(text: str) -> Any:
    return {"detail": text}


def message(text: str) -> Any:
    return {"object": "error", "message": text, "type": "BadRequestError", "param": None, "code": 400}


def code(text: str) -> Any:
    return {"code": 20015, "message": text, "data": None}


def minimax(text: str) -> Any:
    return {"type": "error", "error": {"type": "bad_request_error", "message": text, "http_code": "400"}}


def google(text: str) -> Any:
    return [{"error": {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}}]


def forbidden_in(*place: str) -> Callable[[str], Any]:
    return lambda text: {"detail": [{"type": "extra_forbidden", "loc": ["body", *place], "msg": text}]}


# -- what is refused


def has(*paths: str) -> Callable[[Body], bool]:
    def refuses(body: Body) -> bool:
        for path in paths:
            value: Any = body
            for name in path.split("."):
                value = value.get(name) if isinstance(value, Mapping) else None
            if value is not None:
                return True
        return False

    return refuses


def is_in(path: str, *values: Any) -> Callable[[Body], bool]:
    return lambda body: body.get(path) in values


def is_not_in(path: str, *values: Any) -> Callable[[Body], bool]:
    return lambda body: path in body and body[path] not in values


def words_in_schemas(*words: str) -> Callable[[Body], bool]:
    def refuses(body: Body) -> bool:
        schemas = json.dumps([tool["function"]["parameters"] for tool in body.get("tools") or ()])
        return any(f'"{word}"' in schemas for word in words)

    return refuses


def with_tools(refuses: Callable[[Body], bool]) -> Callable[[Body], bool]:
    return lambda body: bool(body.get("tools")) and refuses(body)


def any_message(refuses: Callable[[Mapping[str, Any]], bool]) -> Callable[[Body], bool]:
    return lambda body: any(map(refuses, body["messages"]))


def neighbours(refuses: Callable[[str, str], bool]) -> Callable[[Body], bool]:
    return lambda body: any(
        refuses(first["role"], second["role"]) for first, second in itertools.pairwise(body["messages"])
    )


def parts(body: Body) -> Iterator[Mapping[str, Any]]:
    for each in body["messages"]:
        content = each.get("content")
        yield from content if isinstance(content, list) else ()


def part_of(*kinds: str) -> Callable[[Body], bool]:
    return lambda body: any(part.get("type") in kinds for part in parts(body))


def limit(path: str, most: int) -> Callable[[Body], bool]:
    return lambda body: any(body.get(name, 0) > most for name in (path, "max_completion_tokens"))


def late_system(body: Body) -> bool:
    return any(m["role"] == "system" for m in body["messages"][1:])


NULL_CONTENT = any_message(lambda m: m.get("content") is None)
EMPTY_CONTENT = any_message(lambda m: m.get("content") in (None, "", []))
TWO_CALLS = any_message(lambda m: len(m.get("tool_calls") or ()) > 1)
NAMELESS = any_message(lambda m: m["role"] == "tool" and not m.get("name"))
IMAGE = part_of("image_url")
FORCED = {"tool_choice": {"type": "any"}}
NAMED = {"tool_choice": {"type": "tool", "name": "Bash"}}
SAMPLED = {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "stop_sequences": ["a", "b", "c", "d", "e"]}
PARALLEL_OFF = {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
FORMAT = {
    "output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "properties": {}}}}
}


def gh(place: str) -> str:
    return GITHUB + re.sub(r"#(\d+)", r"/issues/\1", place)

"""Translate a Messages request to a Chat Completions request: a pure function (docs/spec/messages-to-chat.md).

Blocks of the history are degraded to text where necessary, never refused; 400 is for requests without any meaning
upstream. `Translated.notes` lists what was dropped or altered.

The payload is never changed, and the body shares only texts with its messages, since the prompt cache gives the same
messages to other requests. Tools are shared with other requests: copy them before changing them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from proxyd import jsonio
from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.cache.tools import SystemPrompt, shared_system
from proxyd.codecs.openai.messages import to_openai_messages
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.json_schema import fits_strict
from proxyd.codecs.translation.schema_styles import in_style
from proxyd.codecs.translation.thinking_params import requested_thinking, write_thinking
from proxyd.codecs.translation.token_estimate import tools_tokens
from proxyd.codecs.translation.tools import Tools, choose, to_openai_tools
from proxyd.codecs.translation.translation_notes import Note, Notes
from proxyd.errors import ClientError

__all__ = ["Note", "RequestOptions", "Translated", "run_to_end", "to_openai_request", "translation"]

_T = TypeVar("_T")

#: Placeholder of the system prompt, and its member in JSON, which no string can contain.
_PLACEHOLDER, _PLACEHOLDER_JSON = "\0", b'"content":"\\u0000"'

#: Longest ``prompt_cache_key`` that OpenAI accepts; Claude Code's session ids are 36 characters.
MAX_CACHE_KEY = 64

# fmt: off
#: Fields that the translation reads.
_READ = frozenset((
    "model", "messages", "system", "max_tokens", "stream", "stop_sequences", "temperature", "top_p",
    "top_k", "tools", "tool_choice", "thinking", "output_config", "output_format", "metadata",
    "service_tier", "thread", "compaction",
))
#: Fields for features of Anthropic's servers; others are unknown.
_ANTHROPIC_ONLY = frozenset((
    "cache_control", "container", "mcp_servers", "context_management", "diagnostics", "inference_geo",
    "fallbacks", "speed", "safeguards", "fallback_credit_token", "billing_policy", "task_budget",
    "user_profile_id",
))
# fmt: on


@dataclass(slots=True)
class RequestOptions:
    """The route's configuration (docs/spec/design.md#models-yaml).

    Args:
        model: the upstream's name of the model, also the ``m`` of signatures.
        stream: whether to request a stream, whatever the client requested.
        max_tokens: upper limit of the request's.
        temperature: overrides the request's, as `top_p` does.
        reasoning_effort: ``minimal`` and ``none`` mean no thinking.
        vision: None means as the dialect says.
        extra_body: deep-merged into the body at the end.
        session_id: Claude Code's, for upstreams that route their cache by it.
    """

    model: str
    stream: bool
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    reasoning_effort: str | None = None
    vision: bool | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    session_id: str | None = None


@dataclass(slots=True)
class Translated:
    """The upstream request.

    Args:
        body: the request to send, see `written`.
        tools: their ``offered`` may be shared with other requests.
        notes: what was dropped or altered and why; never content.
        tool_ids: the client's ids of all tool calls in the history.
        input_tokens: `estimate_input_tokens` of the client's request.
        system: the cached system prompt, if it is known.
    """

    body: dict[str, Any]
    tools: Tools
    notes: tuple[Note, ...]
    tool_ids: Collection[str] = ()
    input_tokens: int = 1
    system: SystemPrompt | None = None

    @property
    def tool_names(self) -> dict[str, str]:
        """Upstream name -> the client's name, only for altered names."""
        return self.tools.names

    def written(self) -> bytes:
        """Serialise `body`.

        Raises:
            JSONError: it holds NaN or Infinity.
        """
        body, tools = self.body, self.tools
        if tools.written is None or body.get("tools") is not tools.offered:
            return jsonio.dump_ascii(body)
        rest = {name: value for name, value in body.items() if name != "tools"}
        text = _system_text(body)
        if self.system is None or text is None:
            head = memoryview(jsonio.dump_ascii(rest))[:-1]  # no copy
            return b"".join((head, b',"tools":', tools.written, b"}"))
        # The first message is the first object in the body, so the first such member is its own.
        rest["messages"] = [{**body["messages"][0], "content": _PLACEHOLDER}, *body["messages"][1:]]
        written = jsonio.dump_ascii(rest)
        at, view = written.index(_PLACEHOLDER_JSON), memoryview(written)
        head, tail = view[:at], view[at + len(_PLACEHOLDER_JSON) : -1]
        return b"".join(
            (head, b'"content":', self.system.literal(text), tail, b',"tools":', tools.written, b"}")
        )


def _system_text(body: Mapping[str, Any]) -> str | None:
    """Return the text of the first message, if it is a system message; ``extra_body`` may have replaced it."""
    messages = body.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    if not isinstance(first, dict) or first.get("role") not in ("system", "developer"):
        return None
    text = first.get("content")
    return text if isinstance(text, str) else None


def to_openai_request(payload: dict[str, Any], dialect: Dialect, options: RequestOptions) -> Translated:
    """Translate one Messages request without yielding.

    Raises:
        ClientError: as `translation`.
    """
    return run_to_end(translation(payload, dialect, options))


def run_to_end(steps: Generator[None, None, _T]) -> _T:
    """Run a generator to its end and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result


def translation(
    payload: dict[str, Any], dialect: Dialect, options: RequestOptions, inputs: ToolInputs | None = None
) -> Generator[None, None, Translated]:
    """Translate one Messages request, yielding now and then so that the caller can let other tasks run.

    Args:
        inputs: tool inputs of `payload` that were serialised before.

    Raises:
        ClientError: the payload is not a Messages request, or has no meaning upstream.
    """
    notes = Notes()
    _check_request(payload)
    body = _merge({"model": options.model, "messages": []}, dialect.body)
    instructions = _response_format(payload, dialect, body, notes)
    conversation = yield from to_openai_messages(
        payload,
        dialect,
        model=options.model,
        vision=dialect.vision if options.vision is None else options.vision,
        instructions=instructions,
        notes=notes,
        inputs=ToolInputs() if inputs is None else inputs,
    )
    body["messages"] = conversation.messages
    if body["messages"][-1]["role"] == "assistant":
        body = _merge(body, dialect.prefill_body)
    _output_limit(payload, dialect, options, body)
    _sampling(payload, dialect, options, body, notes)
    _stop_sequences(payload, dialect, body, notes)
    wanted = requested_thinking(payload, options.reasoning_effort, dialect, notes)
    is_thinking = write_thinking(wanted, dialect, body, notes)
    tools = to_openai_tools(payload, dialect, notes)
    if tools.offered:
        body = _merge(body, dialect.body_with_tools)
    body.update(choose(payload, tools, dialect, is_thinking=is_thinking, notes=notes))
    _accounting(payload, dialect, options, body, notes)
    body["stream"] = options.stream
    if options.stream and dialect.stream_options:
        body["stream_options"] = {"include_usage": True}
    for name in payload.keys() - _READ:
        why = "only Anthropic's servers do this" if name in _ANTHROPIC_ONLY else "unknown field"
        notes.add(name, "dropped", why)
    if options.extra_body:
        body = _merge(body, options.extra_body)
    input_tokens = max(1, conversation.tokens + tools_tokens(payload.get("tools")))
    system = shared_system(payload)
    return Translated(body, tools, notes.take(), conversation.tool_ids, input_tokens, system)


def _check_request(payload: dict[str, Any]) -> None:
    messages = payload.get("messages")
    if not isinstance(messages, list):
        kind = "nothing" if messages is None else type(messages).__name__
        raise ClientError(f"messages: expected an array, got {kind}; send the conversation")
    if not messages:
        raise ClientError("messages: expected at least one message, got none; send the conversation")
    if payload.get("compaction") is not None:
        raise ClientError("compaction: this upstream cannot compact; ask for a summary in a message instead")


def _response_format(
    payload: dict[str, Any], dialect: Dialect, body: dict[str, Any], notes: Notes
) -> str | None:
    """Write ``response_format``, or return instructions that replace it where the upstream has none."""
    output_config = payload.get("output_config")
    wanted = output_config.get("format") if isinstance(output_config, dict) else None
    wanted = wanted or payload.get("output_format")
    schema = wanted.get("schema") if isinstance(wanted, dict) else None
    if not isinstance(schema, dict):
        return None
    if dialect.response_format == "json_schema":
        json_schema: dict[str, Any] = {"name": "output", "schema": in_style(schema, dialect.schema_style)}
        if dialect.schema_style != "gemini" and fits_strict(json_schema["schema"]):
            json_schema["strict"] = True
        body["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        return None
    if dialect.response_format == "json_object":
        body["response_format"] = {"type": "json_object"}
    notes.add("output_config.format", "became instructions", "the upstream takes no schema for its response")
    return (
        "Answer with one JSON object and nothing else, no code fence. It must match this JSON Schema:\n"
        + jsonio.dump_text(schema)
    )


def _output_limit(
    payload: dict[str, Any], dialect: Dialect, options: RequestOptions, body: dict[str, Any]
) -> None:
    wanted = payload.get("max_tokens")
    if wanted is None:
        wanted = options.max_tokens
    elif type(wanted) is not int or wanted < 0:
        raise ClientError("max_tokens: expected a whole number from 1; send one")
    elif options.max_tokens is not None:
        wanted = min(wanted, options.max_tokens)
    if wanted is not None:
        body[dialect.max_tokens_field] = max(wanted, 1)


def _sampling(
    payload: dict[str, Any], dialect: Dialect, options: RequestOptions, body: dict[str, Any], notes: Notes
) -> None:
    configured = {"temperature": options.temperature, "top_p": options.top_p}
    for name in ("temperature", "top_p", "top_k"):
        value = configured.get(name)
        if value is None:
            value = payload.get(name)
        if value is None:
            continue
        if name not in dialect.sampling:
            notes.add(name, "dropped", "the upstream does not take it")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
            body[name] = value
        else:
            raise ClientError(
                f"{name}: expected a number, got {type(value).__name__}; send one or leave it out"
            )


def _stop_sequences(payload: dict[str, Any], dialect: Dialect, body: dict[str, Any], notes: Notes) -> None:
    sequences = payload.get("stop_sequences")
    if not isinstance(sequences, list):
        return
    usable = [text for text in sequences if isinstance(text, str) and text]
    limit = dialect.stop_limit
    if limit is not None and len(usable) > limit:
        notes.add("stop_sequences", f"cut to {limit}", "the upstream takes no more")
        usable = usable[:limit]
    if usable:
        body["stop"] = usable


def _accounting(
    payload: dict[str, Any], dialect: Dialect, options: RequestOptions, body: dict[str, Any], notes: Notes
) -> None:
    """Write tier, cache key and user, which affect the upstream's accounting and not its response."""
    tier = payload.get("service_tier")
    if tier is not None:
        if dialect.service_tier and tier in ("auto", "standard_only"):
            body["service_tier"] = "auto" if tier == "auto" else "default"
        else:
            notes.add("service_tier", "dropped", "the upstream has no such tiers")
    metadata = payload.get("metadata")
    user_id = metadata.get("user_id") if isinstance(metadata, dict) else None
    if dialect.safety_identifier and isinstance(user_id, str):
        body["safety_identifier"] = _hex_digest(user_id)
    elif metadata:
        notes.add("metadata", "dropped", "the user's identity is not the upstream's business")
    if dialect.prompt_cache_key and options.session_id:
        key = options.session_id
        body["prompt_cache_key"] = key if len(key) <= MAX_CACHE_KEY else _hex_digest(key)


def _hex_digest(text: str) -> str:
    """Return 64 characters that identify a text without revealing it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _merge(body: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `extra` into a copy of `body`, objects member by member; the result shares no object with `extra`."""
    merged = dict(body)
    for key, value in extra.items():
        if isinstance(value, Mapping):
            present = merged.get(key)
            value = _merge(present if isinstance(present, Mapping) else {}, value)
        merged[key] = value
    return merged

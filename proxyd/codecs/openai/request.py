"""Messages request -> Chat Completions request: a pure function (docs/spec/messages-to-chat.md).

What sits in the history is degraded to text where it must be, never refused; 400 is for what makes the call
itself meaningless. What is dropped or altered is told in `Translated.notes`.

The payload is never changed, and of its messages the body shares nothing but texts, since other requests may begin with
the same. Tools it does share with other requests: a caller that means to change these in depth works on a copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from proxyd import jsonio
from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.cache.tools import SystemPrompt, shared_system
from proxyd.codecs.openai.dialect import Dialect
from proxyd.codecs.openai.json_schema import fits_strict
from proxyd.codecs.openai.messages import to_openai_messages
from proxyd.codecs.openai.schema_styles import in_style
from proxyd.codecs.openai.thinking_params import thinking_of, write_thinking
from proxyd.codecs.openai.token_estimate import tools_tokens
from proxyd.codecs.openai.tools import Tools, choose, to_openai_tools
from proxyd.codecs.openai.translation_notes import Note, Notes
from proxyd.errors import ClientError

__all__ = ["Note", "RequestOptions", "Translated", "in_one_go", "to_openai_request", "translation"]

_T = TypeVar("_T")

#: What stands in for a system prompt, and the member in JSON, as it can be in no string.
_STAND_IN, _STAND_IN_JSON = "\0", b'"content":"\\u0000"'

#: Longest ``prompt_cache_key`` that OpenAI takes; Claude Code's session ids are 36 characters.
MAX_CACHE_KEY = 64

# fmt: off
#: Fields that are read here or in the modules above.
_READ = frozenset((
    "model", "messages", "system", "max_tokens", "stream", "stop_sequences", "temperature", "top_p",
    "top_k", "tools", "tool_choice", "thinking", "output_config", "output_format", "metadata",
    "service_tier", "thread", "compaction",
))
#: Fields that ask for something only Anthropic's servers do; anything else is a field we have never heard of.
_ANTHROPIC_ONLY = frozenset((
    "cache_control", "container", "mcp_servers", "context_management", "diagnostics", "inference_geo",
    "fallbacks", "speed", "safeguards", "fallback_credit_token", "billing_policy", "task_budget",
    "user_profile_id",
))
# fmt: on


@dataclass(slots=True)
class RequestOptions:
    """What the route configures (docs/spec/design.md#models-yaml).

    Args:
        model: the upstream's name of the model, also the ``m`` of signatures.
        stream: what to ask of the upstream, whatever the client asked.
        max_tokens: upper clamp on the request's.
        temperature: overrides the request's, as `top_p` does.
        reasoning_effort: ``minimal`` and ``none`` mean no thinking.
        vision: None takes the dialect's word.
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
        body: what to send.
        tools: those on offer; their ``offered`` may be shared with other requests.
        notes: what was dropped or altered and why; never content.
        tool_ids: the client's ids of all tool calls in the history.
        input_tokens: what `estimate_input_tokens` says of the client's request.
        system: what is known of its system prompt.
    """

    body: dict[str, Any]
    tools: Tools
    notes: tuple[Note, ...]
    tool_ids: Collection[str] = ()
    input_tokens: int = 1
    system: SystemPrompt | None = None

    @property
    def tool_names(self) -> dict[str, str]:
        """Upstream name -> the client's name, only of the altered ones."""
        return self.tools.names

    def written(self) -> bytes:
        """`body` as JSON.

        Raises:
            JSONError: it holds a number that JSON has no form for.
        """
        body, tools = self.body, self.tools
        if tools.written is None or body.get("tools") is not tools.offered:
            return jsonio.dump_ascii(body)
        rest = {name: value for name, value in body.items() if name != "tools"}
        text = _system_text(body)
        if self.system is None or text is None:
            opened = memoryview(jsonio.dump_ascii(rest))[:-1]  # a slice would be a copy
            return b"".join((opened, b',"tools":', tools.written, b"}"))
        # The first message is the first object in a body, so the first such member is its own.
        rest["messages"] = [{**body["messages"][0], "content": _STAND_IN}, *body["messages"][1:]]
        written = jsonio.dump_ascii(rest)
        at, view = written.index(_STAND_IN_JSON), memoryview(written)
        opened, goes_on = view[:at], view[at + len(_STAND_IN_JSON) : -1]
        return b"".join(
            (opened, b'"content":', self.system.literal(text), goes_on, b',"tools":', tools.written, b"}")
        )


def _system_text(body: Mapping[str, Any]) -> str | None:
    """The text of a first message that holds the instructions; models.yaml may have put anything into its place."""
    messages = body.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    if not isinstance(first, dict) or first.get("role") not in ("system", "developer"):
        return None
    text = first.get("content")
    return text if isinstance(text, str) else None


def to_openai_request(payload: dict[str, Any], dialect: Dialect, options: RequestOptions) -> Translated:
    """Translate one Messages request, in one go.

    Raises:
        ClientError: as `translation`.
    """
    return in_one_go(translation(payload, dialect, options))


def in_one_go(steps: Generator[None, None, _T]) -> _T:
    """What comes of `steps`."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result


def translation(
    payload: dict[str, Any], dialect: Dialect, options: RequestOptions, inputs: ToolInputs | None = None
) -> Generator[None, None, Translated]:
    """Translate one Messages request, in steps, none of which takes long.

    Args:
        inputs: those of `payload`, as far as they have been written.

    Raises:
        ClientError: the payload is not a Messages request, or asks for what no translation can give.
    """
    notes = Notes()
    _refuse_the_meaningless(payload)
    body = _merged({"model": options.model, "messages": []}, dialect.body)
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
        body = _merged(body, dialect.prefill_body)
    _output_limit(payload, dialect, options, body)
    _sampling(payload, dialect, options, body, notes)
    _stop(payload, dialect, body, notes)
    wanted = thinking_of(payload, options.reasoning_effort, dialect, notes)
    is_thinking = write_thinking(wanted, dialect, body, notes)
    tools = to_openai_tools(payload, dialect, notes)
    if tools.offered:
        body = _merged(body, dialect.body_with_tools)
    body.update(choose(payload, tools, dialect, is_thinking=is_thinking, notes=notes))
    _bookkeeping(payload, dialect, options, body, notes)
    body["stream"] = options.stream
    if options.stream and dialect.stream_options:
        body["stream_options"] = {"include_usage": True}
    for name in payload.keys() - _READ:
        why = "only Anthropic's servers do this" if name in _ANTHROPIC_ONLY else "unknown field"
        notes.add(name, "dropped", why)
    if options.extra_body:
        body = _merged(body, options.extra_body)
    input_tokens = max(1, conversation.tokens + tools_tokens(payload.get("tools")))
    system = shared_system(payload)
    return Translated(body, tools, notes.take(), conversation.tool_ids, input_tokens, system)


def _refuse_the_meaningless(payload: dict[str, Any]) -> None:
    messages = payload.get("messages")
    if not isinstance(messages, list):
        seen = "nothing" if messages is None else type(messages).__name__
        raise ClientError(f"messages: expected an array, got {seen}; send the conversation")
    if not messages:
        raise ClientError("messages: expected at least one message, got none; send the conversation")
    thread = payload.get("thread")
    if isinstance(thread, dict) and thread.get("type") == "continue":
        raise ClientError("thread: this upstream keeps no conversations; send all messages instead")
    if payload.get("compaction") is not None:
        raise ClientError("compaction: this upstream cannot compact; ask for a summary in a message instead")


def _response_format(
    payload: dict[str, Any], dialect: Dialect, body: dict[str, Any], notes: Notes
) -> str | None:
    """Write ``response_format``; the instructions that stand in for it where it is not understood."""
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
    notes.add("output_config.format", "became instructions", "the upstream takes no schema for its answer")
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


def _stop(payload: dict[str, Any], dialect: Dialect, body: dict[str, Any], notes: Notes) -> None:
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


def _bookkeeping(
    payload: dict[str, Any], dialect: Dialect, options: RequestOptions, body: dict[str, Any], notes: Notes
) -> None:
    """Tier, cache key and user: what steers the upstream's accounting and not its answer."""
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
    """64 characters that tell equal texts from different ones and nothing else."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _merged(body: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`extra` over `body`, objects member by member; the result shares no object with `extra`."""
    merged = dict(body)
    for key, value in extra.items():
        if isinstance(value, Mapping):
            present = merged.get(key)
            value = _merged(present if isinstance(present, Mapping) else {}, value)
        merged[key] = value
    return merged

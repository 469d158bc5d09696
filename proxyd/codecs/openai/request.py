"""Translate a Messages request to a Chat Completions request: a pure function (docs/spec/messages-to-chat.md).

Blocks of the history are degraded to text where necessary, never refused; 400 is for requests without any meaning
upstream. `Translated.notes` lists what was dropped or altered.

The payload is never changed, and the body shares only texts with its messages, since the prompt cache gives the same
messages to other requests. Tools are shared with other requests: copy them before changing them.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from proxyd import jsonio
from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.cache.tools import shared_system
from proxyd.codecs.openai.message_shape import called_names
from proxyd.codecs.openai.messages import to_openai_messages
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.json_schema import fits_strict
from proxyd.codecs.translation.request_fields import (
    check_request,
    note_dropped,
    output_limit,
    requested_schema,
    schema_as_instructions,
    write_accounting,
    write_sampling,
)
from proxyd.codecs.translation.schema_styles import in_style
from proxyd.codecs.translation.thinking_params import requested_thinking, write_thinking
from proxyd.codecs.translation.token_estimate import tools_tokens
from proxyd.codecs.translation.tools import ToolShape, choose, long_descriptions, to_upstream_tools
from proxyd.codecs.translation.translated import (
    PLACEHOLDER,
    RequestOptions,
    Translated,
    merge,
    run_to_end,
    with_literal,
)
from proxyd.codecs.translation.translation_notes import Notes

__all__ = ["to_openai_request", "translation"]

#: Tools and choices as Chat Completions has them.
_SHAPE = ToolShape(
    "chat",
    tool=lambda function: {"type": "function", "function": function},
    name_of=lambda tool: tool["function"]["name"],
    choice=lambda name: {"type": "function", "function": {"name": name}},
)


@dataclass(slots=True)
class ChatRequest(Translated):
    """A Chat Completions request."""

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
        rest["messages"] = [{**body["messages"][0], "content": PLACEHOLDER}, *body["messages"][1:]]
        head, system, tail = with_literal(jsonio.dump_ascii(rest), "content", self.system.literal(text))
        return b"".join((head, system, tail[:-1], b',"tools":', tools.written, b"}"))


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
    check_request(payload)
    body = merge({"model": options.model, "messages": []}, dialect.body)
    instructions = _response_format(payload, dialect, body, notes)
    if dialect.max_description is not None:
        texts = [instructions, long_descriptions(payload, dialect)]
        instructions = "\n\n".join(text for text in texts if text) or None
    conversation = yield from to_openai_messages(
        payload,
        dialect,
        model=options.signer,
        vision=dialect.vision if options.vision is None else options.vision,
        instructions=instructions,
        notes=notes,
        inputs=ToolInputs() if inputs is None else inputs,
    )
    body["messages"] = conversation.items
    if body["messages"][-1]["role"] == "assistant":
        body = merge(body, dialect.prefill_body)
    limit = output_limit(payload, options)
    if limit is not None:
        body[dialect.max_tokens_field] = limit
    write_sampling(payload, dialect, options, body, notes)
    _stop_sequences(payload, dialect, body, notes)
    wanted = requested_thinking(payload, options.reasoning_effort, dialect, notes)
    is_thinking = write_thinking(wanted, dialect, body, notes)
    tools = to_upstream_tools(payload, dialect, _SHAPE, notes)
    if tools.offered:
        body = merge(body, dialect.body_with_tools)
    elif dialect.declares_called_tools and (names := called_names(conversation.items)):
        body["tools"] = [_SHAPE.tool(_declared(name)) for name in names]
        body["tool_choice"] = "none"
    body.update(choose(payload, tools, dialect, _SHAPE, is_thinking=is_thinking, notes=notes))
    write_accounting(payload, dialect, options, body, notes)
    body["stream"] = options.stream
    if options.stream and dialect.stream_options:
        body["stream_options"] = {"include_usage": True}
    note_dropped(payload, notes)
    if options.extra_body:
        body = merge(body, options.extra_body)
    input_tokens = max(1, conversation.tokens + tools_tokens(payload.get("tools")))
    system = shared_system(payload)
    sent_limit = body.get(dialect.max_tokens_field)
    return ChatRequest(body, tools, notes.take(), conversation.tool_ids, input_tokens, system, sent_limit)


def _declared(name: str) -> dict[str, Any]:
    """Return a tool that the history calls and that must not be called any more."""
    parameters = {"type": "object", "properties": {}}
    return {"name": name, "description": "Not available any more.", "parameters": parameters}


def _response_format(
    payload: dict[str, Any], dialect: Dialect, body: dict[str, Any], notes: Notes
) -> str | None:
    """Write ``response_format``, or return instructions that replace it where the upstream has none."""
    schema = requested_schema(payload)
    if schema is None:
        return None
    if dialect.response_format == "json_schema":
        json_schema: dict[str, Any] = {"name": "output", "schema": in_style(schema, dialect.schema_style)}
        if dialect.schema_style != "gemini" and fits_strict(json_schema["schema"]):
            json_schema["strict"] = True
        body["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        return None
    if dialect.response_format == "json_object":
        body["response_format"] = {"type": "json_object"}
    return schema_as_instructions(schema, notes)


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

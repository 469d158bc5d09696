"""Translate a Messages request to a Responses request: a pure function (docs/spec/responses.md#request).

Blocks of the history are degraded to text where necessary, never refused; 400 is for requests without any meaning
upstream. `Translated.notes` lists what was dropped or altered.

What grows from turn to turn, ``input``, comes last in the body, so that the bodies of a conversation have the longest
possible common beginning. The payload is never changed. Tools are shared with other requests: copy them before changing
them.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from proxyd import jsonio
from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.cache.tools import shared_system
from proxyd.codecs.responses.input_items import to_input_items
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
from proxyd.codecs.translation.stop_sequences import MAX_CHARS, MAX_SEQUENCES
from proxyd.codecs.translation.thinking_params import requested_thinking, write_thinking
from proxyd.codecs.translation.token_estimate import tools_tokens
from proxyd.codecs.translation.tools import ToolShape, choose, to_upstream_tools
from proxyd.codecs.translation.translated import PLACEHOLDER, RequestOptions, Translated, merge, with_literal
from proxyd.codecs.translation.translation_notes import Notes

__all__ = ["LIMIT_FIELD", "translation"]

#: Name of the output limit.
LIMIT_FIELD = "max_output_tokens"

#: Tools and choices as the Responses API has them: flat. Without ``strict`` a tool counts as strict, and its schema is
#: rewritten (docs/spec/responses.md#strict).
_SHAPE = ToolShape(
    "responses",
    tool=lambda function: {"type": "function", "strict": False, **function},
    name_of=lambda tool: tool["name"],
    choice=lambda name: {"type": "function", "name": name},
)


@dataclass(slots=True)
class ResponsesRequest(Translated):
    """A Responses request."""

    def written(self) -> bytes:
        body, tools = self.body, self.tools
        items = body.get("input")
        if tools.written is None or body.get("tools") is not tools.offered or not isinstance(items, list):
            return jsonio.dump_ascii(body)
        rest = {name: value for name, value in body.items() if name not in ("tools", "input")}
        head = (memoryview(jsonio.dump_ascii(rest))[:-1], b',"tools":', tools.written, b',"input":')
        text = _system_text(items)
        if self.system is None or text is None:
            return b"".join((*head, jsonio.dump_ascii(items), b"}"))
        # The first item is the first object in the input, so the first such member is its own.
        placeholder = {**items[0], "content": [{**items[0]["content"][0], "text": PLACEHOLDER}]}
        written = jsonio.dump_ascii([placeholder, *items[1:]])
        return b"".join((*head, *with_literal(written, "text", self.system.literal(text)), b"}"))


def _system_text(items: list[Any]) -> str | None:
    """Return the text of the first item, if it is one text of instructions; ``extra_body`` may have replaced it."""
    first = items[0] if items else None
    if not isinstance(first, dict) or first.get("role") not in ("system", "developer"):
        return None
    content = first.get("content")
    if not isinstance(content, list) or len(content) != 1 or not isinstance(content[0], dict):
        return None
    text = content[0].get("text")
    return text if isinstance(text, str) else None


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
    body = merge({"model": options.model, "stream": options.stream, "store": False}, dialect.body)
    if options.stream and dialect.stream_options:
        body["stream_options"] = {"include_obfuscation": False}
    if dialect.reasoning_items == "encrypted":
        body["include"] = ["reasoning.encrypted_content"]
    limit = output_limit(payload, options)
    if limit is not None:
        body[LIMIT_FIELD] = limit
    write_sampling(payload, dialect, options, body, notes)
    _note_stop_sequences(payload, notes)
    wanted = requested_thinking(payload, options.reasoning_effort, dialect, notes)
    is_thinking = write_thinking(wanted, dialect, body, notes)
    if wanted.is_on and dialect.effort_path and dialect.reasoning_summary != "none":
        body["reasoning"] = {**body.get("reasoning", {}), "summary": dialect.reasoning_summary}
    instructions = _text_format(payload, dialect, body, notes)
    tools = to_upstream_tools(payload, dialect, _SHAPE, notes)
    if tools.offered:
        body = merge(body, dialect.body_with_tools)
    chosen = choose(payload, tools, dialect, _SHAPE, is_thinking=is_thinking, notes=notes)
    offered = chosen.pop("tools", None)
    body.update(chosen)
    write_accounting(payload, dialect, options, body, notes)
    note_dropped(payload, notes)
    conversation = yield from to_input_items(
        payload,
        dialect,
        model=options.signer,
        vision=dialect.vision if options.vision is None else options.vision,
        instructions=instructions,
        is_refused=options.is_refused,
        notes=notes,
        inputs=ToolInputs() if inputs is None else inputs,
    )
    if offered is not None:
        body["tools"] = offered
    body["input"] = conversation.items
    if options.extra_body:
        body = merge(body, options.extra_body)
    input_tokens = max(1, conversation.tokens + tools_tokens(payload.get("tools")))
    return ResponsesRequest(
        body,
        tools,
        notes.take(),
        conversation.tool_ids,
        input_tokens,
        shared_system(payload),
        body.get(LIMIT_FIELD),
    )


def _text_format(payload: dict[str, Any], dialect: Dialect, body: dict[str, Any], notes: Notes) -> str | None:
    """Write ``text.format``, or return instructions that replace it where the upstream has none."""
    schema = requested_schema(payload)
    if schema is None:
        return None
    if dialect.response_format == "json_schema":
        schema = in_style(schema, dialect.schema_style)
        form = {"type": "json_schema", "name": "output", "schema": schema, "strict": fits_strict(schema)}
        body["text"] = {"format": form}
        return None
    if dialect.response_format == "json_object":
        body["text"] = {"format": {"type": "json_object"}}
    return schema_as_instructions(schema, notes)


def _note_stop_sequences(payload: Mapping[str, Any], notes: Notes) -> None:
    """Note the sequences that are not searched for in the response; the API has none itself."""
    sequences = payload.get("stop_sequences")
    usable = [text for text in sequences if isinstance(text, str)] if isinstance(sequences, list) else []
    if len(usable) > MAX_SEQUENCES or any(len(text) > MAX_CHARS for text in usable):
        notes.add("stop_sequences", "in part ignored", f"at most {MAX_SEQUENCES} of {MAX_CHARS} characters")

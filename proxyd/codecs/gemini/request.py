"""Translate a Messages request to one of the Gemini API: a pure function (docs/spec/gemini.md#request).

Blocks of the history are degraded to text where necessary, never refused; 400 is for requests without any meaning
upstream. `Translated.notes` lists what was dropped or altered.

What grows from turn to turn, ``contents``, comes last in the body, so that the bodies of a conversation have the
longest possible common beginning. The payload is never changed. Tools are shared with other requests: copy them before
changing them.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from proxyd import jsonio
from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.cache.tools import shared_system
from proxyd.codecs.gemini.contents import to_contents
from proxyd.codecs.gemini.thinking import write_thinking_config
from proxyd.codecs.translation.dialect import Dialect
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
from proxyd.codecs.translation.token_estimate import tools_tokens
from proxyd.codecs.translation.tools import ToolShape, choose, to_upstream_tools
from proxyd.codecs.translation.translated import PLACEHOLDER, RequestOptions, Translated, merge, with_literal
from proxyd.codecs.translation.translation_notes import Notes

__all__ = ["path_of", "resource_name", "translation"]

#: Styles whose schemas are in the subset of ``parameters`` (docs/spec/gemini.md#schema).
_NARROW_STYLES = frozenset({"gemini", "common", "plain"})
_SAMPLING = {"temperature": "temperature", "top_p": "topP", "top_k": "topK"}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "any": "ANY"}


def resource_name(model: str) -> str:
    """Return the name of a model as it stands in an address."""
    model = quote(model, safe="/-_.~@:")
    return model if "/" in model else f"models/{model}"


def path_of(model: str, is_stream: bool) -> str:
    """Return what follows the base address: the model's name is in it, not in the body."""
    method = "streamGenerateContent?alt=sse" if is_stream else "generateContent"
    return f"/{resource_name(model)}:{method}"


def _whole(function: dict[str, Any]) -> dict[str, Any]:
    return {
        "parametersJsonSchema" if name == "parameters" else name: value
        for name, value in function.items()
        if name != "strict"
    }


def _narrowed(function: dict[str, Any]) -> dict[str, Any]:
    """Return a declaration with ``parameters``, which may not be an object without properties."""
    return {
        name: value
        for name, value in function.items()
        if name != "strict" and not (name == "parameters" and not value["properties"])
    }


def _shape(name: str, declaration: Any) -> ToolShape:
    return ToolShape(
        name,
        tool=declaration,
        name_of=lambda tool: tool["name"],
        choice=lambda name: {"mode": "ANY", "allowedFunctionNames": [name]},
    )


_WHOLE, _NARROWED = _shape("gemini", _whole), _shape("gemini-narrowed", _narrowed)


@dataclass(slots=True)
class GeminiRequest(Translated):
    """A request of the Gemini API."""

    def written(self) -> bytes:
        body, tools = self.body, self.tools
        contents = body.get("contents")
        if tools.written is None or body.get("tools") != [{"functionDeclarations": tools.offered}]:
            return jsonio.dump_ascii(body)
        rest = {name: value for name, value in body.items() if name not in ("tools", "contents")}
        head = (b'{"tools":[{"functionDeclarations":', tools.written, b"}],")
        tail = (b'"contents":', jsonio.dump_ascii(contents), b"}")
        if not rest:
            return b"".join((*head, *tail))
        text = _system_text(rest)
        if self.system is None or text is None:
            return b"".join((*head, memoryview(jsonio.dump_ascii(rest))[1:-1], b",", *tail))
        rest["systemInstruction"] = {"parts": [{"text": PLACEHOLDER}]}
        first, literal, last = with_literal(jsonio.dump_ascii(rest), "text", self.system.literal(text))
        return b"".join((*head, first[1:], literal, last[:-1], b",", *tail))


def _system_text(body: dict[str, Any]) -> str | None:
    """Return the system prompt, if it is as it was translated; ``extra_body`` may have replaced it."""
    instruction = body.get("systemInstruction")
    parts = instruction.get("parts") if isinstance(instruction, dict) and len(instruction) == 1 else None
    if not isinstance(parts, list) or len(parts) != 1 or not isinstance(parts[0], dict) or len(parts[0]) != 1:
        return None
    text = parts[0].get("text")
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
    config: dict[str, Any] = {}
    limit = output_limit(payload, options)
    if limit is not None:
        config["maxOutputTokens"] = limit
    sampling: dict[str, Any] = {}
    write_sampling(payload, dialect, options, sampling, notes)
    config.update({_SAMPLING[name]: value for name, value in sampling.items()})
    _stop_sequences(payload, dialect, config, notes)
    is_thinking = write_thinking_config(payload, options.reasoning_effort, dialect, config, notes)
    instructions = _response_format(payload, dialect, config, notes)
    shape = _NARROWED if dialect.schema_style in _NARROW_STYLES else _WHOLE
    tools = to_upstream_tools(payload, dialect, shape, notes)
    chosen = choose(payload, tools, dialect, shape, is_thinking=is_thinking, notes=notes)
    body = merge({}, dialect.body)
    write_accounting(payload, dialect, options, body, notes)
    note_dropped(payload, notes)
    system, conversation = yield from to_contents(
        payload,
        dialect,
        model=options.signer,
        vision=dialect.vision if options.vision is None else options.vision,
        instructions=instructions,
        is_refused=options.is_refused,
        notes=notes,
        inputs=ToolInputs() if inputs is None else inputs,
    )
    if system:
        body["systemInstruction"] = {"parts": [{"text": system}]}
    if "tools" in chosen:
        body["tools"] = [{"functionDeclarations": chosen["tools"]}]
        body = merge(body, dialect.body_with_tools)
    if "tool_choice" in chosen:
        choice = chosen["tool_choice"]
        mode = choice if isinstance(choice, dict) else {"mode": _MODES[choice]}
        body["toolConfig"] = {"functionCallingConfig": mode}
    if config:
        body["generationConfig"] = merge(body.get("generationConfig", {}), config)
    body["contents"] = conversation.items
    if options.extra_body:
        body = merge(body, options.extra_body)
    sent_config = body.get("generationConfig")
    return GeminiRequest(
        body,
        tools,
        notes.take(),
        conversation.tool_ids,
        max(1, conversation.tokens + tools_tokens(payload.get("tools"))),
        shared_system(payload),
        sent_config.get("maxOutputTokens") if isinstance(sent_config, dict) else None,
    )


def _stop_sequences(payload: dict[str, Any], dialect: Dialect, config: dict[str, Any], notes: Notes) -> None:
    """Write as many as the upstream takes; the others are looked for in the response."""
    sequences = payload.get("stop_sequences")
    if not isinstance(sequences, list):
        return
    usable = [text for text in sequences if isinstance(text, str) and text]
    limit = dialect.stop_limit
    if limit is not None and len(usable) > limit:
        notes.add(
            "stop_sequences", f"{limit} sent, the others cut by the proxy", "the upstream takes no more"
        )
        usable = usable[:limit]
    if usable:
        config["stopSequences"] = usable


def _response_format(
    payload: dict[str, Any], dialect: Dialect, config: dict[str, Any], notes: Notes
) -> str | None:
    """Demand JSON, or return instructions that replace the schema where the upstream takes none."""
    schema = requested_schema(payload)
    if schema is None:
        return None
    if dialect.response_format != "none":
        config["responseMimeType"] = "application/json"
    if dialect.response_format == "json_schema":
        is_narrow = dialect.schema_style in _NARROW_STYLES
        name = "responseSchema" if is_narrow else "responseJsonSchema"
        config[name] = in_style(schema, dialect.schema_style)
        return None
    return schema_as_instructions(schema, notes)

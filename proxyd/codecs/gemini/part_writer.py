"""Write the parts of a Gemini response as blocks, with their thought signatures (docs/spec/gemini.md#signatures).

A thought signature belongs to one part and must come back with it. It travels in the signature of the thinking block
before the block of that part; where there is none, an empty one is written. Text is written as it arrives, so a
signature that follows the beginning of its text finds no place before it: it is dropped, since it is optional there,
and a thinking block at the end would hide the text from clients, which show the last block as the result
(claude-code-router#1275).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxyd import jsonio
from proxyd.codecs.anthropic.thinking_signature import encode_signature
from proxyd.codecs.codec import ResponseContext, Warn
from proxyd.codecs.gemini.contents import SIGNATURE
from proxyd.codecs.translation.content_blocks import arguments_of
from proxyd.codecs.translation.message_writer import MessageWriter
from proxyd.codecs.translation.stop_sequences import StopSequences

__all__ = ["PartWriter"]

#: Value of a signature's source: the text of the block was a part with ``thought: true``.
_SOURCE = "thought"
#: Namespace that models write before a tool's name now and then.
_NAMESPACES = ("default_api:", "default_api.")


class PartWriter:
    """Writes the parts of one response, one after the other.

    Attributes:
        has_calls: a tool use was written.
        has_nameless_call: a call without a name was dropped.
    """

    __slots__ = (
        "_blanks",
        "_context",
        "_late_thoughts",
        "_own_signature",
        "_seen",
        "_stop",
        "_text_signature",
        "_warn",
        "_writer",
        "has_calls",
        "has_nameless_call",
    )

    def __init__(self, context: ResponseContext, writer: MessageWriter, warn: Warn) -> None:
        self._context = context
        self._writer = writer
        self._warn = warn
        self._stop = StopSequences(context.stop_sequences)
        self._blanks: list[str] = []  # white space that waits for other text
        #: Thoughts behind a text, and their signatures, which wait for something to follow them.
        self._late_thoughts: list[tuple[str, str | None]] = []
        self._own_signature: str | None = None  # of the thought in the open thinking block
        self._text_signature: str | None = None  # of the text that follows
        self._seen: set[tuple[str, str, str]] = set()  # calls with an id
        self.has_calls = False
        self.has_nameless_call = False

    @property
    def matched(self) -> str | None:
        """The stop sequence at which the text was cut."""
        return self._stop.matched

    def continues(self, kind: str) -> bool:
        """Whether a text of this kind goes into the open block at once, as it is."""
        return self._writer.block == kind and not self._stop and not self._late_thoughts

    def add(self, part: Any) -> None:
        """Write one part."""
        if not isinstance(part, dict):
            self._warn("stream.part_not_an_object")
            return
        signature = part.get(SIGNATURE) or part.get("thought_signature")
        signature = signature if isinstance(signature, str) else None
        call, text = part.get("functionCall"), part.get("text")
        if isinstance(call, dict):
            self._add_call(call, signature)
        elif isinstance(text, str):
            if part.get("thought") is True:
                self._add_thought(text, signature)
            else:
                self._add_text(text, signature)
        else:
            self._add_other(part, signature)

    def close(self) -> None:
        """Close the open block: the response has ended."""
        self._flush_text()
        if self._late_thoughts:
            self._warn("stream.reasoning_after_text")
        self._close()
        if self._text_signature is not None:
            self._warn("stream.text_signature_dropped")

    # -- parts

    def _add_thought(self, text: str, signature: str | None) -> None:
        self._flush_text()
        if self._writer.block == "text":
            self._late_thoughts.append((text, signature))
            return
        self._write_thought(text, signature)

    def _write_thought(self, text: str, signature: str | None) -> None:
        if self._writer.block != "thinking":
            if not signature and (not text or text.isspace()):
                return
            self._open_thinking()
        if signature:
            self._own_signature = signature
        if text:
            self._writer.write(text)

    def _write_late_thoughts(self) -> None:
        thoughts, self._late_thoughts = self._late_thoughts, []
        if thoughts:
            self._close()
        for thought in thoughts:
            self._write_thought(*thought)

    def _add_text(self, text: str, signature: str | None) -> None:
        if text and not text.isspace():
            self._write_late_thoughts()
        if signature:
            if self._writer.block == "text":
                self._warn("stream.text_signature_dropped")
            else:
                self._text_signature = signature
        self._write_text(self._stop.feed(text) if self._stop else text)

    def _write_text(self, text: str) -> None:
        if not text:
            return
        if self._writer.block != "text":
            self._blanks.append(text)
            if text.isspace():
                return  # no block of white space alone
            self._open_text()
            text, self._blanks = "".join(self._blanks), []
        self._writer.write(text)

    def _flush_text(self) -> None:
        """Write the text that was held back as the possible beginning of a stop sequence."""
        if self._stop:
            self._write_text(self._stop.end())

    def _add_call(self, call: dict[str, Any], signature: str | None) -> None:
        name, call_id = call.get("name"), call.get("id")
        if not isinstance(name, str) or not name:
            self.has_nameless_call = True
            self._warn("stream.tool_call_without_name")
            return
        call_id = call_id if isinstance(call_id, str) else ""
        arguments = _arguments(call.get("args"))
        if call_id and (call_id, name, arguments) in self._seen:
            self._warn("stream.tool_call_repeated")  # without its signature (obsidian-gemini#230)
            return
        self._seen.add((call_id, name, arguments))
        self._flush_text()
        self._write_late_thoughts()
        self._blanks.clear()
        for namespace in _NAMESPACES:
            name = name.removeprefix(namespace)
        client_id = self._writer.client_id_of(call_id)
        if signature:
            if self._writer.block != "thinking":
                self._open_thinking()
            self._close({client_id: signature})
        else:
            self._close()
        self._writer.open_tool_use(name, client_id)
        self._writer.write(arguments)
        self._writer.close()
        self.has_calls = True

    def _add_other(self, part: dict[str, Any], signature: str | None) -> None:
        for name, describe in _DESCRIPTIONS.items():
            value = part.get(name)
            if isinstance(value, dict):
                self._add_text(describe(value), signature)
                return
        if signature:  # a part with nothing but a signature
            self._add_text("", signature)
        elif part:
            self._warn("stream.unknown_part")

    # -- blocks

    def _open_thinking(self) -> None:
        self._close()
        self._writer.open("thinking")

    def _open_text(self) -> None:
        if self._text_signature is not None and self._writer.block != "thinking":
            self._open_thinking()
        self._close()
        self._writer.open("text")

    def _close(self, call_signatures: dict[str, str] | None = None) -> None:
        """Close the open block.

        Args:
            call_signatures: of the call that follows a thinking block.
        """
        writer = self._writer
        if writer.block != "thinking":
            writer.close()
            return
        parts = {"thought": self._own_signature}
        if call_signatures is None:
            parts["text"], self._text_signature = self._text_signature, None
        self._own_signature = None
        kept = {kind: data for kind, data in parts.items() if data}
        writer.close(
            encode_signature(
                self._context.upstream_model, _SOURCE, None, call_signatures, part_signatures=kept
            )
        )


def _arguments(args: Any) -> str:
    """Return the arguments as JSON of an object; some gateways send them as text."""
    if isinstance(args, str):
        try:
            parsed = jsonio.loads(args)
        except jsonio.JSONError:
            parsed = args
        args = parsed if isinstance(parsed, dict) else args or None
    return arguments_of(args)


def _image(blob: dict[str, Any]) -> str:
    """Describe inline data in words: Anthropic responses have no image block, and the data would fill the context."""
    media_type, data = blob.get("mimeType"), blob.get("data")
    size = len(data) * 3 // 4 if isinstance(data, str) else 0
    return f"[{media_type if isinstance(media_type, str) else 'data'}, {size} bytes]"


def _code(code: dict[str, Any]) -> str:
    return f"\n```{str(code.get('language', '')).lower()}\n{code.get('code', '')}\n```\n"


def _result(result: dict[str, Any]) -> str:
    return f"\n```\n{result.get('output', '')}\n```\n"


#: Kinds of parts that become text: images of models that draw, and what Google's own tools have done.
_DESCRIPTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "inlineData": _image,
    "fileData": lambda data: f"[file {data.get('fileUri', '')}]",
    "executableCode": _code,
    "codeExecutionResult": _result,
}

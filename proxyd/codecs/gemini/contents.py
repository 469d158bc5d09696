"""Translate a conversation: Anthropic messages -> contents of the Gemini API (docs/spec/gemini.md#request).

Contents of ``user`` and ``model`` come in turns. The results of parallel calls are together in one content, in the
order of their calls (docs/spec/gemini.md#call-order). A part with a thought signature stays a part of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from proxyd import jsonio
from proxyd.codecs.anthropic.thinking_signature import decode_signature
from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.translation.content_blocks import Part, arguments_of
from proxyd.codecs.translation.conversation import (
    NO_OUTPUT,
    NO_RESULT,
    Conversation,
    ConversationReader,
    as_error,
    id_of,
    text_in,
)
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.token_estimate import call_tokens
from proxyd.codecs.translation.tools import to_upstream_name
from proxyd.codecs.translation.translation_notes import Notes

__all__ = ["SIGNATURE", "to_contents"]

#: Name of a part's signature.
SIGNATURE = "thoughtSignature"

#: Beginning of the ids that the proxy gives to calls that have none; the vendor does not know them.
_OWN_ID = "toolu_"

#: Ending of a URL -> media type, which a part with a URL must name.
_MEDIA_TYPES = {"png": "image/png", "gif": "image/gif", "webp": "image/webp", "pdf": "application/pdf"}

#: One part, or one content, of the Gemini API.
GeminiPart = dict[str, Any]


def to_contents(
    payload: dict[str, Any],
    dialect: Dialect,
    *,
    model: str,
    vision: bool,
    instructions: str | None,
    is_refused: Callable[[str], bool],
    notes: Notes,
    inputs: ToolInputs,
) -> Generator[None, None, tuple[str, Conversation]]:
    """Translate the conversation, yielding now and then: a long history would block the event loop.

    Args:
        model: the upstream's name of the model; signatures of another model are not sent to it.
        instructions: text to append to the system prompt.
        is_refused: whether the upstream has refused this signature.
        inputs: tool inputs of `payload` that were serialised before.

    Returns:
        The system prompt, "" for none, and the contents.

    Raises:
        ClientError: a message is malformed.
    """
    history = _History(dialect, model, vision, is_refused, notes, inputs)
    conversation = yield from history.read(payload, instructions)
    return "\n\n".join(history.system), conversation


class _Call(NamedTuple):
    """A call of the model's last turn; `position` is its place among the calls."""

    position: int
    name: str
    has_id: bool


@dataclass
class _Turn:
    """The model's turn that is being read.

    Attributes:
        is_own: it has a signature of this model.
        call_signatures: by the client's ids, of the thinking blocks so far.
        text_signature: of the text that follows.
    """

    parts: list[GeminiPart] = field(default_factory=list)
    is_own: bool = False
    call_signatures: dict[str, str] = field(default_factory=dict)
    text_signature: str | None = None


class _History(ConversationReader):
    """Builds the contents turn by turn.

    Attributes:
        system: texts of the system prompt.
    """

    def __init__(
        self,
        dialect: Dialect,
        model: str,
        vision: bool,
        is_refused: Callable[[str], bool],
        notes: Notes,
        inputs: ToolInputs,
    ) -> None:
        super().__init__(dialect, vision, notes, inputs)
        self._model = model
        self._is_refused = is_refused
        self.system: list[str] = []
        self._contents: list[dict[str, Any]] = []
        self._calls: dict[str, _Call] = {}
        #: Results of the user's turn that is being read, with the positions of their calls.
        self._results: list[tuple[int, GeminiPart]] = []

    def _finish(self) -> list[dict[str, Any]]:
        self._write_results()
        contents = self._contents
        if not contents:
            self._notes.add("messages", "got a user message", "no message has any content")
            contents.append({"role": "user", "parts": [{"text": "(no content)"}]})
        elif contents[0]["role"] != "user":
            self._notes.add("messages", "got a user message at the start", "a conversation begins with one")
            contents.insert(0, {"role": "user", "parts": [{"text": "(the conversation goes on)"}]})
        return contents

    def _parts_of(self, role: str) -> list[GeminiPart]:
        """Return the parts of the last content, or of a new one if that is of the other role."""
        if not self._contents or self._contents[-1]["role"] != role:
            self._contents.append({"role": role, "parts": []})
        parts: list[GeminiPart] = self._contents[-1]["parts"]
        return parts

    # -- the assistant

    def _add_assistant_turn(self, messages: list[Any], start: int) -> None:
        self._write_results()
        self._calls = {}
        turn = _Turn()
        for number, message in enumerate(messages, start):
            content = message.get("content")
            path = f"messages.{number}.content"
            if not isinstance(content, list):
                self._add_text(turn, self._text_parts(text_in(content, number)))
                continue
            for position, block in enumerate(content):
                self._add_block(turn, block, f"{path}.{position}")
        calls = [part for part in turn.parts if "functionCall" in part]
        placeholder = self._dialect.thought_signature_placeholder
        if (
            calls
            and SIGNATURE not in calls[0]
            and self._dialect.thought_signatures
            and placeholder is not None
        ):
            # Not in the current turn alone, so that the beginning of later requests is the same.
            calls[0][SIGNATURE] = placeholder
            self._notes.add(
                "messages[].content[].tool_use", "got a placeholder", "its thought signature is lost"
            )
        if turn.parts:  # an empty content is refused
            self._parts_of("model").extend(turn.parts)

    def _add_block(self, turn: _Turn, block: Any, path: str) -> None:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            self._add_text(turn, self._text_parts(block.get("text")))
        elif kind == "tool_use":
            self._add_call(turn, block)
        elif kind in ("thinking", "redacted_thinking"):
            self._count(block)
            self._add_thinking(turn, block, path)
        else:
            self._count(block)
            if kind == "tool_result":
                parts = self._result_without_call(block, path)
            else:
                parts = self._blocks.block(block, path)
            texts = [part for part in parts if part["type"] == "text"]
            if len(texts) < len(parts):
                self._notes.add(path, "dropped", "a message of the assistant holds text only")
            self._add_text(turn, texts)

    def _add_text(self, turn: _Turn, parts: list[Part]) -> None:
        for part in parts:
            made: GeminiPart = {"text": part["text"]}
            if turn.text_signature is not None:
                made[SIGNATURE], turn.text_signature = turn.text_signature, None
            turn.parts.append(made)

    def _add_call(self, turn: _Turn, block: dict[str, Any]) -> None:
        client_id, name, value = id_of(block.get("id")), block.get("name"), block.get("input")
        written = self._inputs.as_json(value)
        self.tokens += call_tokens(name, value, written)
        upstream_ids = self._open_calls.setdefault(client_id, [])
        upstream_id = self._ids.of(client_id, is_repeated=bool(upstream_ids))
        upstream_ids.append(upstream_id)
        name = to_upstream_name(name, self._dialect)
        # The vendor's ids alone go back: of a turn that this model has signed.
        has_id = self._dialect.function_call_ids and turn.is_own and not upstream_id.startswith(_OWN_ID)
        call: dict[str, Any] = {"id": upstream_id} if has_id else {}
        call["name"] = name
        call["args"] = value if written is not None else jsonio.loads(arguments_of(value))
        part: GeminiPart = {"functionCall": call}
        if client_id in turn.call_signatures:
            part[SIGNATURE] = turn.call_signatures.pop(client_id)
        self._calls[upstream_id] = _Call(len(self._calls), name, has_id)
        turn.parts.append(part)

    def _add_thinking(self, turn: _Turn, block: dict[str, Any], path: str) -> None:
        encoded = block.get("signature")
        signature = decode_signature(encoded) if isinstance(encoded, str) else None
        if signature is None or signature.model != self._model or not self._dialect.signed_data:
            self._notes.add(path, "dropped", "only the model that wrote it can read it")
            return
        turn.is_own = True
        for client_id, data in signature.tool_signatures.items():
            if not self._is_refused(data):
                turn.call_signatures[client_id] = data
        parts = {kind: data for kind, data in signature.part_signatures.items() if not self._is_refused(data)}
        turn.text_signature = parts.get("text", turn.text_signature)
        if "thought" in parts:
            text = block.get("thinking")
            text = text if isinstance(text, str) else ""
            turn.parts.append({"text": text, "thought": True, SIGNATURE: parts["thought"]})
        elif block.get("thinking"):
            self._notes.add(
                "messages[].content[].thinking", "dropped", "its signatures are all that is needed"
            )

    # -- the user

    def _add_message(self, role: str, parts: list[Part]) -> None:
        if role != "user" and not self._contents and not self._results:
            self.system += [part["text"] for part in parts]
            return
        self._write_results()
        self._parts_of("user").extend(map(_part, parts))

    def _write_results(self) -> None:
        results, self._results = self._results, []
        if results:
            results.sort(key=lambda result: result[0])
            self._parts_of("user").extend(part for _, part in results)

    def _add_result(self, block: dict[str, Any], upstream_id: str, path: str) -> list[Part]:
        texts: list[str] = []
        held: list[Part] = []
        lifted: list[Part] = []
        for part in self._blocks.parts(block.get("content"), f"{path}.content"):
            if part["type"] == "text":
                texts.append(part["text"])
            else:
                (held if self._dialect.images_in_tool_results else lifted).append(part)
        text = "\n".join(texts) or ("(shown below)" if held or lifted else NO_OUTPUT)
        self._answer(upstream_id, "error" if block.get("is_error") is True else "output", text, held)
        if lifted:
            kind = "Image" if lifted[0]["type"] == "image_url" else "Document"
            lifted.insert(0, {"type": "text", "text": f"{kind} from tool {self._calls[upstream_id].name}:"})
        return lifted

    def _add_missing_result(self, upstream_id: str) -> None:
        self._answer(upstream_id, "error", NO_RESULT, [])

    def _answer(self, upstream_id: str, member: str, text: str, media: list[Part]) -> None:
        """Add the result of a call; the name of its function is required (docs/spec/gemini.md#function-response)."""
        call = self._calls[upstream_id]
        response: dict[str, Any] = {"id": upstream_id} if call.has_id else {}
        response |= {"name": call.name, "response": {member: text}}
        if media:
            response["parts"] = [_part(part) for part in media]
        self._results.append((call.position, {"functionResponse": response}))

    def _parts_of_result(self, block: dict[str, Any], path: str) -> list[Part]:
        parts = self._blocks.parts(block.get("content"), f"{path}.content") or self._blocks.text(NO_OUTPUT)
        if block.get("is_error") is True and parts[0]["type"] == "text":
            parts[0] = {**parts[0], "text": as_error(parts[0]["text"])}
        return parts


def _part(part: Part) -> GeminiPart:
    """Return a content part as the Gemini API has it."""
    kind = part["type"]
    if kind == "text":
        return {"text": part["text"]}
    url: str = part["image_url"]["url"] if kind == "image_url" else part["file"]["file_data"]
    if url.startswith("data:"):
        media_type, _, data = url[len("data:") :].partition(";base64,")
        return {"inlineData": {"mimeType": media_type, "data": data}}
    ending = url.partition("?")[0].rpartition(".")[2].lower()
    return {"fileData": {"mimeType": _MEDIA_TYPES.get(ending, "image/jpeg"), "fileUri": url}}

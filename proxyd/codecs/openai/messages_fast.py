"""Turns as nearly all are: one message, with texts, tool uses and results of one text
(docs/spec/messages-to-chat.md#messages, #tool-ids).

Of these nothing has to be noted, and what becomes of them is plain: they are translated here in three quarters of the
time that the long way takes (`openai_messages`), which is the rule for all turns and says the same of these.
"""

from __future__ import annotations

from typing import Any

from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.openai.dialect import Dialect
from proxyd.codecs.openai.token_estimate import TOKENS_PER_MESSAGE, chars_around, text_tokens
from proxyd.codecs.openai.tool_ids import UpstreamIds
from proxyd.codecs.openai.tools import to_upstream_name

__all__ = ["Message", "UsualHistory", "as_error"]

Message = dict[str, Any]


class UsualHistory:
    """A history whose turns are as usual; whoever knows the others builds on it.

    Args:
        inputs: those of the request, as far as they have been written.

    Attributes:
        tokens: what the blocks so far come to by `proxyd.codecs.openai.token_estimate`.
    """

    def __init__(self, dialect: Dialect, inputs: ToolInputs) -> None:
        self.tokens = 0
        self._dialect = dialect
        self._inputs = inputs
        self._ids = UpstreamIds(dialect.tool_id_style)
        #: Of the tools that were used: their names upstream, and what `chars_around` says of them.
        self._names: dict[str, tuple[str, int]] = {}
        self._messages: list[Message] = []  # for the upstream, as far as they are made
        #: Calls of the assistant's last turn: client id -> upstream ids still to be answered, in order.
        self._awaited: dict[str, list[str]] = {}

    def _usual_assistant(self, content: list[Any]) -> bool:
        """A turn of the assistant's with this content, if it is as usual; else nothing has happened."""
        texts: list[str] = []
        calls: list[dict[str, Any]] = []
        awaited: dict[str, list[str]] = {}
        names, keeps_marks, tokens = self._names, self._dialect.cache_control, 0
        for block in content:
            kind = block.get("type") if isinstance(block, dict) else None
            if kind == "text":
                text = block.get("text")
                if not isinstance(text, str) or not text or text.isspace():
                    return False
                if keeps_marks and "cache_control" in block:
                    return False
                tokens += text_tokens(text)
                texts.append(text)
            elif kind == "tool_use":
                client_id, name = block.get("id"), block.get("name")
                arguments = self._inputs.as_json(block.get("input"))
                if (
                    arguments is None
                    or not isinstance(client_id, str)
                    or client_id in awaited
                    or not isinstance(name, str)
                ):
                    return False
                upstream_name, around = names.get(name) or self._named(name)
                if not around:
                    return False
                tokens += TOKENS_PER_MESSAGE + text_tokens(arguments, around)
                upstream_id = self._ids.of(client_id)
                awaited[client_id] = [upstream_id]
                function = {"name": upstream_name, "arguments": arguments}
                calls.append({"id": upstream_id, "type": "function", "function": function})
            else:
                return False
        self.tokens += tokens
        self._awaited = awaited
        if calls:
            text = "\n\n".join(texts) if texts else None
            self._messages.append({"role": "assistant", "content": text, "tool_calls": calls})
        elif texts:
            self._messages.append({"role": "assistant", "content": "\n\n".join(texts)})
        return True

    def _usual_user(self, content: list[Any]) -> list[str] | None:
        """A turn of the user's with this content, if it is as usual: all results, and what is said beside them. Else
        nothing has happened.
        """
        results: list[Message] = []
        texts: list[str] = []
        awaited, keeps_marks, tokens = self._awaited.copy(), self._dialect.cache_control, 0
        for block in content:
            kind = block.get("type") if isinstance(block, dict) else None
            if kind == "tool_result":
                text, client_id = block.get("content"), block.get("tool_use_id")
                if isinstance(text, list):
                    text = _only_text(text, keeps_marks)
                if not isinstance(text, str) or not isinstance(client_id, str):
                    return None
                upstream_ids = awaited.pop(client_id, None)
                if upstream_ids is None or len(upstream_ids) > 1:
                    return None
                tokens += TOKENS_PER_MESSAGE
                said = as_error(text) if block.get("is_error") is True else text
                results.append({"role": "tool", "tool_call_id": upstream_ids[0], "content": said})
            elif kind == "text":
                text = block.get("text")
                if not isinstance(text, str):
                    return None
                texts.append(text)
            else:
                return None
            if not text or text.isspace() or (keeps_marks and "cache_control" in block):
                return None
            tokens += text_tokens(text)
        self.tokens += tokens
        self._messages += results
        self._awaited = awaited
        return texts

    def _named(self, name: str) -> tuple[str, int]:
        known = self._names[name] = to_upstream_name(name, self._dialect), chars_around(name)
        return known


def as_error(text: str) -> str:
    """A result's text that says by itself that it is an error: the upstream has no field for it."""
    return text if text[: len("error")].lower().startswith("error") else f"Error: {text}"


def _only_text(blocks: list[Any], keeps_marks: bool) -> Any:
    """The text of a result of one text block; None for any other."""
    only = blocks[0] if len(blocks) == 1 else None
    if not isinstance(only, dict) or only.get("type") != "text" or (keeps_marks and "cache_control" in only):
        return None
    return only.get("text")

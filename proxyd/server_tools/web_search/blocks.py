"""The response to a WebSearch call: the pair of search blocks, then a text with the results.

Claude Code gives its main model the addresses of the result block and the texts; snippets reach the model through the
text only (docs/spec/hints-and-modes.md#web-search-blocks).
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from typing import Any

from proxyd import jsonio
from proxyd.codecs.anthropic.events import (
    BlockStart,
    BlockStop,
    JsonDelta,
    MessageDelta,
    MessageStop,
    StreamEvent,
    TextDelta,
    message_start,
)
from proxyd.server_tools.web_search.engines import Result

__all__ = [
    "beginning",
    "ending_with_error",
    "ending_with_results",
    "result_blocks",
    "results_in",
    "text_of",
]

#: What Claude Code takes of a title and an address, and what the text may hold.
_MAX_TITLE_CHARS, _MAX_URL_CHARS, _MAX_TEXT_BYTES = 2000, 8192, 8000
_MAX_SNIPPET_CHARS = 1000
#: Engines mark the words of the query.
_MARKUP = re.compile(r"</?(?:strong|b|em|i|mark)>", re.IGNORECASE)
#: Beginning of the data that hold a snippet.
_MARK = b"text:"
_USAGE = {"input_tokens": 0, "output_tokens": 0}


def beginning(message_id: str, model: str, query: str) -> list[StreamEvent]:
    """Build the start of the message and the block that shows the query, to be sent before the search is made."""
    block = {"type": "server_tool_use", "id": _search_id(message_id), "name": "web_search", "input": {}}
    query_json = jsonio.dump_text({"query": query})
    return [
        message_start(message_id, model, _USAGE),
        BlockStart(0, block),
        JsonDelta(0, query_json),
        BlockStop(0),
    ]


def ending_with_results(
    message_id: str, query: str, results: Sequence[Result], answer: str = ""
) -> list[StreamEvent]:
    """Build the rest of the message after a search.

    Args:
        answer: what an upstream that has searched itself says to the results.
    """
    text = text_of(query, results)
    if answer:
        text = f"{answer[:_MAX_TEXT_BYTES]}\n\nSources:\n{text}"
    return _ending(message_id, result_blocks(results), text)


def ending_with_error(message_id: str, code: str, text: str) -> list[StreamEvent]:
    """Build the rest of the message where no search was made.

    Args:
        code: an error code of Anthropic's search.
        text: what happened and what to do.
    """
    return _ending(message_id, {"type": "web_search_tool_result_error", "error_code": code}, text)


def _ending(message_id: str, content: Any, text: str) -> list[StreamEvent]:
    result = {"type": "web_search_tool_result", "tool_use_id": _search_id(message_id), "content": content}
    return [
        BlockStart(1, result),
        BlockStop(1),
        BlockStart(2, {"type": "text", "text": ""}),
        TextDelta(2, text),
        BlockStop(2),
        MessageDelta({"stop_reason": "end_turn", "stop_sequence": None}, _USAGE),
        MessageStop(),
    ]


def result_blocks(results: Sequence[Result], *, keeps_texts: bool = False) -> list[dict[str, Any]]:
    """Build the content of a result block.

    Args:
        keeps_texts: the snippets are put into ``encrypted_content``, from which `results_in` reads them in later turns.
    """
    return [
        {
            "type": "web_search_result",
            "url": result.url,
            "title": _line(result.title)[:_MAX_TITLE_CHARS],
            "encrypted_content": _packed(_line(result.text)[:_MAX_SNIPPET_CHARS]) if keeps_texts else "",
            "page_age": result.age,
        }
        for result in results
        if len(result.url) <= _MAX_URL_CHARS
    ]


def results_in(content: Any) -> list[Result]:
    """Read the results of a block that a client has sent back."""
    return [
        Result(
            str(each.get("title", "")),
            str(each.get("url", "")),
            _unpacked(each.get("encrypted_content")),
            age if isinstance(age := each.get("page_age"), str) else None,
        )
        for each in (content if isinstance(content, list) else ())
        if isinstance(each, dict)
    ]


def _packed(text: str) -> str:
    return base64.b64encode(_MARK + text.encode("utf-8", "replace")).decode()


def _unpacked(data: Any) -> str:
    """Return a snippet of ours; "" for the data of another server."""
    try:
        raw = base64.b64decode(data, validate=True) if isinstance(data, str) else b""
        return raw.removeprefix(_MARK).decode() if raw.startswith(_MARK) else ""
    except ValueError:
        return ""


def text_of(query: str, results: Sequence[Result]) -> str:
    """Return the numbered results, as many as fit."""
    if not results:
        return f"The search for {query!r} found nothing."
    lines, size = [], 0
    for number, result in enumerate(results, start=1):
        date = f" ({result.age})" if result.age else ""
        line = f"{number}. {_line(result.title)[:_MAX_TITLE_CHARS]}{date}\n{result.url}"
        snippet = _line(result.text)[:_MAX_SNIPPET_CHARS]
        if snippet:
            line += f"\n{snippet}"
        size += len(line.encode()) + 2
        if size > _MAX_TEXT_BYTES:
            break
        lines.append(line)
    return "\n\n".join(lines)


def _line(text: str) -> str:
    """Return an engine's text as one line, without markup."""
    return " ".join(html.unescape(_MARKUP.sub("", text[: 4 * _MAX_SNIPPET_CHARS])).split())


def _search_id(message_id: str) -> str:
    return f"srvtoolu_{message_id.removeprefix('msg_')}"

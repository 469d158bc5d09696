"""PDFs for models whose upstream takes no files: which ones a request has, and the request with what their pages hold.

A PDF becomes a document of texts and images, which translations know already; the images are then shown or described
as those of the client are. Only PDFs within the request are read; no address is fetched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxyd.server_tools.partial_copy import PartialCopy

__all__ = ["Page", "PdfDocument", "pdfs_in", "with_pages"]

_Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """What one page holds.

    Attributes:
        image: the page as a JPEG in base64; None if it was not drawn.
    """

    text: str
    is_textless: bool
    image: str | None = None


@dataclass(frozen=True, slots=True)
class PdfDocument:
    """A PDF of a request.

    Attributes:
        path: the steps to its block within the payload.
        data: the file in base64.
        key: the same for the same file.
    """

    path: _Path
    data: str
    key: bytes


def pdfs_in(payload: Mapping[str, Any]) -> list[PdfDocument]:
    """Return the PDFs of the user's messages, in order; those in results of tools, too."""
    messages = payload.get("messages")
    found: list[PdfDocument] = []
    # Every request is walked through, and hardly one has a document: nothing is made for the others.
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        if not isinstance(message, dict) or message.get("role") != "user":
            continue
        content = message.get("content")
        if isinstance(content, list):
            for position, block in enumerate(content):
                if not isinstance(block, dict):
                    continue
                kind = block.get("type")
                if kind == "document":
                    _add(found, block, ("messages", number, "content", position))
                elif kind == "tool_result" and isinstance(inner := block.get("content"), list):
                    for place, each in enumerate(inner):
                        if isinstance(each, dict) and each.get("type") == "document":
                            _add(found, each, ("messages", number, "content", position, "content", place))
    return found


def _add(found: list[PdfDocument], block: dict[str, Any], path: _Path) -> None:
    source = block.get("source")
    if not isinstance(source, dict) or source.get("media_type") != "application/pdf":
        return
    data = source.get("data")
    if source.get("type") == "base64" and isinstance(data, str) and data:
        found.append(PdfDocument(path, data, hashlib.sha256(data.encode("utf-8", "surrogatepass")).digest()))


def with_pages(
    payload: Mapping[str, Any], documents: Sequence[PdfDocument], contents: Mapping[bytes, Any]
) -> dict[str, Any]:
    """Return a copy of `payload` in which documents hold what their pages do.

    Args:
        contents: by the key of the document: its number of pages with the `Page` objects, or a text why it could not
            be read. A document without one stays.
    """
    copy = PartialCopy(payload)
    for document in documents:
        found = contents.get(document.key)
        if found is None:
            continue
        node = copy.at(document.path)
        blocks = (
            [_text(f"[PDF, which cannot be read: {found}]")] if isinstance(found, str) else _pages(*found)
        )
        if (cache_control := node.pop("cache_control", None)) is not None:
            blocks[-1]["cache_control"] = cache_control
        node["source"] = {"type": "content", "content": blocks}
    return copy.value


def _pages(count: int, pages: Sequence[Page]) -> list[dict[str, Any]]:
    blocks = [_text(f"[PDF of {count} page{'s' if count != 1 else ''}]")]
    for number, page in enumerate(pages, 1):
        if page.text:
            blocks.append(_text(f"[Page {number}]\n{page.text}"))
        elif page.image is None:
            blocks.append(_text(f"[Page {number} has no text, and is not shown]"))
        else:
            blocks.append(_text(f"[Page {number}, which has no text]"))
        if page.image is not None:
            source = {"type": "base64", "media_type": "image/jpeg", "data": page.image}
            blocks.append({"type": "image", "source": source})
    left = f"[The pages after page {len(pages)} are left out]" if len(pages) < count else "[End of the PDF]"
    blocks.append(_text(left))
    return blocks


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}

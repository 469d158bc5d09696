"""Read one PDF in a process of its own: ``python -m proxyd.proxy.pdf_reader DRAWN``.

::

    stdin   the PDF in base64
    stdout  what `read_pages` returns, as a line of JSON, in which ``image`` is a number of bytes; then all images

A PDF comes from anywhere, and the library that reads it is C++. So it runs where there are no keys, within limits of
time and memory, and where a crash ends nothing else. `proxyd.proxy.pdf_pages` starts it. The libraries, pypdfium2 and
Pillow, are an extra of the installation (``claude-proxyd[pdf]``).
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import resource
import sys
from typing import Any

__all__ = ["ALL", "MAX_IMAGES", "MAX_PAGES", "MAX_TEXT", "NONE", "TEXTLESS", "limit_process", "read_pages"]

#: Which pages are drawn: all, those without text, none.
ALL, TEXTLESS, NONE = "all", "textless", "none"
#: Pages that are read, and those that are drawn; the Messages API takes 100 pages, too.
MAX_PAGES, MAX_IMAGES = 100, 20
#: Characters of all pages: a hundred full pages.
MAX_TEXT = 400_000
#: Longest side of an image in pixels: the API and most models make larger ones smaller before they look at them.
_MAX_SIDE = 1568
#: Pixels per point: a page of A4 has 1568 pixels at 134 dpi, and a small one is not drawn larger than at 200 dpi.
_MAX_SCALE = 200 / 72
_JPEG_QUALITY = 80
#: Characters up to which a page counts as one without text: a scanner's page number, for instance.
_TEXTLESS_CHARS = 15
#: Limits of the process: seconds of CPU, bytes of memory; it leaves no core, which would hold the PDF.
_LIMITS = ((resource.RLIMIT_CPU, 60), (resource.RLIMIT_AS, 1 << 30), (resource.RLIMIT_CORE, 0))


def read_pages(data: bytes, drawn: str) -> dict[str, Any]:
    """Return what the pages hold.

    Args:
        drawn: `ALL`, `TEXTLESS` or `NONE`.

    Returns:
        ``count`` of all pages, and ``pages``: for each one that was read its ``text``, whether it ``is_textless``, and
        ``image``, a JPEG in base64, if it was drawn. Or ``error``, the second half of a sentence.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as exc:
        is_locked = "password" in str(exc).lower()
        return {"error": "it is protected by a password" if is_locked else "it is no valid PDF"}
    pages: list[dict[str, Any]] = []
    room, images = MAX_TEXT, 0
    for number in range(min(len(document), MAX_PAGES)):
        try:
            page = document[number]
            text = page.get_textpage().get_text_bounded().replace("\r\n", "\n").replace("\0", "").strip()
        except pypdfium2.PdfiumError:
            pages.append({"text": "", "is_textless": True})
            continue
        found: dict[str, Any] = {"text": text[:room], "is_textless": len(text) <= _TEXTLESS_CHARS}
        room -= len(found["text"])
        is_drawn = drawn == ALL or (drawn == TEXTLESS and found["is_textless"])
        if is_drawn and images < MAX_IMAGES:
            found["image"] = _draw(page)
            images += 1
        pages.append(found)
        page.close()
        if room <= 0:
            break
    return {"count": len(document), "pages": pages}


def _draw(page: Any) -> str:
    """Return a page as a JPEG in base64."""
    longest = max(page.get_width(), page.get_height(), 1.0)
    bitmap = page.render(scale=min(_MAX_SIDE / longest, _MAX_SCALE))
    file = io.BytesIO()
    bitmap.to_pil().convert("RGB").save(file, "JPEG", quality=_JPEG_QUALITY)
    return base64.b64encode(file.getvalue()).decode("ascii")


def limit_process() -> None:
    """Put the limits of this process in force."""
    for limit, value in _LIMITS:
        try:
            resource.setrlimit(limit, (value, value))
        except (OSError, ValueError):
            pass  # macOS does not limit memory so


def _main() -> None:
    limit_process()
    try:
        result = read_pages(base64.b64decode(sys.stdin.buffer.read()), sys.argv[1])
    except binascii.Error:
        result = {"error": "its data is no base64"}
    images = [page["image"] for page in result.get("pages", ()) if "image" in page]
    for page in result.get("pages", ()):
        if "image" in page:
            page["image"] = len(page["image"])
    sys.stdout.write("\n".join([json.dumps(result), "".join(images)]))


if __name__ == "__main__":
    _main()

"""Give a model whose upstream takes no files what the pages of a PDF hold (docs/images.md#pdfs).

A model that sees images gets text and image of each page, as Anthropic's servers give them. Another one gets the text,
and the images of pages without text where an entry describes images. A PDF is read once, by a process of its own
(`proxyd.proxy.pdf_reader`), and what it held is remembered, so that the prompt stays the same from call to call.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import OrderedDict
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any
from weakref import WeakValueDictionary

from proxyd import jsonio
from proxyd.codecs.translation.translation_notes import Note
from proxyd.config.routes import ModelRoute
from proxyd.logs.setup import get_logger
from proxyd.providers.registry import sees_images, takes_files
from proxyd.proxy.active_call import ActiveCall
from proxyd.proxy.image_descriptions import ImageDescriptions
from proxyd.proxy.pdf_reader import ALL, NONE, TEXTLESS
from proxyd.server_tools.pdf_documents import Page, PdfDocument, pdfs_in, with_pages

__all__ = ["INSTALL", "PdfPages", "can_read_pdfs"]

#: What has to be installed.
INSTALL = "pip install 'claude-proxyd[pdf]'"
#: Seconds that reading one PDF may take; twenty large scanned pages take four.
TIMEOUT_S = 30.0
#: Processes at the same time.
_MAX_AT_ONCE = 2
#: Size of a PDF that is read; the Messages API takes no larger request.
MAX_BYTES = 32 << 20
#: What is remembered, in characters of texts and images: at most 2 MB for each twenty pages of a usual scan.
MAX_REMEMBERED = 64 << 20
#: Seconds after which a PDF that could not be read is tried again: perhaps the machine was busy.
RETRY_AFTER_S = 600.0
#: What the process needs of the environment to find Python's packages; keys are none of it.
_ENVIRONMENT = ("HOME", "PATH", "PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE", "LD_LIBRARY_PATH")
_ROOT = Path(__file__).resolve().parents[2]

log = get_logger("pdfs")

#: Number of pages and those that were read; or why it cannot be read, as the second half of a sentence.
_Found = tuple[int, list[Page]] | str


@cache
def can_read_pdfs() -> bool:
    """Whether the libraries are installed."""
    return find_spec("pypdfium2") is not None and find_spec("PIL") is not None


class PdfPages:
    """Reads PDFs and remembers their pages.

    Args:
        images: knows who describes images.
    """

    def __init__(self, images: ImageDescriptions) -> None:
        self._images = images
        #: Key of the PDF and which pages are drawn -> what was found, and when; those used last are kept.
        self._known: OrderedDict[tuple[bytes, str], tuple[_Found, float]] = OrderedDict()
        self._size = 0
        self._locks: WeakValueDictionary[tuple[bytes, str], asyncio.Lock] = WeakValueDictionary()
        self._slots = asyncio.Semaphore(_MAX_AT_ONCE)
        #: Entries that were pointed out.
        self._hinted: set[str] = set()

    async def shown_to(
        self, route: ModelRoute, call: ActiveCall, payload: dict[str, Any]
    ) -> tuple[dict[str, Any], tuple[Note, ...]]:
        """Return `payload` with the pages of its PDFs if the upstream of `route` takes no files, and notes on them."""
        if takes_files(route) or (route.model_id in self._hinted and not can_read_pdfs()):
            return payload, ()
        documents = await call.request.run(pdfs_in, payload)
        if not documents:
            return payload, ()
        if not can_read_pdfs():
            self._point_out(route, call, f"{INSTALL} has claude-proxy read PDFs for it")
            return payload, ()
        drawn = ALL if sees_images(route) else TEXTLESS if self._images.describer_of(route) else NONE
        contents = {each.key: each for each in documents}
        found = await asyncio.gather(*(self._read(each, drawn, call, route) for each in contents.values()))
        pages = dict(zip(contents, found, strict=True))
        if drawn == NONE and any(_has_textless(each) for each in pages.values()):
            hint = "images: {describe_with: MODEL_ID} has another entry describe pages without text"
            self._point_out(route, call, hint)
        notes = tuple(
            Note(".".join(map(str, each.path)), "replaced by its pages", "the upstream takes no files")
            for each in documents
        )
        return with_pages(payload, documents, pages), notes

    async def _read(self, document: PdfDocument, drawn: str, call: ActiveCall, route: ModelRoute) -> _Found:
        key = (document.key, drawn)
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        async with lock:
            found, read_at = self._known.get(key, (None, 0.0))
            if found is not None and not (isinstance(found, str) and monotonic() - read_at > RETRY_AFTER_S):
                self._known.move_to_end(key)
                return found
            async with self._slots:
                found = await _read(document.data, drawn)
            self._remember(key, found)
        if isinstance(found, str):
            log.warning("pdfs.not_read", request_id=call.record.request_id, route=route.model_id, why=found)
        return found

    def _remember(self, key: tuple[bytes, str], found: _Found) -> None:
        before = self._known.pop(key, None)
        self._known[key] = found, monotonic()
        self._size += _size_of(found) - (_size_of(before[0]) if before is not None else 0)
        while self._size > MAX_REMEMBERED and len(self._known) > 1:
            self._size -= _size_of(self._known.popitem(last=False)[1][0])

    def _point_out(self, route: ModelRoute, call: ActiveCall, hint: str) -> None:
        """Log once for an entry what could be done."""
        if route.model_id in self._hinted:
            return
        self._hinted.add(route.model_id)
        log.warning(
            "pdfs.not_shown",
            request_id=call.record.request_id,
            route=route.model_id,
            hint=f"the model's upstream takes no PDFs; {hint}",
        )


async def _read(data: str, drawn: str) -> _Found:
    """Read one PDF in a process of its own, and end that in any case."""
    if len(data) * 3 // 4 > MAX_BYTES:
        return f"it is larger than {MAX_BYTES >> 20} MiB"
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxyd.proxy.pdf_reader", drawn),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=_ROOT,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
    except OSError as exc:
        return f"no process could be started ({type(exc).__name__})"
    try:
        output, _ = await asyncio.wait_for(process.communicate(data.encode("ascii", "replace")), TIMEOUT_S)
    except asyncio.TimeoutError:
        return f"reading it takes longer than {TIMEOUT_S:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        return f"reading it failed (exit code {process.returncode})"
    return _found_in(output)


def _found_in(output: bytes) -> _Found:
    head, _, images = output.partition(b"\n")
    result = jsonio.loads(head)
    if "error" in result:
        return str(result["error"])
    pages, start = [], 0
    for each in result["pages"]:
        size = each.get("image", 0)
        image = images[start : start + size].decode("ascii") if size else None
        pages.append(Page(each["text"], each["is_textless"], image))
        start += size
    return result["count"], pages


def _has_textless(found: _Found) -> bool:
    return not isinstance(found, str) and any(page.is_textless for page in found[1])


def _size_of(found: _Found) -> int:
    if isinstance(found, str):
        return len(found)
    return sum(len(page.text) + len(page.image or "") for page in found[1])

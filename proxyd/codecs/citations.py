"""The sources that an upstream names when it has searched the web itself.

They stand beside what the codecs translate, in a form of each vendor's own. So the bytes of such a response are read a
second time, for nothing but its sources; a search is rare, and its response short.

::

    {"annotations": [{"type": "url_citation", "url_citation": {url, title, content}}]}     Chat Completions, OpenRouter
    {"annotations": [{"type": "url_citation", url, title}]}                                Responses
    {"action": {"type": "search", "sources": [{"type": "url", url}]}}                      Responses, DashScope
    {"web_search": [{link, title, content, publish_date}]}                                 GLM
    {"groundingChunks": [{"web": {uri, title}}]}                                           Gemini
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from proxyd import jsonio
from proxyd.codecs.response_decoder import ResponseDecoder
from proxyd.codecs.wire.sse import SSEDecoder
from proxyd.errors import ProxyError

__all__ = ["Citation", "Citations", "CitingDecoder"]

#: Bytes of a response that are read for sources, and sources that are kept.
_MAX_BYTES, _MAX_SOURCES = 4 << 20, 50
_MAX_DEPTH, _HEAD_BYTES = 12, 64


@dataclass(frozen=True, slots=True)
class Citation:
    """One source."""

    url: str
    title: str = ""
    text: str = ""
    date: str | None = None


class Citations:
    """Collects the sources of one response, each address once.

    Attributes:
        found: by address, in the order of their first mention.
    """

    def __init__(self) -> None:
        self.found: dict[str, Citation] = {}
        self._stream = SSEDecoder(_MAX_BYTES)
        self._body = bytearray()
        self._size = 0

    def restart(self) -> None:
        """Forget everything: the response of another attempt follows."""
        self.found.clear()
        self._stream, self._body, self._size = SSEDecoder(_MAX_BYTES), bytearray(), 0

    def feed(self, data: bytes) -> None:
        """Read a part of the response, whatever it is."""
        self._size += len(data)
        if self._size > _MAX_BYTES:
            return
        self._body += data
        if self._is_whole:
            return  # a whole response, which is read at its end
        try:
            for frame in self._stream.feed(data):
                self._read(frame.data)
        except ProxyError:
            self._size = _MAX_BYTES + 1  # no stream that can be read

    def close(self) -> None:
        """Read the response that is no stream."""
        if self._size <= _MAX_BYTES and self._is_whole:
            self._read(bytes(self._body))

    @property
    def _is_whole(self) -> bool:
        return self._body[:_HEAD_BYTES].lstrip().startswith((b"{", b"["))

    def _read(self, data: bytes) -> None:
        try:
            value = jsonio.loads(data)
        except jsonio.JSONError:
            return
        for citation in _in(value, 0):
            before = self.found.get(citation.url)
            if before is None and len(self.found) >= _MAX_SOURCES:
                return
            if before is None or (not before.text and citation.text) or (not before.title and citation.title):
                self.found[citation.url] = citation


class CitingDecoder(ResponseDecoder):
    """Decodes a response, and reads its sources as well."""

    def __init__(self, *args: Any, citations: Citations, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._citations = citations
        citations.restart()

    def feed(self, data: bytes) -> bytes:
        self._citations.feed(data)
        return super().feed(data)

    def close(self) -> bytes:
        self._citations.close()
        return super().close()


def _in(value: Any, depth: int) -> Iterator[Citation]:
    """Yield the sources anywhere in a value."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for each in value:
            yield from _in(each, depth + 1)
    if not isinstance(value, dict):
        return
    found = _of(value)
    if found is not None:
        yield found
        return
    for name, each in value.items():
        if name == "web_search" and isinstance(each, list):
            yield from filter(None, (_citation(source, "link") for source in each))
        elif name == "sources" and isinstance(each, list) and value.get("type") == "search":
            yield from filter(None, (_citation(source, "url") for source in each))
        elif isinstance(each, (dict, list)):
            yield from _in(each, depth + 1)


def _of(value: Mapping[str, Any]) -> Citation | None:
    if value.get("type") == "url_citation":
        inner = value.get("url_citation")
        return _citation(inner if isinstance(inner, dict) else value, "url")
    return _citation(value["web"], "uri") if value.keys() == {"web"} else None


def _citation(value: Any, address: str) -> Citation | None:
    url = value.get(address) if isinstance(value, dict) else None
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        return None
    title, text, date = (value.get(name) for name in ("title", "content", "publish_date"))
    return Citation(
        url,
        title if isinstance(title, str) else "",
        text if isinstance(text, str) else "",
        date if isinstance(date, str) and date else None,
    )

"""Translate Anthropic content blocks to Chat Completions content parts (docs/spec/messages-to-chat.md#messages).

A block of the history is never refused: what the upstream does not support becomes a line of text that describes it.
Texts and base64 data are passed by reference or copied once, since a request holds megabytes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from proxyd import jsonio
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.tools import to_upstream_name
from proxyd.codecs.translation.translation_notes import Notes

__all__ = ["Blocks", "Part", "arguments_of", "collapse", "is_blank"]

#: One content part of an OpenAI message: ``text``, ``image_url`` or ``file``.
Part = dict[str, Any]

_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def is_blank(text: Any) -> bool:
    """Whether `text` is not a string, empty, or white space only; messages may not hold such texts."""
    return not isinstance(text, str) or not text or text.isspace()


def collapse(parts: list[Part], separator: str = "\n\n") -> str | list[Part]:
    """Return a message's content: one string where there is only text, which every server accepts."""
    if len(parts) == 1 and len(parts[0]) == 2 and parts[0]["type"] == "text":
        text: str = parts[0]["text"]
        return text
    if all(part["type"] == "text" and "cache_control" not in part for part in parts):
        return separator.join([part["text"] for part in parts])
    return parts


def arguments_of(value: Any) -> str:
    """Serialise a tool call's ``arguments``: compact JSON of an object, whatever the history holds."""
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        value = {"input": value}
    try:
        return jsonio.dump_text(value)
    except jsonio.JSONError:  # NaN or Infinity, which our parser accepts
        return jsonio.dump_text(_without_nan(value))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


class Blocks:
    """Translates the blocks of one request.

    Args:
        vision: whether the model sees images.
    """

    __slots__ = ("_dialect", "_notes", "_vision")

    def __init__(self, dialect: Dialect, vision: bool, notes: Notes) -> None:
        self._dialect = dialect
        self._vision = vision
        self._notes = notes

    def parts(self, content: Any, path: str) -> list[Part]:
        """Translate a string or a list of blocks; anything else has no parts."""
        if isinstance(content, str):
            return self.text(content)
        if not isinstance(content, list):
            return []
        return [
            part for number, block in enumerate(content) for part in self.block(block, f"{path}.{number}")
        ]

    def block(self, block: Any, path: str) -> list[Part]:
        """Translate one block."""
        if isinstance(block, str):
            return self.text(block)
        if not isinstance(block, dict):
            self._notes.add(path, "dropped", "not a content block")
            return []
        kind = block.get("type")
        if kind == "text":
            return self.text(block.get("text"), block.get("cache_control"))
        translate = _TRANSLATORS.get(kind) if isinstance(kind, str) else None
        return translate(self, block, path) if translate else self._other(block, path)

    def text(self, text: Any, cache_control: Any = None) -> list[Part]:
        """Return a text part; none for a blank text, which OpenAI and others refuse."""
        if is_blank(text):
            return []
        part: Part = {"type": "text", "text": text}
        if self._dialect.cache_control and isinstance(cache_control, dict):
            part["cache_control"] = deepcopy(cache_control)
        return [part]

    def _placeholder(self, path: str, what: str, why: str) -> list[Part]:
        self._notes.add(path, "replaced by a line of text", why)
        return [{"type": "text", "text": f"[{what}]"}]

    def _image(self, block: dict[str, Any], path: str) -> list[Part]:
        source = _mapping(block.get("source"))
        if not self._vision:
            return self._placeholder(path, "image, which this model cannot see", "the model takes no images")
        kind = source.get("type")
        if kind == "base64" and isinstance(data := source.get("data"), str) and data:
            media_type = source.get("media_type")
            if media_type not in _IMAGE_TYPES:
                return self._placeholder(path, "image of an unknown type", "its media type is not an image's")
            return [{"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{data}"}}]
        if kind == "url" and str(url := source.get("url")).startswith(("https://", "http://")):
            return [{"type": "image_url", "image_url": {"url": url}}]
        if kind == "file":
            what = f"image {source.get('file_id')} not available upstream"
            return self._placeholder(path, what, "a file id is known to Anthropic's servers only")
        return self._placeholder(path, "image without data", "its source is of no known kind")

    def _document(self, block: dict[str, Any], path: str) -> list[Part]:
        source = _mapping(block.get("source"))
        title, context = block.get("title"), block.get("context")
        head = _texts(title, context)
        kind, data = source.get("type"), source.get("data")
        if kind == "text" and isinstance(data, str):
            return self.text("\n\n".join([*head, *_texts(data)]), block.get("cache_control"))
        if kind == "content":
            return self.text("\n\n".join(head)) + self.parts(source.get("content"), path)
        if kind == "base64" and isinstance(data, str) and data:
            return self._pdf(block, data, title if not is_blank(title) else "", path)
        name = f" {title!r}" if not is_blank(title) else ""
        if kind == "url" and not is_blank(url := source.get("url")):
            self._notes.add(path, "replaced by its URL", "OpenAI has no part for a document's URL")
            return self.text(f"[document{name}: {url}]")
        if kind == "file":
            what = f"document{name} {source.get('file_id')} not available upstream"
            return self._placeholder(path, what, "a file id is known to Anthropic's servers only")
        return self._placeholder(path, f"document{name} without data", "its source is of no known kind")

    def _pdf(self, block: dict[str, Any], data: str, title: Any, path: str) -> list[Part]:
        is_pdf = _mapping(block.get("source")).get("media_type") == "application/pdf"
        if self._dialect.files and is_pdf:
            file = {"filename": title or "document.pdf", "file_data": f"data:application/pdf;base64,{data}"}
            return [{"type": "file", "file": file}]
        name = f" {title!r}" if title else ""
        size_kb = -(-len(data) * 3 // 4000)
        what = f"document{name}, {'PDF' if is_pdf else 'file'} of {size_kb} kB, which this model cannot read"
        if is_pdf:
            what += (
                "; where commands can be run, pdftotext may show its text; the user may have claude-proxy read PDFs "
                "by installing claude-proxyd[pdf]"
            )
        return self._placeholder(path, what, "the upstream takes no files")

    def _search_result(self, block: dict[str, Any], path: str) -> list[Part]:
        texts = _texts(block.get("title"), block.get("source"))
        texts += [part["text"] for part in self.parts(block.get("content"), path) if part["type"] == "text"]
        return self.text("\n".join(texts), block.get("cache_control"))

    def _tool_reference(self, block: dict[str, Any], path: str) -> list[Part]:
        return self.text(f"Tool {to_upstream_name(block.get('tool_name'), self._dialect)} is available.")

    def _tool_change(self, block: dict[str, Any], path: str) -> list[Part]:
        tool = _mapping(block.get("tool"))
        name = tool.get("name") or _mapping(tool.get("definition")).get("name")
        name = to_upstream_name(name, self._dialect) if name else tool.get("server_name")
        state = "available" if block["type"] == "tool_addition" else "no longer available"
        return self.text(f"Tool {name} is {state} from here on.")

    def _container_upload(self, block: dict[str, Any], path: str) -> list[Part]:
        what = f"file {block.get('file_id')} not available upstream"
        return self._placeholder(path, what, "containers are known to Anthropic's servers only")

    def _compaction(self, block: dict[str, Any], path: str) -> list[Part]:
        if is_blank(block.get("content")):
            return []
        return self.text(f"Summary of the conversation so far:\n{block['content']}")

    def _server_call(self, block: dict[str, Any], path: str) -> list[Part]:
        self._notes.add(path, "replaced by text", "the call was made by Anthropic's servers")
        return self.text(f"[{block.get('name')}] {arguments_of(block.get('input'))}")

    def _drop(self, block: dict[str, Any], path: str) -> list[Part]:
        self._notes.add(path, "dropped", f"a {block['type']} block has no meaning upstream")
        return []

    def _other(self, block: dict[str, Any], path: str) -> list[Part]:
        """Translate results of server tools and unknown block types to text."""
        kind = block.get("type")
        self._notes.add(path, "replaced by text", "a block type that the upstream does not have")
        lines = _readable_lines(block, self._dialect)
        label = kind if isinstance(kind, str) and kind else "block"
        return self.text(f"[{label}]\n" + "\n".join(lines) if lines else f"[{label}]")


#: Translator of each block type.
_TRANSLATORS: Mapping[str, Callable[[Blocks, dict[str, Any], str], list[Part]]] = {
    "image": Blocks._image,
    "document": Blocks._document,
    "search_result": Blocks._search_result,
    "tool_reference": Blocks._tool_reference,
    "container_upload": Blocks._container_upload,
    "tool_addition": Blocks._tool_change,
    "tool_removal": Blocks._tool_change,
    "server_tool_use": Blocks._server_call,
    "mcp_tool_use": Blocks._server_call,
    "compaction": Blocks._compaction,
    "fallback": Blocks._drop,
}


def _readable_lines(value: Any, dialect: Dialect) -> list[str]:
    """Return the readable lines of a server tool's result: titles, URLs, texts and outputs; nothing encrypted."""
    if isinstance(value, str):
        return [] if is_blank(value) else [value]
    if isinstance(value, list):
        return [line for item in value for line in _readable_lines(item, dialect)]
    if not isinstance(value, dict):
        return []
    lines = []
    title, url = value.get("title"), value.get("url")
    if not is_blank(url):
        lines.append(f"{title} ({url})" if not is_blank(title) else str(url))
    elif not is_blank(title):
        lines.append(str(title))
    lines += _texts(*[value.get(key) for key in ("text", "stdout", "stderr")])
    if not is_blank(value.get("tool_name")):
        lines.append(to_upstream_name(value["tool_name"], dialect))
    if not is_blank(value.get("error_code")):
        lines.append(f"error: {value['error_code']}")
    source = _mapping(value.get("source"))
    if source.get("type") == "text" and not is_blank(source.get("data")):
        lines.append(source["data"])
    for key in ("content", "tool_references"):
        lines += _readable_lines(value.get(key), dialect)
    return lines


def _texts(*values: Any) -> list[str]:
    return [value for value in values if not is_blank(value)]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

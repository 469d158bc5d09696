"""Parts of single blocks: texts, tool arguments, and what the upstream cannot take."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.translation.content_blocks import Blocks, arguments_of, collapse
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.tools import to_upstream_name
from proxyd.codecs.translation.translation_notes import Notes

PDF = {"type": "base64", "media_type": "application/pdf", "data": "QUJD" * 1000}


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({"a": "日本/x"}, '{"a":"日本/x"}'),
        (None, "{}"),
        ([1], '{"input":[1]}'),
        ("text", '{"input":"text"}'),
        ({"a": [float("nan"), {"b": float("inf")}], "c": 1.5}, '{"a":[null,{"b":null}],"c":1.5}'),
    ],
)
def test_arguments(given: Any, arguments: str) -> None:
    assert arguments_of(given) == arguments


@pytest.mark.parametrize(
    ("parts", "content"),
    [
        ([{"type": "text", "text": "a"}], "a"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\n\nb"),
        (
            [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
            [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
        ),
    ],
)
def test_collapse(parts: list[Any], content: Any) -> None:
    assert collapse(parts) == content


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (
            {"type": "image", "source": {"type": "url", "url": "https://e.org/a"}},
            "[image, which this model cannot see]",
        ),
        (
            {"type": "document", "title": "T", "source": PDF},
            "[document 'T', PDF of 3 kB, which this model cannot read; where commands can be run, pdftotext may show "
            "its text; the user may have claude-proxy read PDFs by installing claude-proxyd[pdf]]",
        ),
        (
            {"type": "document", "source": {**PDF, "media_type": "text/html"}},
            "[document, file of 3 kB, which this model cannot read]",
        ),
        (
            {"type": "document", "source": {"type": "url", "url": "https://e.org/d"}},
            "[document: https://e.org/d]",
        ),
        (
            {"type": "document", "source": {"type": "file", "file_id": "f"}},
            "[document f not available upstream]",
        ),
        ({"type": "container_upload", "file_id": "f"}, "[file f not available upstream]"),
        (
            {"type": "server_tool_use", "name": "web_search", "input": {"query": "q"}},
            '[web_search] {"query":"q"}',
        ),
        ({"type": "tool_reference", "tool_name": "T"}, "Tool T is available."),
        ({"type": "tool_removal", "tool": {"name": "T"}}, "Tool T is no longer available from here on."),
        ({"type": "compaction", "content": "sum"}, "Summary of the conversation so far:\nsum"),
        (
            {
                "type": "web_search_tool_result",
                "content": [{"title": "T", "url": "u", "encrypted_content": "x"}],
            },
            "[web_search_tool_result]\nT (u)",
        ),
        ({"type": ["odd"]}, "[block]"),
        ({"type": "fallback"}, None),
        (7, None),
        ({"type": "text", "text": " \n"}, None),
    ],
)
def test_blocks_that_become_text(block: Any, text: str | None) -> None:
    parts = Blocks(Dialect(), False, Notes()).block(block, "path")
    assert [part["text"] for part in parts] == ([] if text is None else [text])


LONG = "mcp__tiny__a_rather_long_tool_name_that_goes_beyond_the_limit_of_openai_which_is_64_characters"


@pytest.mark.parametrize(
    "block",
    [
        {"type": "tool_reference", "tool_name": LONG},
        {"type": "tool_removal", "tool": {"name": LONG}},
        {"type": "tool_addition", "tool": {"definition": {"name": LONG}}},
        {"type": "tool_search_tool_result", "content": {"tool_references": [{"tool_name": LONG}]}},
    ],
)
def test_tool_is_named_as_it_is_offered(block: dict[str, Any]) -> None:
    dialect = Dialect()
    (part,) = Blocks(dialect, False, Notes()).block(block, "path")
    assert LONG not in part["text"]
    assert to_upstream_name(LONG, dialect) in part["text"]


@pytest.mark.parametrize(("media_type", "is_file"), [("application/pdf", True), ("text/html", False)])
def test_pdfs_are_sent_where_files_are_supported(media_type: str, is_file: bool) -> None:
    block = {"type": "document", "source": {**PDF, "media_type": media_type}}
    parts = Blocks(Dialect(files=True), True, Notes()).block(block, "path")
    assert [part["type"] for part in parts] == ["file" if is_file else "text"]

"""PDFs of a request are found, and what their pages hold stands in their place."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from proxyd.server_tools.pdf_documents import Page, pdfs_in, with_pages
from tests.support.pdf_files import pdf_block


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def contents_of(block: dict[str, Any]) -> list[str]:
    assert block["source"]["type"] == "content"
    return [each.get("text", each["type"]) for each in block["source"]["content"]]


def test_pdfs_are_found_in_messages_and_in_results_of_tools() -> None:
    payload = {
        "messages": [
            user({"type": "text", "text": "x"}, pdf_block("YQ==")),
            {"role": "assistant", "content": [pdf_block("Yg==")]},
            user(
                {"type": "tool_result", "tool_use_id": "t", "content": [pdf_block("Yw=="), pdf_block("YQ==")]}
            ),
        ]
    }
    found = pdfs_in(payload)
    assert [(each.path, each.data) for each in found] == [
        (("messages", 0, "content", 1), "YQ=="),
        (("messages", 2, "content", 0, "content", 0), "Yw=="),
        (("messages", 2, "content", 0, "content", 1), "YQ=="),
    ]
    assert found[0].key == found[2].key != found[1].key


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"messages": "x"},
        {"messages": [None, user(None, "x", {"type": "document"}, {"type": "document", "source": "x"})]},
        {
            "messages": [
                user({"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}})
            ]
        },
        {
            "messages": [
                user(
                    {"type": "document", "source": {"type": "text", "data": "x", "media_type": "text/plain"}}
                )
            ]
        },
        {"messages": [user(pdf_block(""), {"type": "tool_result", "content": "x"})]},
    ],
)
def test_other_things_are_no_pdfs(payload: dict[str, Any]) -> None:
    assert pdfs_in(payload) == []


def test_pages_replace_the_file_in_a_copy() -> None:
    marked = pdf_block("YQ==", title="T", cache_control={"type": "ephemeral"})
    payload = {"messages": [user(marked, pdf_block("Yg==")), user(pdf_block("Yw=="), pdf_block("ZA=="))]}
    before = copy.deepcopy(payload)
    found = pdfs_in(payload)
    pages = [Page("First", False, "SlBH"), Page("", True, "SlBH"), Page("", True), Page("7", True, "SlBH")]
    contents = dict(
        zip((each.key for each in found), [(4, pages), (9, pages[:1]), "it is broken"], strict=False)
    )
    changed = with_pages(payload, found, contents)
    assert payload == before
    (first, second), (third, fourth) = (message["content"] for message in changed["messages"])
    assert contents_of(first) == [
        "[PDF of 4 pages]",
        "[Page 1]\nFirst",
        "image",
        "[Page 2, which has no text]",
        "image",
        "[Page 3 has no text, and is not shown]",
        "[Page 4]\n7",
        "image",
        "[End of the PDF]",
    ]
    assert first["title"] == "T"
    assert "cache_control" not in first
    assert first["source"]["content"][-1]["cache_control"] == {"type": "ephemeral"}
    assert first["source"]["content"][2]["source"] == {
        "type": "base64",
        "media_type": "image/jpeg",
        "data": "SlBH",
    }
    assert contents_of(second)[-1] == "[The pages after page 1 are left out]"
    assert contents_of(third) == ["[PDF, which cannot be read: it is broken]"]
    assert fourth is payload["messages"][1]["content"][1]

"""Kimi's search: where it goes, and which links of the model's words count as its sources."""

from __future__ import annotations

import pytest

from proxyd.server_tools.web_search.kimi import links_in, membership_url


@pytest.mark.parametrize(
    ("api_base", "url"),
    [
        ("https://api.kimi.com/coding/v1", "https://api.kimi.com/coding/v1/search"),
        ("https://api.kimi.com/coding/v1/", "https://api.kimi.com/coding/v1/search"),
        ("https://api.moonshot.ai/v1", None),
        ("https://api.moonshot.cn/v1", None),
    ],
)
def test_only_a_membership_has_a_search_of_its_own(api_base: str, url: str | None) -> None:
    assert membership_url(api_base) == url


def test_links_are_read_once_each() -> None:
    text = (
        "So [One](https://a.example/1) and [again](https://a.example/1), [Wiki](https://b.example/X_(y)), "
        "but not [this](javascript:alert(1)), https://c.example/, or [](https://d.example/)"
    )
    assert [(each.title, each.url) for each in links_in(text)] == [
        ("One", "https://a.example/1"),
        ("Wiki", "https://b.example/X_(y)"),
    ]


def test_a_text_of_brackets_is_read_in_no_time() -> None:
    assert links_in("[" * 50_000 + "](https://" + "(" * 50_000) == []
    assert len(links_in("".join(f"[{number}](https://a.example/{number}) " for number in range(99)))) == 20

"""``web_search`` of entries and settings: what is in force, and where its faults are."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.config.models import load_text
from proxyd.config.settings_loader import decide_settings
from proxyd.config.web_search import ENGINES, WebSearch
from proxyd.daemon.configuration import checks
from proxyd.errors import ConfigError
from proxyd.secret import Secret
from tests.support.paths import ROOT

ENVIRON = {"BRAVE_API_KEY": "brave-key-1", "EXA_API_KEY": "exa-key-1"}
SEARXNG = "{engine: searxng, url: 'http://127.0.0.1:8888/'}"
BRAVE = "{engine: brave, api_key: '${BRAVE_API_KEY}', max_results: 3}"


def in_force(settings: str = "{}", entry: str = "{}", *, direct: bool = False) -> WebSearch | None:
    text = (
        f"settings: {{web_search: {settings}}}\n"
        f"models:\n- {{model_id: m, api_base: 'http://127.0.0.1:1/v1', direct: {str(direct).lower()}, "
        f"web_search: {entry}}}\n"
    )
    config = load_text(text, ROOT / "models.yaml", ENVIRON, checks=checks())
    decided = decide_settings({}, ENVIRON, config.settings, config.settings_at, folder=ROOT)
    (route,) = config.table.routes
    return WebSearch.of(
        decided.web_search,
        decided.web_search_key,
        route.web_search,
        route.web_search_key,
        is_direct=route.direct,
    )


@pytest.mark.parametrize(
    ("settings", "entry", "expected"),
    [
        ("{}", "{}", WebSearch()),
        ("{engine: off}", "{}", WebSearch()),
        ("{engine: upstream}", "{}", WebSearch("upstream", timeout_s=60.0)),
        (BRAVE, "{engine: upstream}", WebSearch("upstream", max_results=3, timeout_s=60.0)),
        (SEARXNG, "{}", WebSearch("searxng", "http://127.0.0.1:8888")),
        (SEARXNG, "{engine: off}", WebSearch()),
        (
            SEARXNG,
            "{safe: strict, timeout_s: 3}",
            WebSearch("searxng", "http://127.0.0.1:8888", safe="strict", timeout_s=3),
        ),
        (BRAVE, "{}", WebSearch("brave", ENGINES["brave"], Secret("brave-key-1"), max_results=3)),
        (
            BRAVE,
            "{api_key: other-key-1}",
            WebSearch("brave", ENGINES["brave"], Secret("other-key-1"), max_results=3),
        ),
        (
            BRAVE,
            "{engine: exa, api_key: '${EXA_API_KEY}'}",
            WebSearch("exa", ENGINES["exa"], Secret("exa-key-1"), max_results=3),
        ),
        (BRAVE, SEARXNG, WebSearch("searxng", "http://127.0.0.1:8888", max_results=3)),
    ],
)
def test_an_entry_is_laid_over_the_settings(settings: str, entry: str, expected: Any) -> None:
    assert in_force(settings, entry) == expected


def test_a_direct_entry_leaves_searches_to_its_upstream_unless_it_names_an_engine() -> None:
    assert in_force(SEARXNG, direct=True) is None
    assert in_force("{}", "{engine: upstream}", direct=True) is None
    assert in_force(SEARXNG, "{engine: off}", direct=True) is None
    assert in_force("{}", SEARXNG, direct=True) == WebSearch("searxng", "http://127.0.0.1:8888")


def test_a_key_that_is_not_set_is_reported_by_the_search_not_by_the_file() -> None:
    found = in_force("{engine: serper, api_key: '${SERPER_API_KEY}'}")
    assert found is not None
    assert found.key is None
    assert "SERPER_API_KEY is not set" in str(found.missing_key)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{engine: searxng}", ["web_search.engine", "searxng needs url"]),
        ("{engine: brave}", ["web_search.engine", "brave needs api_key", "${BRAVE_API_KEY}"]),
        ("{engine: google}", ["engine", "searxng"]),
        ("{engine: searxng, url: 'ftp://x'}", ["url", "http://"]),
        ("{engine: searxng, url: 'http://user:word@x'}", ["url", "without credentials"]),
        ("{engine: brave, api_key: 'a ${X}'}", ["web_search.api_key", "${ENV_NAME}"]),
        ("{engin: brave}", ["engin", "engine"]),
        ("{engine: off, max_results: 0}", ["max_results"]),
    ],
)
@pytest.mark.parametrize("place", ["settings", "entry"])
def test_a_fault_names_its_place_and_what_to_write(value: str, words: list[str], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        in_force(**{place: value})
    message = caught.value.message
    assert "models.yaml:" in message
    for word in words:
        assert word in message
    assert "user:word" not in message


def test_an_upstream_that_searches_has_its_own_address_and_key() -> None:
    with pytest.raises(ConfigError) as caught:
        in_force("{engine: upstream, url: 'http://h'}")
    assert "web_search.url" in caught.value.message
    assert "the entry's own address and key; remove it" in caught.value.message

"""Addresses of databases: which are valid, and what is shown of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from proxyd.config import database_url
from proxyd.config.database_url import DatabaseUrl, has_password, parse_database_url, read_store
from proxyd.config.models import load_text
from proxyd.config.settings_loader import decide_settings
from proxyd.errors import ConfigError
from proxyd.redaction import masked

PASSWORD = "s3cret/of-the-database"
URL = "postgresql://proxy:s3cret%2Fof-the-database@db.example:5433/claude?sslmode=require"


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the driver is installed or not."""
    monkeypatch.setattr(database_url.importlib.util, "find_spec", lambda _: importlib.util)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (URL, "postgresql://proxy@db.example:5433/claude"),
        ("postgres://db/claude", "postgresql://db/claude"),
        (f"postgresql:///claude?host=/run/pg&user=me&password={PASSWORD}", "postgresql://me@/run/pg/claude"),
    ],
)
def test_the_password_is_not_shown(url: str, shown: str) -> None:
    found = parse_database_url(url)
    assert (str(found), repr([found]), found.reveal()) == (shown, f"[{shown}]", url)
    assert found == DatabaseUrl(url)
    if has_password(url):
        text = f"connection to {url} refused for {PASSWORD}"
        assert PASSWORD not in masked(text)
        assert "s3cret" not in masked(text)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mysql://u:top-secret@h/d", "expected sqlite, or postgresql://"),
        ("postgres", "expected sqlite, or postgresql://"),
        ("postgresql://u:top-secret@h:port/d", "the host or the port cannot be read"),
        ("postgresql://u:top-secret@[h/d", "the host or the port cannot be read"),
        ("postgresql://u:top-secret@h", "there is no database in it"),
        ("postgresql:///d?password=top-secret", "there is no host in it"),
        ("${STORE} x", "expected a literal key"),
        ("${STORE}", "STORE is not set where claude-proxy runs"),
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(url: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decide_settings({}, {"CLAUDE_PROXY_STORE": url})
    assert caught.value.message.startswith("CLAUDE_PROXY_STORE: store: ")
    assert expected in caught.value.message
    assert "top-secret" not in caught.value.message


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_url.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install 'claude-proxyd\[postgres\]'"):
        parse_database_url(URL)


def test_references_and_sqlite(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(URL + "\n")
    assert read_store("${file:url}", {}, tmp_path) == DatabaseUrl(URL)
    assert read_store("${S}", {"S": URL}, tmp_path) == DatabaseUrl(URL)
    assert read_store("sqlite", {}, tmp_path) is read_store("${S}", {"S": "sqlite"}, tmp_path) is None
    settings = decide_settings({}, {}, {"store": URL}, {"store": "m.yaml:1:1"})
    assert settings.store == DatabaseUrl(URL)
    assert "s3cret" not in repr(settings)


def test_a_password_in_models_yaml_makes_it_a_file_with_secrets(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    text = (
        "settings: {store: '%s'}\nmodels:\n- {model_id: m, api_base: 'https://h.example', api_key: '${K}'}\n"
    )
    path.write_text(text % URL)
    path.chmod(0o644)
    warnings = load_text(text % URL, path, {}).warnings
    assert any("chmod" in line for line in warnings), warnings
    assert not any("chmod" in line for line in load_text(text % "${STORE}", path, {}).warnings)

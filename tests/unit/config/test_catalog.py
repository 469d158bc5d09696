"""catalog.yaml: its form, its faults, and what the packaged one holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from proxyd.config.catalog import Catalog, KnownModel, catalog_text, load_catalog, read_catalog
from proxyd.config.routes import Pricing
from proxyd.errors import ConfigError
from proxyd.providers.registry import PROFILES
from tests.support.paths import ROOT

PACKAGED = ROOT / "config" / "catalog.yaml"
LINE = '- {"vendor": "moonshot", "model": "k", "window": 1000, "source": "https://x.example", "date": "2026-01-02"}\n'


def test_the_packaged_catalog_names_vendor_source_and_date_of_each_model() -> None:
    models = read_catalog(PACKAGED).models
    assert len(models) >= 150
    assert {each.vendor for each in models} <= PROFILES.keys()
    assert all(each.source.startswith("https://") and each.date >= "2026" for each in models)
    assert all(each.max_input_tokens for each in models)
    assert sum(each.pricing is not None for each in models) > 150


def test_it_is_yaml_with_the_same_content() -> None:
    parsed = YAML(typ="safe").load(PACKAGED.read_text(encoding="utf-8"))["models"]
    models = read_catalog(PACKAGED).models
    assert [(each["vendor"], each["model"], each["window"]) for each in parsed] == [
        (each.vendor, each.model, each.max_input_tokens) for each in models
    ]
    assert catalog_text(models) == PACKAGED.read_text(encoding="utf-8")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    full = KnownModel(
        "openai", "a", 400_000, 128_000, Pricing(1.25, 10.0, 0.125, 2), True, False, True, "https://x", "2026-01-02"
    )  # fmt: skip
    bare = KnownModel("xai", "b", source="https://y", date="2026-01-02")
    path = tmp_path / "catalog.yaml"
    path.write_text(catalog_text([bare, full]))
    assert read_catalog(path).models == (full, bare)


def test_names_are_found_in_any_case_and_for_their_vendor_alone() -> None:
    catalog = read_catalog(PACKAGED)
    found = catalog.find("minimax", "minimax-m3")
    assert found is not None
    assert found.model == "MiniMax-M3"
    assert catalog.find("openai", "MiniMax-M3") is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("- vendor: x", "expected one model a line"),
        ("- {not json}", "expected one model a line"),
        ('- {"vendor": "x", "model": "m", "source": "s", "date": "d", "windw": 1}', "unknown field 'windw'"),
        ('- {"vendor": "x", "model": "m", "source": "s"}', "date: expected a text"),
        (
            '- {"vendor": "x", "model": "m", "source": "s", "date": "d", "window": 0}',
            "window: expected a whole",
        ),
        ('- {"vendor": "x", "model": "m", "source": "s", "date": "d", "output": true}', "output: expected"),
        ('- {"vendor": "x", "model": "m", "source": "s", "date": "d", "vision": 1}', "vision: expected true"),
        (
            '- {"vendor": "x", "model": "m", "source": "s", "date": "d", "prices": {"in": 1}}',
            "prices: expected",
        ),
        (
            '- {"vendor": "x", "model": "m", "source": "s", "date": "d", "prices": {"input": -1}}',
            "prices.input:",
        ),
    ],
)
def test_a_fault_names_file_line_and_field(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(f"# head\nmodels:\n{LINE}{line}\n")
    with pytest.raises(ConfigError) as caught:
        read_catalog(path)
    assert caught.value.message.startswith(f"{path}:4: ")
    assert said in caught.value.message


def test_the_users_own_lies_over_the_packaged_one(tmp_path: Path) -> None:
    catalog, fault = load_catalog(tmp_path)
    assert (len(catalog), fault) == (len(read_catalog(PACKAGED)), None)
    (tmp_path / "catalog.yaml").write_text("models:\n" + LINE.replace('"k"', '"kimi-k2.6"'))
    catalog, fault = load_catalog(tmp_path)
    found = catalog.find("moonshot", "kimi-k2.6")
    assert found is not None
    assert (found.max_input_tokens, fault) == (1000, None)
    (tmp_path / "catalog.yaml").write_text("models:\n- nonsense, which is longer\n")
    catalog, fault = load_catalog(tmp_path)
    assert fault is not None
    assert "catalog.yaml:2:" in fault
    assert "models refresh" in fault
    assert catalog.find("moonshot", "kimi-k2.6") != found


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_catalog(tmp_path)
    (tmp_path / "latin").write_bytes(b"# \xe9")
    with pytest.raises(ConfigError, match="expected UTF-8"):
        read_catalog(tmp_path / "latin")


def test_an_empty_catalog_knows_nothing() -> None:
    assert Catalog().find("openai", "gpt-5") is None

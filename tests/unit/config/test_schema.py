"""The JSON Schema for editors says what the reader does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxyd.config.keys import ENTRY_KEYS
from proxyd.config.models import Checks, load_text
from proxyd.config.schema import build_schema, dump_schema
from proxyd.config.settings import TABLE
from proxyd.config.settings_loader import faults_in_file
from proxyd.errors import ConfigError
from tests.support.paths import ROOT

CONFIG = ROOT / "config"


def test_the_kept_schema_is_up_to_date() -> None:
    kept = (CONFIG / "models.schema.json").read_text(encoding="utf-8")
    assert kept == dump_schema(), "run: python -m proxyd.config.schema > config/models.schema.json"


def test_every_key_and_setting_is_described() -> None:
    schema = build_schema()["definitions"]
    assert set(schema["entry"]["properties"]) == set(ENTRY_KEYS)
    assert set(schema["settings"]["properties"]) == set(TABLE)
    for properties in (schema["entry"]["properties"], schema["settings"]["properties"]):
        assert all(each["description"].endswith(".") for each in properties.values())


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """As much of JSON Schema as ours uses; an unknown word fails the test."""
    checks: dict[str, Any] = {
        "type": lambda want: any(_is(value, one) for one in (want if isinstance(want, list) else [want])),
        "enum": lambda want: value in want,
        "anyOf": lambda want: any(accepts(one, value) for one in want),
        "minimum": lambda want: not _is(value, "number") or value >= want,
        "maximum": lambda want: not _is(value, "number") or value <= want,
        "minLength": lambda want: not isinstance(value, str) or len(value) >= want,
        "maxLength": lambda want: not isinstance(value, str) or len(value) <= want,
        "pattern": lambda want: (
            not isinstance(value, str) or __import__("re").search(want, value) is not None
        ),
        "items": lambda want: not isinstance(value, list) or all(accepts(want, item) for item in value),
        "minItems": lambda want: not isinstance(value, list) or len(value) >= want,
        "maxItems": lambda want: not isinstance(value, list) or len(value) <= want,
        "required": lambda want: not isinstance(value, dict) or all(name in value for name in want),
        "uniqueItems": lambda want: not isinstance(value, list) or len(set(map(str, value))) == len(value),
        "properties": lambda want: (
            not isinstance(value, dict)
            or all(accepts(want[name], item) for name, item in value.items() if name in want)
        ),
        "additionalProperties": lambda want: (
            not isinstance(value, dict)
            or all(
                want is not False and accepts(want, item)
                for name, item in value.items()
                if name not in schema.get("properties", {})
            )
        ),
        "description": lambda _: True,
    }
    return all(checks[word](want) for word, want in schema.items())


def _is(value: Any, name: str) -> bool:
    if name in ("integer", "number"):
        return isinstance(value, int if name == "integer" else (int, float)) and not isinstance(value, bool)
    kinds = {"string": str, "boolean": bool, "array": list, "object": dict, "null": type(None)}
    return isinstance(value, kinds[name])


#: Values of every sort, as YAML flow text; each key judges each of them.
VALUES: list[tuple[str, Any]] = [
    ("true", True), ("5", 5), ("0", 0), ("-1", -1), ("0.5", 0.5), ("'8k'", "8k"), ("'1.5M'", "1.5M"),
    ("high", "high"),
    ("''", ""), ("[a, b]", ["a", "b"]), ("[a, a]", ["a", "a"]), ("[]", []), ("[5]", [5]), ("{}", {}),
    ("{input: 1}", {"input": 1}), ("{input: -1}", {"input": -1}), ("{idle_s: 5}", {"idle_s": 5}),
    ("{A: b}", {"A": "b"}), ("'https://h/v1'", "https://h/v1"), ("'ftp://h'", "ftp://h"),
    ("'builtin:demo'", "builtin:demo"),
    ("openai", "openai"), ("'32 MiB'", "32 MiB"), ("null", None), ("debug", "debug"), ("70000", 70000),
]  # fmt: skip


@pytest.mark.parametrize("name", ENTRY_KEYS)
def test_schema_and_reader_agree_on_entries(name: str) -> None:
    schema = build_schema()["definitions"]["entry"]["properties"][name]
    for source, value in VALUES:
        found: list[str] = []
        ENTRY_KEYS[name].kind.read(value, lambda path, text, on_key: found.append(text))  # noqa: B023
        # A pattern cannot say all; but what the reader takes, the schema must take.
        assert accepts(schema, value) or found, (name, source)
        if name not in ("extra_body", "quirks", "omit"):
            assert accepts(schema, value) == (not found), (name, source, found)


@pytest.mark.parametrize("name", TABLE)
def test_schema_and_reader_agree_on_settings(name: str) -> None:
    schema = build_schema()["definitions"]["settings"]["properties"][name]
    for source, value in VALUES:
        is_taken = not faults_in_file({name: value})
        assert accepts(schema, value) or not is_taken, (name, source)
        if name != "discovery_prefix":
            assert accepts(schema, value) == is_taken, (name, source)


def test_the_example_is_checked_against_the_settings_too() -> None:
    text = (CONFIG / "models.yaml").read_text(encoding="utf-8")
    commented = [
        line[4:].partition("  ")[0] for line in text.splitlines() if line.startswith("  # ") and ": " in line
    ]
    names = [line.partition(":")[0] for line in commented]
    shown = [line for line, name in zip(commented, names, strict=True) if name in TABLE]
    assert len(shown) == 4
    filled = text.replace("settings:\n", "settings:\n" + "".join(f"  {line}\n" for line in shown))
    config = load_text(filled, CONFIG / "models.yaml", {}, checks=Checks(settings=faults_in_file))
    assert set(config.settings) == {"port", "log_level", "max_retries", "discovery_prefix"}
    with pytest.raises(ConfigError):
        load_text(
            filled.replace("port: 8082", "port: x"), Path("m"), {}, checks=Checks(settings=faults_in_file)
        )

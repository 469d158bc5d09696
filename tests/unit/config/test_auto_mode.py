"""``auto_mode`` of entries and settings: what is in force, and where its faults are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxyd.config.auto_mode import AutoMode
from proxyd.config.models import Config, load_text
from proxyd.config.settings_loader import decide_settings
from proxyd.daemon.configuration import checks, load_settings
from proxyd.errors import ConfigError

ENTRY = "- {model_id: m, api_base: 'builtin:demo'}\n"


def read(text: str, folder: Path = Path()) -> Config:
    return load_text(text, folder / "models.yaml", {}, checks=checks())


def fault(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return caught.value.message


def in_force(text: str, folder: Path = Path()) -> list[AutoMode]:
    config = read(text, folder)
    settings = decide_settings({}, {}, config.settings, config.settings_at, folder=folder)
    return [
        AutoMode.of(
            settings.auto_mode,
            settings.auto_mode_rules,
            route.auto_mode,
            route.auto_mode_rules,
            is_direct=route.direct,
        )
        for route in config.table.routes
    ]


@pytest.mark.parametrize(
    ("settings", "entry", "expected"),
    [
        ("{}", "{}", AutoMode()),
        ("{classifier: m}", "{}", AutoMode("m")),
        ("{classifier: m, timeout_s: 5}", "{timeout_s: 7}", AutoMode("m", 7.0)),
        ("{classifier: m}", "{classifier: off}", AutoMode("")),
        ("{classifier: off}", "{classifier: m}", AutoMode("m")),
        ("{classifier: 'off'}", "{}", AutoMode("")),
        ("{classifier: m}", "{}, format: anthropic", AutoMode("")),
        ("{timeout_s: 5}", "{classifier: m}, format: anthropic", AutoMode("m", 5.0)),
    ],
)
def test_an_entry_is_laid_over_the_settings(settings: str, entry: str, expected: AutoMode) -> None:
    text = (
        f"settings: {{auto_mode: {settings}}}\nmodels:\n"
        f"- {{model_id: m, api_base: 'http://localhost:1', auto_mode: {entry}}}\n"
    )
    assert in_force(text) == [expected]


def test_rules_are_read_beside_models_yaml(tmp_path: Path) -> None:
    (tmp_path / "rules.txt").write_text("No terraform.\n")
    (tmp_path / "own.txt").write_text("Nothing.\n")
    text = (
        "settings: {auto_mode: {classifier: m, rules: rules.txt}}\nmodels:\n"
        "- {model_id: m, api_base: 'builtin:demo'}\n"
        "- {model_id: n, api_base: 'builtin:demo', auto_mode: {rules: own.txt}}\n"
    )
    assert [each.rules for each in in_force(text, tmp_path)] == ["No terraform.", "Nothing."]


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b"x" * 17_000, 0o644, "at most 16384 bytes"),
        (b"\xff", 0o644, "expected a text in UTF-8"),
        (b"ok", 0o666, "others may change it"),
        (None, 0, "cannot be read (no such file or directory)"),
    ],
)
def test_faulty_rules_are_reported_at_their_place(
    tmp_path: Path, content: bytes | None, mode: int, words: str
) -> None:
    if content is not None:
        (tmp_path / "r").write_bytes(content)
        (tmp_path / "r").chmod(mode)
    with pytest.raises(ConfigError) as caught:
        read(ENTRY + "  \n- {model_id: n, api_base: 'builtin:demo', auto_mode: {rules: r}}\n", tmp_path)
    assert "models.yaml:3:62: models[1].auto_mode.rules: " in caught.value.message
    assert words in caught.value.message
    with pytest.raises(ConfigError) as caught:
        decide_settings({}, {}, {"auto_mode": {"rules": "r"}}, {"auto_mode": "m.yaml:1:2"}, folder=tmp_path)
    assert caught.value.message.startswith("m.yaml:1:2: auto_mode.rules: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "- model_id: m\n  api_base: builtin:demo\n  auto_mode: {classifier: n}\n",
            "models.yaml:3:27: models[0].auto_mode.classifier: no entry serves the model 'n'; known are m",
        ),
        (
            f"settings:\n  auto_mode: {{classifier: n}}\nmodels:\n{ENTRY}",
            "models.yaml:2:27: settings.auto_mode.classifier: no entry serves the model 'n'; known are m",
        ),
        (
            "- model_id: m\n  api_base: builtin:demo\n  auto_mode: {timeout_s: 0}\n",
            "models.yaml:3:26: models[0].auto_mode.timeout_s: expected a number of seconds from 0.1 to 600; got 0",
        ),
        (
            "- model_id: m\n  api_base: builtin:demo\n  auto_mode: {clasifier: m}\n",
            "models.yaml:3:15: models[0].auto_mode.clasifier: unknown key; did you mean 'classifier'?",
        ),
        (
            "- model_id: m\n  api_base: builtin:demo\n  auto_mode: m\n",
            "models.yaml:3:14: models[0].auto_mode: expected a mapping such as {classifier: small-model}; got 'm'",
        ),
    ],
)
def test_faults_have_line_and_column(text: str, expected: str) -> None:
    assert fault(text) == expected


def test_an_alias_may_judge() -> None:
    text = "- {model_id: m, api_base: 'builtin:demo', aliases: ['claude-*'], auto_mode: {classifier: claude-x}}\n"
    assert in_force(text)[0].classifier == "claude-x"


def test_a_classifier_of_the_environment_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(ENTRY)
    environ: dict[str, Any] = {"CLAUDE_PROXY_AUTO_MODE": '{"classifier": "n"}'}
    with pytest.raises(ConfigError) as caught:
        load_settings({}, tmp_path / "models.yaml", environ)
    assert caught.value.message.startswith("CLAUDE_PROXY_AUTO_MODE: auto_mode.classifier: ")
    environ = {"CLAUDE_PROXY_AUTO_MODE": '{"classifier": "m"}'}
    assert load_settings({}, tmp_path / "models.yaml", environ)[1].auto_mode == {"classifier": "m"}

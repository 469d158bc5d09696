"""``images`` of entries and settings: what is in force, and where its faults are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxyd.config.images import Images
from proxyd.config.models import load_text
from proxyd.config.settings_loader import decide_settings
from proxyd.daemon.configuration import checks, load_settings
from proxyd.errors import ConfigError

SEES = "- {model_id: sees, api_base: 'http://localhost:1/v1', vision: true}\n"
BLIND = "- {model_id: blind, api_base: 'http://localhost:2/v1', vision: false}\n"


def in_force(text: str) -> list[Images]:
    config = load_text(text, Path("models.yaml"), {}, checks=checks())
    settings = decide_settings({}, {}, config.settings, config.settings_at, folder=Path())
    return [Images.of(settings.images, route.images) for route in config.table.routes]


@pytest.mark.parametrize(
    ("settings", "entry", "expected"),
    [
        ("{}", "{}", Images()),
        ("{describe_with: sees}", "{}", Images("sees")),
        ("{describe_with: sees, timeout_s: 5}", "{timeout_s: 7}", Images("sees", 7.0)),
        ("{describe_with: sees}", "{describe_with: off}", Images("")),
        ("{describe_with: 'off'}", "{describe_with: sees}", Images("sees")),
    ],
)
def test_an_entry_is_laid_over_the_settings(settings: str, entry: str, expected: Images) -> None:
    text = (
        f"settings: {{images: {settings}}}\nmodels:\n{SEES}"
        f"- {{model_id: m, api_base: 'http://localhost:1', images: {entry}}}\n"
    )
    assert in_force(text)[1] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"{SEES}- model_id: m\n  api_base: http://localhost:1\n  images: {{describe_with: seas}}\n",
            "models.yaml:4:27: models[1].images.describe_with: no entry serves the model 'seas'; did you mean 'sees'?",
        ),
        (
            f"settings:\n  images: {{describe_with: blind}}\nmodels:\n{BLIND}",
            "models.yaml:2:27: settings.images.describe_with: 'blind' is served by the entry 'blind', which sees no "
            "images itself; name one that does, or set vision: true there if it does",
        ),
        (
            "- {model_id: a, api_base: 'http://localhost:1', vision: false, images: {describe_with: b}}\n"
            "- {model_id: b, api_base: 'https://api.deepseek.com/v1', images: {describe_with: a}}\n",
            "models.yaml:1:88: models[0].images.describe_with: 'b' is served by the entry 'b', which sees no images "
            "itself, and would have to be described images in turn; name one that does, or set vision: true there if "
            "it does\n"
            "models.yaml:2:82: models[1].images.describe_with: 'a' is served by the entry 'a', which sees no images "
            "itself, and would have to be described images in turn; name one that does, or set vision: true there if "
            "it does",
        ),
        (
            f"{SEES}- model_id: m\n  api_base: http://localhost:1\n  vision: true\n"
            "  images: {describe_with: sees}\n",
            "models.yaml:5:3: models[1].images: a model with vision: true gets the images themselves; remove one of "
            "the two",
        ),
        (
            "- model_id: m\n  api_base: http://localhost:1\n  direct: true\n  images: {describe_with: m}\n",
            "models.yaml:4:3: models[0].images: means something for a translated entry only, and this one is direct; "
            "remove it; a rule with has_image hands images to another entry",
        ),
        (
            "- model_id: m\n  api_base: http://localhost:1\n  images: {describe: m}\n",
            "models.yaml:3:12: models[0].images.describe: unknown key; did you mean 'describe_with'?",
        ),
    ],
)
def test_faults_have_line_and_column(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        in_force(text)
    assert caught.value.message == expected


def test_a_describer_of_the_environment_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(SEES + BLIND)
    for name, words in (("nobody", "no entry serves"), ("blind", "sees no images itself")):
        environ: dict[str, Any] = {"CLAUDE_PROXY_IMAGES": f'{{"describe_with": "{name}"}}'}
        with pytest.raises(ConfigError) as caught:
            load_settings({}, tmp_path / "models.yaml", environ)
        assert caught.value.message.startswith("CLAUDE_PROXY_IMAGES: images.describe_with: ")
        assert words in caught.value.message
    environ = {"CLAUDE_PROXY_IMAGES": '{"describe_with": "sees"}'}
    assert load_settings({}, tmp_path / "models.yaml", environ)[1].images == {"describe_with": "sees"}

"""Read a models.yaml that a test wrote, and its faults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxyd.config.models import Checks, Config, ModelRoute, load_text
from proxyd.errors import ConfigError
from tests.support.paths import ROOT

_EXAMPLE = (ROOT / "config" / "models.yaml").read_text(encoding="utf-8")
#: The example file with the entries on that are commented out in it: lines of keys below ``models:``.
ALL_EXAMPLES = re.sub(r"^  # (?=- \w+:|  +[\w-]+:)", "  ", _EXAMPLE, flags=re.MULTILINE)

HEAD = "- model_id: m\n  api_base: https://api.example.com/v1\n"

#: Beginning of the fault of a token count.
TOKENS = "expected a token count above 0 such as 8192, 8_192, 8k or 1.5m; got "

#: Checks with invented names, so that no profile is needed here.
CHECKS = Checks(
    providers=("deepseek", "generic"),
    quirk=lambda name, value: None if name == "known" else "unknown quirk; known are known",
    settings=lambda values: {n: ("unknown setting", True) for n in values if n != "port"},
)


def read(text: str, **environ: str) -> Config:
    return load_text(text, Path("models.yaml"), environ, checks=CHECKS)


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return caught.value.message.splitlines()


def only(text: str, **environ: str) -> ModelRoute:
    (route,) = read(text, **environ).table.routes
    return route

"""Reader and writer of catalog.yaml: windows, output limits, prices and abilities of the vendors' current models.

The packaged file is ``config/catalog.yaml``; ``claude-proxy models refresh`` writes a newer one into the state folder,
whose models take precedence. Each model is one line of YAML that is JSON as well, so that reading two hundred of them
takes a millisecond. A model is known for its vendor's own address alone: other hosts serve the same model with other
limits.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxyd import jsonio
from proxyd.config.package_files import find_packaged
from proxyd.config.routes import Pricing
from proxyd.errors import ConfigError

__all__ = ["CATALOG_FILE", "Catalog", "KnownModel", "catalog_text", "load_catalog", "read_catalog"]

CATALOG_FILE = "catalog.yaml"

_LINE = re.compile(r"\s*- (\{.*\})\s*\Z")
_PRICES = ("input", "output", "cache_read", "cache_write")
_FIELDS = {"vendor", "model", "window", "output", "prices", "thinking", "vision", "tools", "source", "date"}

_HEAD = """\
# What is known of the vendors' models: window (the most tokens of a prompt), output (the most tokens of a response),
# prices in USD per million tokens, thinking, vision and tools. source is the page that the vendor's list or the table
# of models cites for the line, else that table itself; date is when the list or table was read. A value that it does
# not have is left out. Written by 'claude-proxy models refresh'; do not edit by hand.
#
# An entry of models.yaml without max_input_tokens gets the window of its model, if the address is the vendor's own.
# 'claude-proxy check' says which values came from here, and warns where an entry disagrees.

models:
"""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """What is known of one model of one vendor; None is unknown.

    Attributes:
        vendor: name of its profile.
        max_input_tokens: the most tokens of a prompt.
        max_tokens: the most tokens of a response.
        source: a URL, or the name of a table and its version.
        date: of the source, ``YYYY-MM-DD``.
    """

    vendor: str
    model: str
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    pricing: Pricing | None = None
    thinking: bool | None = None
    vision: bool | None = None
    tools: bool | None = None
    source: str = ""
    date: str = ""

    @property
    def origin(self) -> str:
        """Where its values came from, for people."""
        return f"{self.source}, {self.date}"


class Catalog:
    """Models by vendor and name; a later one of the same name replaces an earlier one."""

    def __init__(self, models: Iterable[KnownModel] = ()) -> None:
        self._models = {(each.vendor, each.model.lower()): each for each in models}

    def __len__(self) -> int:
        return len(self._models)

    @property
    def models(self) -> tuple[KnownModel, ...]:
        return tuple(self._models.values())

    def find(self, vendor: str, model: str) -> KnownModel | None:
        """Return what is known of a model, by the name of a profile and the vendor's name of the model."""
        return self._models.get((vendor, model.lower()))

    def merged(self, newer: Iterable[KnownModel]) -> Catalog:
        """Return a catalog in which `newer` models replace those of their names."""
        return Catalog((*self.models, *newer))


def load_catalog(state_folder: Path) -> tuple[Catalog, str | None]:
    """Return the packaged catalog with the user's own over it, and the fault of the latter, if it has one."""
    packaged = find_packaged("config", CATALOG_FILE)
    catalog = Catalog() if packaged is None else _read_cached(packaged, _stamp(packaged))
    own = state_folder / CATALOG_FILE
    stamp = _stamp(own)
    if stamp is None:
        return catalog, None
    try:
        return catalog.merged(_read_cached(own, stamp).models), None
    except ConfigError as exc:
        return catalog, f"{exc.message}; run 'claude-proxy models refresh' to write it again"


def read_catalog(path: Path) -> Catalog:
    """Read a catalog.

    Raises:
        ConfigError: it cannot be read, or a line is invalid; the message names file, line and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({(exc.strerror or 'unknown reason').lower()})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected UTF-8") from None
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#") or line.strip() == "models:":
            continue
        try:
            found.append(_read_line(line))
        except ValueError as exc:
            raise ConfigError(f"{path}:{number}: {exc}") from None
    return Catalog(found)


def catalog_text(models: Iterable[KnownModel]) -> str:
    """Return the text of a catalog file, sorted by vendor and model."""
    ordered = sorted(models, key=lambda each: (each.vendor, each.model.lower()))
    return _HEAD + "".join(f"  - {jsonio.dump_text(_as_mapping(each))}\n" for each in ordered)


@functools.lru_cache(maxsize=4)
def _read_cached(path: Path, stamp: tuple[int, int] | None) -> Catalog:
    return read_catalog(path)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _read_line(line: str) -> KnownModel:
    match = _LINE.match(line)
    try:
        values = jsonio.loads(match[1]) if match else None
    except jsonio.JSONError:
        values = None
    if not isinstance(values, dict):
        raise ValueError('expected one model a line: - {"vendor": ..., "model": ..., ...}')
    unknown = values.keys() - _FIELDS
    if unknown:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}; known are {', '.join(sorted(_FIELDS))}")
    for name in ("vendor", "model", "source", "date"):
        if not isinstance(values.get(name), str) or not values[name]:
            raise ValueError(f"{name}: expected a text")
    for name in ("window", "output"):
        value = values.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value <= 0):
            raise ValueError(f"{name}: expected a whole number of tokens above 0")
    for name in ("thinking", "vision", "tools"):
        if not isinstance(values.get(name), (bool, type(None))):
            raise ValueError(f"{name}: expected true or false")
    return KnownModel(
        vendor=values["vendor"],
        model=values["model"],
        max_input_tokens=values.get("window"),
        max_tokens=values.get("output"),
        pricing=_read_prices(values.get("prices")),
        thinking=values.get("thinking"),
        vision=values.get("vision"),
        tools=values.get("tools"),
        source=values["source"],
        date=values["date"],
    )


def _read_prices(value: Any) -> Pricing | None:
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() - set(_PRICES):
        raise ValueError(f"prices: expected a mapping with {', '.join(_PRICES)}")
    for name, price in value.items():
        if not isinstance(price, (int, float)) or isinstance(price, bool) or price < 0:
            raise ValueError(f"prices.{name}: expected USD per million tokens, 0 or more")
    return Pricing(**{name: float(price) for name, price in value.items()})


def _as_mapping(model: KnownModel) -> Mapping[str, Any]:
    prices = {
        name: _short(price) for name in _PRICES if (price := getattr(model.pricing, name, None)) is not None
    }
    values = {
        "vendor": model.vendor,
        "model": model.model,
        "window": model.max_input_tokens,
        "output": model.max_tokens,
        "prices": prices or None,
        "thinking": model.thinking,
        "vision": model.vision,
        "tools": model.tools,
        "source": model.source,
        "date": model.date,
    }
    return {name: value for name, value in values.items() if value is not None}


def _short(price: float) -> float | int:
    return int(price) if price == int(price) else price

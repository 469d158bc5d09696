"""The key and setting ``images``: which entry describes images to models that see none (docs/images.md).

An entry's value is laid over that of the settings, key by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxyd.config.kinds import Kind, Report, identifier, number, table

__all__ = ["IMAGES", "Images", "images_kind"]

#: A small model describes an image in two to ten seconds; a local one may have to be loaded first.
_TIMEOUT_S = 60.0


def _describer() -> Kind:
    expected = "the model_id of an entry that sees images, or off"
    inner = identifier(expected)

    def read(value: Any, report: Report) -> str | None:
        return "" if value is False or value == "off" else inner.read(value, report)

    return Kind(expected, read, {"anyOf": [inner.schema, {"const": False}]})


#: The keys of the mapping.
IMAGES: Mapping[str, tuple[Kind, str]] = {
    "describe_with": (_describer(), "The model_id of the entry that describes images; off for none."),
    "timeout_s": (
        number(0.1, 600, what="a number of seconds"),
        "Seconds that the description of an image may take; 60 if left out.",
    ),
}


def images_kind() -> Kind:
    """Kind of the mapping."""
    return table("a mapping such as {describe_with: vision-model}", IMAGES)


@dataclass(frozen=True, slots=True)
class Images:
    """What is in force for one entry.

    Attributes:
        describe_with: the model that describes images; "" for none.
    """

    describe_with: str = ""
    timeout_s: float = _TIMEOUT_S

    @classmethod
    def of(cls, settings: Mapping[str, Any], entry: Mapping[str, Any]) -> Images:
        """Lay an entry's values over those of the settings."""
        values = {**settings, **entry}
        return cls(values.get("describe_with", ""), values.get("timeout_s", _TIMEOUT_S))

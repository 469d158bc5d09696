"""The key and setting ``auto_mode``: who judges the actions of Claude Code's auto mode (docs/auto-mode.md).

An entry's value is laid over that of the settings, key by key. A direct entry passes its upstream's response on as it
is, unless the entry itself names a classifier.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxyd.config.kinds import Kind, Report, identifier, number, table, text
from proxyd.config.trust import Untrusted, read_trusted

__all__ = ["AUTO_MODE", "AutoMode", "auto_mode_kind", "read_rules"]

#: Below the 35 s after which Claude Code's users give up, and enough for a local model with a long prompt.
_TIMEOUT_S = 20.0
#: Largest file of rules: it is sent with each request to the classifier.
_MAX_RULES_BYTES = 16 * 1024


def _classifier() -> Kind:
    expected = "the model_id of an entry, or off"
    inner = identifier(expected)

    def read(value: Any, report: Report) -> str | None:
        return "" if value is False or value == "off" else inner.read(value, report)

    return Kind(expected, read, {"anyOf": [inner.schema, {"const": False}]})


#: The keys of the mapping.
AUTO_MODE: Mapping[str, tuple[Kind, str]] = {
    "classifier": (_classifier(), "The model_id of the entry that judges actions; off for none."),
    "timeout_s": (number(0.1, 600, what="a number of seconds"), "Seconds that it may take; 20 if left out."),
    "rules": (
        text("the path of a text file"),
        "File with rules to add to the policy, relative to models.yaml.",
    ),
}


def auto_mode_kind() -> Kind:
    """Kind of the mapping."""
    return table("a mapping such as {classifier: small-model}", AUTO_MODE)


@dataclass(frozen=True, slots=True)
class AutoMode:
    """What is in force for one entry.

    Attributes:
        classifier: the model that judges; "" for none.
        rules: text to add to the policy.
    """

    classifier: str = ""
    timeout_s: float = _TIMEOUT_S
    rules: str = ""

    @classmethod
    def of(
        cls,
        settings: Mapping[str, Any],
        settings_rules: str,
        entry: Mapping[str, Any],
        entry_rules: str,
        *,
        is_direct: bool,
    ) -> AutoMode:
        """Lay an entry's values over those of the settings."""
        if is_direct and not entry.get("classifier"):
            return cls()
        values = {**settings, **entry}
        return cls(
            classifier=values.get("classifier", ""),
            timeout_s=values.get("timeout_s", _TIMEOUT_S),
            rules=entry_rules if "rules" in entry else settings_rules,
        )


def read_rules(path: str, folder: Path) -> str:
    """Return the text of a file of rules.

    Raises:
        ValueError: it cannot be read, is too large, or others may change it.
    """
    full = folder / os.path.expanduser(path)
    try:
        data = read_trusted(full, _MAX_RULES_BYTES + 1)
        if len(data) > _MAX_RULES_BYTES:
            raise ValueError(f"expected a text of at most {_MAX_RULES_BYTES} bytes; {full} is larger")
        return data.decode().strip()
    except Untrusted as exc:
        raise ValueError(f"not read, since others may change it: {exc}") from None
    except UnicodeDecodeError:
        raise ValueError(f"expected a text in UTF-8; {full} is none") from None
    except OSError as exc:
        reason = (exc.strerror or "unknown reason").lower()
        raise ValueError(f"{full} cannot be read ({reason}); correct the path") from None

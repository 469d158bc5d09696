"""Several keys for one entry (``api_keys``), and several entries that serve one model (``targets``).

This module defines their values in models.yaml and resolves the keys; `proxyd.proxy.pools` chooses among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from proxyd.config.faults import shown
from proxyd.config.kinds import Kind, Report, identifier, number, secret_text, table
from proxyd.config.secrets import Credential, read_credential
from proxyd.secret import Secret

__all__ = ["BALANCES", "PoolKey", "ResolvedKeys", "Target", "api_keys_kind", "resolve_keys", "targets_kind"]

#: How calls are distributed over targets.
BALANCES = ("weighted", "least_load", "in_order")
#: Entries beyond this are a mistake, and each call looks at all of them.
_MAX_MEMBERS = 100
#: A name that is as long as this and part of the key reveals too much of it.
_MIN_REVEALING_CHARS = 4


@dataclass(frozen=True, slots=True)
class PoolKey:
    """One key of a pool.

    Attributes:
        name: shown in place of the key; never a part of it.
        origin: ``literal``, ``${NAME}``, ``${file:PATH}`` or ``${keyring:NAME}``.
    """

    name: str
    secret: Secret
    origin: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """One of the entries over which the calls for an entry are distributed."""

    use: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ResolvedKeys:
    """The keys of a pool that were found, and what is wrong with the others, by their index in the list.

    Attributes:
        missing: what is missing, as the second half of a sentence.
        open_files: key files that others can read.
        faults: values that are no keys, or stand there twice.
    """

    keys: tuple[PoolKey, ...] = ()
    missing: Mapping[int, str] = field(default_factory=dict)
    open_files: Mapping[int, Path] = field(default_factory=dict)
    faults: Mapping[int, str] = field(default_factory=dict)


_WEIGHT = number(0.001, 1000, what="a weight")
_KEY: Mapping[str, tuple[Kind, str]] = {
    "key": (
        secret_text("a key, ${ENV_NAME}, ${file:PATH} or ${keyring:NAME}"),
        "A literal key, ${ENV_NAME}, ${file:PATH} or ${keyring:NAME}. Required.",
    ),
    "weight": (_WEIGHT, "Share of the sessions that this key gets, relative to the others; 1 if left out."),
    "name": (
        identifier("a short name"),
        "What status, page and metrics call this key; the variable's or file's name if left out.",
    ),
}
_TARGET: Mapping[str, tuple[Kind, str]] = {
    "use": (identifier("the model_id of an entry"), "The model_id of an entry. Required."),
    "weight": (_WEIGHT, "Share of the sessions that this entry gets, relative to the others; 1 if left out."),
}


def api_keys_kind() -> Kind:
    """Kind of a list of keys, each a text or a mapping with weight and name."""
    return _list_of(
        "key",
        secret_text("a key, ${ENV_NAME}, ${file:PATH} or ${keyring:NAME}"),
        _KEY,
        "{key: ${NAME}, weight: 2}",
    )


def targets_kind() -> Kind:
    """Kind of a list of entries, each a model_id or a mapping with its weight."""
    return _list_of("use", identifier("the model_id of an entry"), _TARGET, "{use: other-entry, weight: 2}")


def _list_of(member: str, short_form: Kind, fields: Mapping[str, tuple[Kind, str]], example: str) -> Kind:
    expected = f"a list, each {short_form.expected} or a mapping such as {example}"
    full_form = table(f"a mapping such as {example}", fields)

    def read(value: Any, report: Report) -> tuple[dict[str, Any], ...] | None:
        if not isinstance(value, list) or not 1 <= len(value) <= _MAX_MEMBERS:
            # The value is not shown, since it may be a key.
            seen = f"{len(value)} in a list" if isinstance(value, list) else "no list"
            report((), f"expected {expected}, 1 to {_MAX_MEMBERS} of them; got {seen}", False)
            return None
        found = []
        for index, item in enumerate(value):
            below = _below(report, index)
            if not isinstance(item, dict):
                one = short_form.read(item, below)
                found.append({member: one})
            elif member not in item:
                report((index,), f"{member} is missing; write {example}", False)
            else:
                found.append(full_form.read(item, below) or {})
        return tuple(found)

    one = {"anyOf": [short_form.schema, {**full_form.schema, "required": [member]}]}
    return Kind(expected, read, {"type": "array", "items": one, "minItems": 1, "maxItems": _MAX_MEMBERS})


def _below(report: Report, index: int) -> Report:
    return lambda path, sentence, on_key: report((index, *path), sentence, on_key)


def resolve_keys(
    values: Sequence[Mapping[str, Any]], environ: Mapping[str, str], folder: Path
) -> ResolvedKeys:
    """Resolve valid values of ``api_keys``.

    Args:
        environ, folder: as in `read_credential`.
    """
    credentials: dict[int, Credential] = {}
    missing: dict[int, str] = {}
    faults: dict[int, str] = {}
    for index, value in enumerate(values):
        try:
            credential = read_credential(value["key"], environ, folder)
        except ValueError as exc:
            faults[index] = str(exc)
            continue
        if credential.missing is not None:
            missing[index] = credential.missing
        if any(credential.secret == other.secret for other in credentials.values() if credential.secret):
            faults[index] = "the same key is in this list twice; keep one, with a weight"
        credentials[index] = credential
    names = _names(values, credentials)
    for index, value in enumerate(values):
        wanted = value.get("name")
        if wanted is not None and index in names and wanted != names[index] and index not in faults:
            faults[index] = (
                f"the name {shown(wanted)} is that of another key, or a part of the key; choose another"
            )
    keys = tuple(
        PoolKey(names[index], credential.secret, credential.origin, values[index].get("weight", 1.0))
        for index, credential in credentials.items()
        if credential.secret is not None
    )
    open_files = {index: each.open_file for index, each in credentials.items() if each.open_file is not None}
    return ResolvedKeys(keys, missing, open_files, faults)


def _names(values: Sequence[Mapping[str, Any]], credentials: Mapping[int, Credential]) -> dict[int, str]:
    """Return a name for each key: the one in the file, else that of its variable or file, else its number."""
    found: dict[int, str] = {}
    # Names that were written come first, so that a derived one gives way to them.
    for index, credential in sorted(credentials.items(), key=lambda item: "name" not in values[item[0]]):
        name = values[index].get("name") or _derived_name(credential.origin) or f"key-{index + 1}"
        if _is_revealing(name, credential.secret):
            name = f"key-{index + 1}"
        found[index] = _unused(name, found.values())
    return found


def _derived_name(origin: str) -> str | None:
    if origin == "literal":
        return None
    reference = origin.removeprefix("${").removesuffix("}")
    if reference.startswith("file:"):
        return PurePath(reference.removeprefix("file:").strip()).name
    return reference.removeprefix("keyring:").strip()


def _is_revealing(name: str, secret: Secret | None) -> bool:
    return secret is not None and len(name) >= _MIN_REVEALING_CHARS and name in secret.reveal()


def _unused(name: str, used: Iterable[str]) -> str:
    names, number = set(used), 2
    unique = name
    while unique in names:
        unique, number = f"{name}-{number}", number + 1
    return unique

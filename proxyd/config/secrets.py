"""API keys: a literal, ``${ENV_NAME}``, ``${file:PATH}`` or ``${keyring:NAME}`` (docs/spec/design.md#models-yaml,
docs/spec/operations.md#e7).

A reference is resolved when the configuration is read. An unresolved one is not a fault of the file, because a file
with ten vendors must load where two keys are set: the entry carries the message that its calls get.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proxyd.config.system_keyring import SERVICE, KeyringFailed, read_key
from proxyd.secret import Secret

__all__ = ["Credential", "is_open_to_others", "read_credential"]

_REFERENCE = re.compile(
    r"\$\{(?:file:(?P<file>[^{}]+)|keyring:(?P<keyring>[^{}]+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*))\}"
)
#: Largest key file: keys are some 200 bytes, bearer tokens a few thousand.
_MAX_KEY_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Credential:
    """A configured key, or the reason why there is none.

    Attributes:
        secret: the key; None if it is `missing`.
        origin: its source, for `claude-proxy check`: ``literal``, ``${NAME}``, ``${file:PATH}`` or
            ``${keyring:NAME}``.
        missing: what is missing and what to do, as the second half of a sentence.
        open_file: a key file that its group or others can read.
    """

    secret: Secret | None
    origin: str
    missing: str | None = None
    open_file: Path | None = None

    @property
    def is_of_keyring(self) -> bool:
        return self.origin.startswith("${keyring:")


def read_credential(text: str, environ: Mapping[str, str], folder: Path) -> Credential:
    """Resolve `text` to a key. One of the system's keyring may take seconds (`system_keyring`).

    Args:
        text: a literal key or one reference.
        environ: where names are looked up, before the files in ``$CREDENTIALS_DIRECTORY``, which systemd's
            ``LoadCredential=`` provides.
        folder: base of a relative PATH, the folder of models.yaml.

    Raises:
        ValueError: neither a literal nor a single reference. The message holds no part of `text`.
    """
    match = _REFERENCE.fullmatch(text.strip())
    if match is None:
        if text.lstrip().startswith("$") or "${" in text:
            raise ValueError(
                "expected a literal key, or ${ENV_NAME}, ${file:PATH} or ${keyring:NAME} with nothing around it"
            )
        if not _is_header_safe(text.strip()):
            raise ValueError("expected a key of printable ASCII characters")
        return Credential(Secret(text.strip()), "literal")
    if match["file"] is not None:
        return _from_file(folder / os.path.expanduser(match["file"].strip()), match[0])
    if match["keyring"] is not None:
        return _from_keyring(match["keyring"].strip(), match[0])
    name = match["name"]
    value = environ.get(name, "").strip()
    if value:
        if not _is_header_safe(value):
            return Credential(None, match[0], f"{name} holds characters that no key has; set it anew")
        return Credential(Secret(value), match[0])
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    if credentials and (Path(credentials) / name).is_file():
        return _from_file(Path(credentials) / name, match[0])
    return Credential(
        None,
        match[0],
        f"{name} is not set where claude-proxy runs; run `export {name}=KEY` and start it again, or write {name}=KEY "
        "into the file env beside models.yaml, which is read at once",
    )


def is_open_to_others(path: Path) -> bool:
    """Whether the group or others may read `path`."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False


def _from_file(path: Path, origin: str) -> Credential:
    remedy = "write the key alone into it and reload"
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEY_BYTES + 1)
    except OSError as exc:
        reason = (exc.strerror or "unknown reason").lower()
        return Credential(None, origin, f"the key file {path} cannot be read ({reason}); {remedy}")
    value = data.decode("ascii", "replace").strip()
    if len(data) > _MAX_KEY_BYTES or not value or not _is_header_safe(value):
        return Credential(None, origin, f"the key file {path} holds no key; {remedy}")
    return Credential(Secret(value), origin, open_file=path if is_open_to_others(path) else None)


def _from_keyring(name: str, origin: str) -> Credential:
    try:
        value = read_key(name)
    except KeyringFailed as exc:
        return Credential(None, origin, exc.message)
    if not value or not _is_header_safe(value):
        remedy = f"store it again with `keyring set {SERVICE} {name}`"
        return Credential(None, origin, f"what the system's keyring has as {name} is no key; {remedy}")
    return Credential(Secret(value), origin)


def _is_header_safe(value: str) -> bool:
    """Whether `value` can be sent in a header: a line break would inject another one (docs/spec/operations.md#e9)."""
    return value.isascii() and value.isprintable()

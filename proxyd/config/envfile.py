"""Reader of the file ``env`` beside models.yaml: variables for the daemon that no shell sets
(docs/spec/design.md#files).

The format is a subset of systemd's ``EnvironmentFile``: one ``KEY=value`` a line, ``#`` for comments, quotes around a
value that needs them. The environment itself takes precedence.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path

from proxyd.errors import ConfigError

__all__ = ["ENV_FILE", "fault_of_env_file", "save_variable", "with_env_file"]

ENV_FILE = "env"

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)\Z")


def with_env_file(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of ``folder/env``, overridden by `environ`.

    Raises:
        ConfigError: the file cannot be read, or has an invalid line, whose text is not shown because it may be a key.
    """
    path = folder / ENV_FILE
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return dict(environ)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected UTF-8; save the file as UTF-8") from None
    except IsADirectoryError:
        raise ConfigError(
            f"{path}: expected a file of KEY=value lines, and this is a folder; move it"
        ) from None
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({(exc.strerror or 'unknown reason').lower()})") from None
    found: dict[str, str] = {}
    faults = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        match = _LINE.match(line)
        if match is None:
            faults.append(f"{path}:{number}: expected KEY=value")
            continue
        name, value = match.groups()
        if len(value) >= 2 and value[0] in "'\"" and value[-1] == value[0]:
            value = value[1:-1]
        found[name] = value
    if faults:
        raise ConfigError("\n".join(faults))
    return {**found, **environ}


def fault_of_env_file(folder: Path) -> str | None:
    """Describe the fault when others can read or write the keys in ``folder/env``; None where they cannot."""
    path = folder / ENV_FILE
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        what = "change"
    elif mode & (stat.S_IRGRP | stat.S_IROTH):
        what = "read"
    else:
        return None
    return f"{path}: others can {what} this file; run 'chmod 600 {path}'"


def save_variable(folder: Path, name: str, value: str) -> Path:
    """Set a variable in ``folder/env`` and return the path; other lines are kept, and the mode becomes 0600.

    Raises:
        ConfigError: it cannot be read or written; the old file is unchanged.
    """
    from proxyd.config.edit import save_atomic  # imports a YAML parser, which readers of the file do not need

    path = folder / ENV_FILE
    try:
        text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path}: cannot be read as UTF-8; correct or move it, and try again") from None
    line = f"{name}={value}\n"
    lines = text.splitlines(keepends=True)
    for index, old in enumerate(lines):
        match = _LINE.match(old.strip())
        if match is not None and match[1] == name:
            lines[index] = line
            break
    else:
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        lines.append(line)
    save_atomic(path, "".join(lines), is_private=True)
    return path

"""Write new entries into a models.yaml: the same for ``claude-proxy add`` and for the page."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from proxyd.config.edit import add_entry, save_atomic
from proxyd.config.models import Checks, Config, load_text, read_text
from proxyd.config.routes import ModelRoute
from proxyd.errors import ConfigError
from proxyd.onboarding.entries import Target, build_entry, entry_comment, entry_id
from proxyd.onboarding.model_list import ListedModel

__all__ = ["AlreadyThere", "add_models", "read_models_file", "save_models_file"]

#: The beginning of a new models.yaml.
_HEAD = """\
# The models that claude-proxy offers. 'claude-proxy add' adds one and 'claude-proxy models remove' takes one away;
# 'claude-proxy check' says what is in force. A running daemon takes over each change.

models:
"""


class AlreadyThere(Exception):
    """An entry that exists.

    Attributes:
        message: a sentence.
        model_id: of the entry for the same model, None where only the id is taken.
    """

    def __init__(self, message: str, model_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.model_id = model_id


def read_models_file(path: Path, environ: Mapping[str, str], checks: Checks) -> tuple[str, Config | None]:
    """Return the text and the content; the beginning of a new file and None if there is none yet.

    Raises:
        ConfigError: it cannot be read, or has a fault.
    """
    if path.is_symlink() and not path.exists():
        raise ConfigError(
            f"{path} is a link to {os.path.realpath(path)}, which does not exist; remove the link"
        )
    text = read_text(path) if path.exists() else ""
    if not text.strip():
        return _HEAD, None
    return text, load_text(text, path, environ, checks=checks)


def add_models(
    text: str,
    routes: Sequence[ModelRoute],
    target: Target,
    chosen: Collection[ListedModel],
    key: str | None,
    date: str,
    wanted_id: str | None = None,
) -> tuple[str, list[str]]:
    """Return the new text, and the ids of the new entries.

    Args:
        routes: the entries that are there.
        key: the reference to the key, as the entry has it.
        wanted_id: the id of the new entry, for one model; it may then be a second entry for the same model.

    Raises:
        AlreadyThere: there is such an entry.
        ConfigError: the text cannot be edited.
    """
    taken = {route.model_id for route in routes}
    ids: list[str] = []
    for model in chosen:
        same = next((r for r in routes if (r.api_base, r.model_name) == (target.api_base, model.name)), None)
        if same is not None and wanted_id is None:
            message = f"{model.name} of {target.title} is there already, as {same.model_id}"
            raise AlreadyThere(message, same.model_id)
        model_id = wanted_id or entry_id(target, model.name, taken)
        if model_id in taken:
            raise AlreadyThere(f"there is an entry {model_id!r} already")
        taken.add(model_id)
        ids.append(model_id)
        entry = build_entry(target, model, model_id, key)
        text = add_entry(text, entry, entry_comment(target, model, date))
    return text, ids


def save_models_file(text: str, path: Path, environ: Mapping[str, str], checks: Checks) -> None:
    """Validate the text and replace the file.

    Raises:
        ConfigError: the text has a fault, or the file cannot be written; the old one is unchanged.
    """
    load_text(text, path, environ, checks=checks)
    save_atomic(path, text)

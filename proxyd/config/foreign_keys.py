"""Keys of other programs' configuration that people write into an entry, and the line to write instead."""

from __future__ import annotations

__all__ = ["foreign_key_hint"]

_API_BASE = ("api_base", "write 'api_base: ADDRESS'")
_API_KEY = ("api_key", "write 'api_key: ${NAME}' with the name of the variable that holds the key")
_MODEL = (
    "model_id",
    "write 'model_id: NAME' for what clients ask for, 'model_name: NAME' for the upstream's name",
)

#: foreign key -> (our key, what to write)
_HINTS = {
    "api_key_name": _API_KEY,
    "api_key_env": _API_KEY,
    "apikey": _API_KEY,
    "auth_token": _API_KEY,
    "env_key": _API_KEY,
    "key": _API_KEY,
    "token": _API_KEY,
    "api_url": _API_BASE,
    "base_url": _API_BASE,
    "baseurl": _API_BASE,
    "endpoint": _API_BASE,
    "url": _API_BASE,
    "model": _MODEL,
    "name": _MODEL,
    "id": ("model_id", "write 'model_id: NAME'"),
    "upstream_model": ("model_name", "write 'model_name: NAME'"),
}


def foreign_key_hint(name: str) -> tuple[str, str] | None:
    """Return our key for a foreign one, and the end of a sentence that says what to write; None for other names.

    Values are never repeated: they may be keys.
    """
    return _HINTS.get(name.lower().replace("-", "_"))

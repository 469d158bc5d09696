"""A short hash of a models.yaml, by which people and replicas see whether two daemons run the same one.

It is shown in places that more people read than the file: metrics, the page, the shared database. A plain hash would
let them test guesses at a key that stands in the file: whoever knows the rest of it hashes it with one candidate after
the other. So keys do not go into the hash; files that differ in a key alone have the same one. References such as
``${NAME}`` are no keys and go into it as they are written. Of the SHA-256 12 digits are shown, enough to tell versions
of a file apart, and not meant to prove anything.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from proxyd.redaction import is_credential_name, is_harmless_header, redacted
from proxyd.secret import MASK

__all__ = ["config_hash"]

_DIGITS = 12
_REFERENCE = re.compile(r"\$\{[^{}]*\}\Z")
#: User and password of an address, and its query.
_USER_INFO = re.compile(r"://[^/?#@\s]*@")
_QUERY = re.compile(r"\?.*", re.DOTALL)


def config_hash(content: Any) -> str:
    """Return the hash of a models.yaml.

    Args:
        content: the file as plain data, before references are resolved.
    """
    text = json.dumps(_without_keys(content, is_secret=False), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _without_keys(value: Any, *, is_secret: bool) -> Any:
    if isinstance(value, dict):
        return {name: _member(name, each, is_secret=is_secret) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_keys(each, is_secret=is_secret) for each in value]
    if value is None or isinstance(value, bool) or (isinstance(value, str) and _REFERENCE.match(value)):
        return value
    if is_secret:
        return MASK
    if not isinstance(value, str):
        return value
    if "://" in value:
        value = _QUERY.sub("", _USER_INFO.sub("://", value))
    return redacted(value, ())


def _member(name: str, value: Any, *, is_secret: bool) -> Any:
    if name == "api_keys" and isinstance(value, list):
        # Weights and names of the keys of a pool stand beside them.
        return [_without_keys(each, is_secret=not isinstance(each, dict)) for each in value]
    if name == "extra_headers" and isinstance(value, dict):
        return {
            header: _without_keys(each, is_secret=not is_harmless_header(header.lower()))
            for header, each in value.items()
        }
    is_word = name == "auth" and value in ("token", "keys")
    is_named = name == "store" or (is_credential_name(name) and not is_word)
    return _without_keys(value, is_secret=is_secret or is_named)

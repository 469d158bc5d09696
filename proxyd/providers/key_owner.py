"""Owners of API keys: which vendor issued a credential, and whether the host of a route is that vendor's.

A client's Anthropic credential is sent to Anthropic's hosts only. Claude Code sends the login of claude.ai, or an
Anthropic API key, whenever the user set no key for the vendor that a route leads to.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from proxyd.config.routes import ModelRoute
from proxyd.errors import BadCredential
from proxyd.providers.base import ClientKeys
from proxyd.secret import MASK
from proxyd.urls import host_of

__all__ = ["MisplacedKey", "check_anthropic_credentials", "misplaced_key"]

_ANTHROPIC_PREFIX = "sk-ant-"
_ANTHROPIC_DOMAINS = ("anthropic.com", "claude.ai", "claude.com")

#: Prefix of a vendor's keys, the vendor, and the domains that take them.
_VENDORS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (_ANTHROPIC_PREFIX, "Anthropic", _ANTHROPIC_DOMAINS),
    ("sk-or-", "OpenRouter", ("openrouter.ai",)),
    ("sk-proj-", "OpenAI", ("openai.com",)),
    ("sk-kimi-", "Kimi", ("moonshot.ai", "moonshot.cn", "kimi.com")),
    ("gsk_", "Groq", ("groq.com",)),
    ("xai-", "xAI", ("x.ai",)),
    ("csk-", "Cerebras", ("cerebras.ai",)),
    ("nvapi-", "NVIDIA", ("nvidia.com",)),
    ("pplx-", "Perplexity", ("perplexity.ai",)),
    ("AIza", "Google", ("googleapis.com",)),
    ("hf_", "Hugging Face", ("huggingface.co",)),
    ("github_pat_", "GitHub", ("github.ai", "github.com", "githubcopilot.com")),
    ("ghp_", "GitHub", ("github.ai", "github.com", "githubcopilot.com")),
    ("gho_", "GitHub", ("github.ai", "github.com", "githubcopilot.com")),
)


@dataclass(frozen=True, slots=True)
class MisplacedKey:
    """A key of one vendor that is sent to a host of another.

    Attributes:
        form: the vendor's prefix, followed by a mask.
    """

    vendor: str
    form: str
    host: str


def check_anthropic_credentials(
    route: ModelRoute, keys: ClientKeys, header_values: Iterable[str] = ()
) -> None:
    """Refuse to send a client's Anthropic credential to the host of another vendor.

    Args:
        keys: those that would be sent.
        header_values: values of the client's other headers that would be sent.

    Raises:
        BadCredential: one of them is an Anthropic API key or a login of claude.ai.
    """
    if route.is_demo or route.accepts_anthropic_login or _is_in(route.api_base, _ANTHROPIC_DOMAINS):
        return
    has_login = keys.is_login and keys.any is not None
    values = (*(key.reveal() for key in keys.all), *header_values)
    # One search first: nearly always no header holds one.
    if not has_login and not (
        _ANTHROPIC_PREFIX in "\n".join(values).lower() and any(map(_is_anthropic, values))
    ):
        return
    host = host_of(route.api_base)
    raise BadCredential(
        f"the key of this request is a login of claude.ai or an Anthropic API key, and {host} is not Anthropic's, so "
        f"it was not sent there: set ANTHROPIC_AUTH_TOKEN for Claude Code to a key of {host} (any word where it needs "
        f"none), or give model {route.model_id!r} an api_key in models.yaml, or, if {host} takes Anthropic "
        "credentials, accepts_anthropic_login: true",
        headers={"x-should-retry": "false"},
    )


def misplaced_key(route: ModelRoute, keys: ClientKeys) -> MisplacedKey | None:
    """Return the key that `route` sends to a host of another vendor, as far as its prefix shows the vendor."""
    if route.is_demo or route.missing_key:
        return None
    for key in keys.all if route.api_key is None else (route.api_key,):
        value = key.reveal()
        for prefix, vendor, domains in _VENDORS:
            if not value.startswith(prefix):
                continue
            is_allowed = prefix == _ANTHROPIC_PREFIX and route.accepts_anthropic_login
            if not is_allowed and not _is_in(route.api_base, domains):
                return MisplacedKey(vendor, f"{prefix}{MASK}", host_of(route.api_base))
    return None


def _is_anthropic(value: str) -> bool:
    """Whether a header's value is an Anthropic credential, with or without a scheme in front."""
    return any(word.lower().startswith(_ANTHROPIC_PREFIX) for word in value.replace(",", " ").split())


@functools.lru_cache(maxsize=256)  # all calls of an entry have the same arguments
def _is_in(api_base: str, domains: tuple[str, ...]) -> bool:
    host = (urlsplit(api_base).hostname or "").lower().rstrip(".")
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)

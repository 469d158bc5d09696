"""Table of the keys of a models.yaml entry, from which the reader, `claude-proxy check` and the JSON Schema are built.

Source: docs/spec/design.md#models-yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from proxyd.codecs.formats import FORMATS
from proxyd.config.auto_mode import auto_mode_kind
from proxyd.config.faults import shown
from proxyd.config.images import images_kind
from proxyd.config.kinds import (
    Kind,
    Report,
    boolean,
    choice,
    headers,
    identifier,
    json_mapping,
    names,
    number,
    secret_text,
    table,
    text,
    token_count,
)
from proxyd.config.pools import BALANCES, api_keys_kind, targets_kind
from proxyd.config.route_rules import route_rules_kind
from proxyd.config.web_search import web_search_kind

__all__ = ["APPLICATION_DEFAULT", "DEMO_BASE", "EFFORTS", "ENTRY_KEYS", "TOP_KEYS", "EntryKey"]

#: The embedded upstream (docs/spec/design.md#models-yaml).
DEMO_BASE = "builtin:demo"
#: Value of ``access_token`` for the one that Google's library obtains.
APPLICATION_DEFAULT = "application-default"
#: Values of ``format``; ``openai`` is another name of ``openai-chat``.
FORMAT_NAMES = ("anthropic", "openai", *FORMATS)
#: docs/spec/design.md#effort; ``minimal`` and ``none`` mean no thinking.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
#: The keys of the mapping form of the file.
TOP_KEYS = {
    "settings": "Settings of the daemon.",
    "models": "The entries, in order.",
    "routes": "Rules that hand requests of a class to other entries.",
}

#: Required fields of a Messages request.
_NEEDED_FIELDS = {
    name: f"'{name}' cannot be omitted: no Messages request is valid without it"
    for name in ("model", "messages", "max_tokens")
}
#: Endpoint paths that users paste with the base and that the proxy appends itself.
_ENDPOINTS = ("/chat/completions", "/messages", "/completions", "/responses", "/models")


@dataclass(frozen=True)
class EntryKey:
    """One key of an entry.

    Attributes:
        kind: the values that are valid.
        help: its meaning, for editors and docs.
        mode: ``direct`` or ``translated`` for a key that has no meaning in the other mode, where it is a fault rather
            than ignored.
    """

    kind: Kind
    help: str
    mode: str | None = None


def _api_base() -> Kind:
    expected = f"an http:// or https:// address, or {DEMO_BASE}"

    def read(value: Any, report: Report) -> str | None:
        if value == DEMO_BASE:
            return DEMO_BASE
        if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
            # The value is not shown because a key may be pasted into the wrong line.
            seen = "a text with spaces or special characters" if isinstance(value, str) else shown(value)
            report((), f"expected {expected}; got {seen}", False)
            return None
        try:
            url = urlsplit(value)
            fault = _url_fault(url, url.port)
        except ValueError:
            fault = "expected an address with a valid host and port"
        if fault is not None:
            report((), fault, False)
            return None
        return value if url.query else value.rstrip("/")

    def _url_fault(url: SplitResult, port: int | None) -> str | None:
        if url.scheme.lower() not in ("http", "https"):
            return f"expected {expected}; got one that starts with neither"
        if not url.hostname or port == 0:
            return "expected an address with a host and a port above 0, such as https://api.example.com/v1"
        if url.username is not None or url.password is not None:
            return "credentials do not belong into the address; use api_key"
        if url.fragment:
            return "an address with '#' has a part that is never sent; remove it"
        if url.query and not _is_azure_version(url.query):
            return "expected an address without a query (only Azure's ?api-version= is taken); use extra_body"
        path = url.path.rstrip("/")
        for ending in _ENDPOINTS:
            if path.endswith(ending):
                return f"expected the base, to which the proxy adds the path; remove {ending} at its end"
        return None

    return Kind(
        expected, read, {"type": "string", "pattern": rf"^([hH][tT][tT][pP][sS]?://[^\s@#]+|{DEMO_BASE})$"}
    )


def _is_azure_version(query: str) -> bool:
    return query.startswith("api-version=") and "&" not in query and len(query) > len("api-version=")


def _effort() -> Kind:
    return choice(*EFFORTS)


_SECONDS = number(0.001, 86_400, what="a number of seconds")
_SECONDS_OR_NONE = number(0, 86_400, what="a number of seconds, 0 for no limit,")
_PRICE = number(0, 1_000_000, what="USD per million tokens")

#: Timeouts of an entry; docs/spec/operations.md#b has the defaults.
TIMEOUTS: Mapping[str, tuple[Kind, str]] = {
    "connect_s": (_SECONDS, "Seconds for the connection to the upstream."),
    "first_byte_s": (_SECONDS, "Seconds until the upstream's first byte."),
    "idle_s": (_SECONDS, "Seconds of silence within a stream."),
    "total_s": (_SECONDS_OR_NONE, "Seconds for the whole response; 0 for no limit."),
}
PRICING: Mapping[str, tuple[Kind, str]] = {
    "input": (_PRICE, "Input tokens that no cache served."),
    "output": (_PRICE, "Output tokens, reasoning included."),
    "cache_read": (_PRICE, "Input tokens read from the cache; without it, as input."),
    "cache_write": (_PRICE, "Input tokens written to the cache; without it, as input."),
}

ENTRY_KEYS: Mapping[str, EntryKey] = {
    "model_id": EntryKey(
        identifier("a model id"), "The id that clients request. Required, and unique in the file."
    ),
    "model_name": EntryKey(
        identifier("a model name"), "The upstream's name of the model; model_id if left out."
    ),
    "api_base": EntryKey(
        _api_base(),
        "Base address. Translated: the path of the format is added, such as /chat/completions; direct: /v1/messages (a "
        f"/v1 at the end is not doubled). {DEMO_BASE} is the embedded upstream. Required.",
    ),
    "direct": EntryKey(boolean(), "true: the upstream speaks the Anthropic API, and bytes pass through."),
    "format": EntryKey(
        choice(*FORMAT_NAMES),
        "What the upstream speaks. anthropic: the same as direct: true; openai-chat (or openai): Chat Completions; "
        "openai-responses: OpenAI's Responses API; gemini: Gemini's own API. If left out: what direct says, else what "
        "the model needs (docs/providers.md), else Chat Completions.",
    ),
    "provider": EntryKey(
        text("a provider's name"), "Vendor profile; chosen by the host of api_base if left out."
    ),
    "api_key": EntryKey(
        secret_text("a key, ${ENV_NAME}, ${file:PATH} or ${keyring:NAME}"),
        "A literal key, ${ENV_NAME}, ${file:PATH} or ${keyring:NAME}. Without it the client's key is passed on.",
    ),
    "api_keys": EntryKey(
        api_keys_kind(),
        "Several keys in place of api_key. A session stays with its key while that works; a key that is refused or at "
        "its limit is set aside, and the next one is tried within the same call (docs/keys.md).",
    ),
    "access_token": EntryKey(
        secret_text(f"a token, ${{ENV_NAME}}, ${{file:PATH}}, ${{keyring:NAME}} or {APPLICATION_DEFAULT}"),
        "In place of api_key where the upstream takes an OAuth access token, as Vertex AI does: sent as Authorization: "
        f"Bearer. {APPLICATION_DEFAULT} obtains it from Google's application default credentials and renews it; that "
        "needs the extra vertex (docs/keys.md).",
    ),
    "accepts_anthropic_login": EntryKey(
        boolean(),
        "true: this host, which is not Anthropic's, takes a client's Anthropic key or login of claude.ai, as a gateway "
        "in front of Anthropic does. Else a call with one is refused (docs/keys.md).",
    ),
    "can_stream": EntryKey(
        boolean(),
        "false: the upstream is called without streaming; a streaming client still gets a stream.",
        "translated",
    ),
    "max_tokens": EntryKey(token_count(), "Upper clamp on the request's max_tokens."),
    "max_input_tokens": EntryKey(
        token_count(), "The model's window; a request that is surely larger is refused before it is sent."
    ),
    "context": EntryKey(token_count(), "Another name of max_input_tokens."),
    "temperature": EntryKey(number(0, 2), "Overrides the request's temperature."),
    "top_p": EntryKey(number(0, 1), "Overrides the request's top_p."),
    "reasoning_effort": EntryKey(
        _effort(), "Overrides how much the model thinks; minimal and none mean no thinking.", "translated"
    ),
    "extra_body": EntryKey(
        json_mapping("a mapping of body fields"),
        "Deep-merged into the upstream body; overrides everything else.",
    ),
    "extra_headers": EntryKey(
        headers(), "Added to the upstream request's headers; overrides everything else."
    ),
    "aliases": EntryKey(
        names("a model id or a glob"), "Further ids or globs (claude-haiku-*) that select this entry."
    ),
    "fallback": EntryKey(
        names("the model_id of another entry"),
        "Entries tried in order when this one is unreachable, overloaded, out of quota or rate limited.",
    ),
    "targets": EntryKey(
        targets_kind(),
        "Entries that serve the same model: calls are distributed over this entry and these. A session stays where it "
        "is while that works (docs/routes.md).",
    ),
    "balance": EntryKey(
        choice(*BALANCES),
        "How sessions are distributed over targets: weighted (the default) by weight, least_load to the one with the "
        "fewest calls in flight, in_order to the first one that works.",
    ),
    "pricing": EntryKey(table("a mapping of prices", PRICING), "USD per million tokens."),
    "vision": EntryKey(
        boolean(), "Whether the model takes images; from the profile if left out.", "translated"
    ),
    "images": EntryKey(
        images_kind(),
        "Which entry describes images to this model, if it sees none, over the setting of that name (docs/images.md).",
        "translated",
    ),
    "timeouts": EntryKey(table("a mapping of timeouts", TIMEOUTS), "Timeouts of this entry, in seconds."),
    "quirks": EntryKey(
        json_mapping("a mapping of quirks"),
        "Single switches of the vendor profile, overridden.",
        "translated",
    ),
    "omit": EntryKey(
        names("a top-level request field", refused=_NEEDED_FIELDS),
        "Top-level request fields which the upstream does not take; cut out of a direct request.",
        "direct",
    ),
    "routes": EntryKey(
        route_rules_kind(),
        "Rules that hand requests for this entry to others, before those of the file (docs/routes.md).",
    ),
    "auto_mode": EntryKey(
        auto_mode_kind(),
        "Who judges the actions of Claude Code's auto mode on this entry, over the setting of that name "
        "(docs/auto-mode.md).",
    ),
    "web_search": EntryKey(
        web_search_kind(),
        "Which search engine answers Claude Code's WebSearch on this entry, over the setting of that name "
        "(docs/web-search.md).",
    ),
    "hooks": EntryKey(
        names("the name of a hook file"),
        "Hooks that run for this entry; all of them if left out, none for [].",
    ),
}

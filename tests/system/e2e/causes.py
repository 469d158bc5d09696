"""The causes of docs/troubleshooting.md, as data: what is in models.yaml, what the upstream responds, what is shown."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.certificates import make_certificate, server_context
from tests.support.harness import running_upstream

__all__ = ["CAUSES", "MODEL", "Cause", "Servers", "running_servers"]

#: The id of the entry that a session uses.
MODEL = "scripted"


@dataclass(frozen=True)
class Cause:
    """One row of docs/troubleshooting.md.

    Attributes:
        title: as in the table of times there.
        shown: parts of the message that Claude Code shows. ``{base}`` is the address of the upstream, ``{tls_base}``
            the same with ``https``, ``{untrusted_base}`` that of a server whose certificate nobody vouches for.
        response: of the upstream, to every request; None where it is not reached.
        path: of ``api_base``.
        entry: further keys of the entry in models.yaml; None for no entry.
    """

    title: str
    shown: tuple[str, ...]
    response: Mapping[str, Any] | None = None
    path: str = "/v1"
    entry: Mapping[str, Any] | None = field(default_factory=dict)


def _json(status: int, text: str, **headers: str) -> dict[str, Any]:
    return {"status": status, "text": text, "content_type": "application/json", "headers": headers}


_PAGE = {"status": 200, "text": "<html>Please log in</html>", "content_type": "text/html"}
_ELSEWHERE = "https://elsewhere.invalid/v1/chat/completions"

CAUSES: dict[str, Cause] = {
    "unset_key": Cause(
        "the variable of a key is not set",
        ("NO_SUCH_KEY is not set", "export NO_SUCH_KEY=KEY"),
        entry={"api_base": "https://upstream.invalid/v1", "api_key": "${NO_SUCH_KEY}"},
    ),
    "wrong_key": Cause(
        "the vendor refuses the key",
        ("Incorrect API key provided.", "{base}/v1/chat/completions answered 401"),
        _json(401, '{"error":{"message":"Incorrect API key provided.","code":"invalid_api_key"}}'),
    ),
    "no_permission": Cause(
        "the key may not use the model",
        ("Your plan does not include this.", "{base}/v1/chat/completions answered 403"),
        _json(403, '{"error":{"message":"Your plan does not include this.","code":"no_access"}}'),
    ),
    "no_credit": Cause(
        "no credit",
        ("Insufficient Balance", "{base}/v1/chat/completions answered 402"),
        _json(402, '{"error":{"message":"Insufficient Balance","code":"invalid_request_error"}}'),
    ),
    "model_not_in_models_yaml": Cause(
        "the model is not in models.yaml",
        (f"'{MODEL}' is not in models.yaml; known models: ",),
        entry=None,
    ),
    "model_unknown_to_the_upstream": Cause(
        "the vendor does not have the model",
        ("The model `x` does not exist",),
        _json(404, '{"error":{"message":"The model `x` does not exist","code":"model_not_found"}}'),
    ),
    "base_without_v1": Cause(
        "`api_base` without its `/v1`",
        ("{base}/chat/completions answered 404", "it usually ends in /v1"),
        {"status": 404, "text": "404 page not found"},
        path="",
    ),
    "wrong_path": Cause(
        "another wrong path",
        ("{base}/v1beta/chat/completions answered 404", "there is no such path; correct api_base"),
        _json(404, '{"detail":"Not Found"}'),
        path="/v1beta",
    ),
    "page": Cause(
        "`api_base` leads to a web page",
        ("{base}/v1/chat/completions answered with a page", "correct api_base"),
        _PAGE,
    ),
    "redirect": Cause(
        "`api_base` redirects",
        (f"redirect (308) to {_ELSEWHERE}", "correct api_base"),
        {"status": 308, "headers": {"location": _ELSEWHERE}},
    ),
    "direct_to_openai": Cause(
        "`direct: true`, but the server speaks OpenAI's API",
        ("{base}/v1/messages", "leave `direct` out"),
        _json(404, '{"error":{"message":"Invalid URL (POST /v1/messages)","type":"invalid_request_error"}}'),
        entry={"direct": True},
    ),
    "missing_direct": Cause(
        "no `direct`, but the server speaks Anthropic's API",
        ("{base}/anthropic/chat/completions", "set `direct: true`"),
        _json(404, '{"type":"error","error":{"type":"not_found_error","message":"Not found"}}'),
        path="/anthropic",
    ),
    "server_does_not_run": Cause(
        "a local server does not run",
        ("could not connect to http://127.0.0.1:1/v1/chat/completions", "start it"),
        entry={"api_base": "http://127.0.0.1:1/v1"},
    ),
    "unknown_host": Cause(
        "a name that does not exist",
        (
            "the name of upstream.invalid could not be resolved (https://upstream.invalid/v1/chat/completions)",
        ),
        entry={"api_base": "https://upstream.invalid/v1"},
    ),
    "no_tls": Cause(
        "`https` for a server that speaks `http`",
        ("could not connect to {tls_base}/v1/chat/completions", "write http:// in place of https://"),
        _PAGE,
        entry={"api_base": "{tls_base}/v1"},
    ),
    "certificate": Cause(
        "a certificate that cannot be verified",
        ("{untrusted_base}/v1/chat/completions could not be verified", "set ca_file"),
        _PAGE,
        entry={"api_base": "{untrusted_base}/v1"},
    ),
    "content_filter": Cause(
        "the vendor's content filter",
        ("Output blocked by content filtering policy: The response was filtered.",),
        _json(400, '{"error":{"message":"The response was filtered.","code":"content_filter"}}'),
    ),
    "quota_of_hours": Cause(
        "a quota that resets in hours",
        ("Daily quota spent.",),
        _json(429, '{"error":{"message":"Daily quota spent."}}', **{"retry-after": "7200"}),
    ),
}


@dataclass(frozen=True)
class Servers:
    """The upstreams of all causes.

    Attributes:
        base: of the server that speaks HTTP.
        untrusted_base: of the one that speaks TLS, with a certificate that nobody vouches for.
    """

    base: str
    untrusted_base: str

    def entries_of(self, name: str) -> list[dict[str, Any]]:
        """Return models.yaml for a cause, with a second entry that is called like the cause."""
        cause = CAUSES[name]
        entry = {"model_id": MODEL, "api_base": f"{{base}}{cause.path}", **(cause.entry or {})}
        entry["api_base"] = self._filled(entry["api_base"], name)
        other = {"model_id": f"demo-{name}", "api_base": "builtin:demo"}
        return [other] if cause.entry is None else [entry, other]

    def shown_by(self, name: str) -> list[str]:
        """Return the parts of the message that Claude Code shows."""
        return [self._filled(part, name) for part in CAUSES[name].shown]

    def _filled(self, text: str, name: str) -> str:
        base = f"{self.base}/{name}"
        text = text.replace("{untrusted_base}", f"{self.untrusted_base}/{name}")
        return text.replace("{base}", base).replace("{tls_base}", base.replace("http:", "https:"))


@asynccontextmanager
async def running_servers() -> AsyncIterator[Servers]:
    """Serve the responses of all causes."""
    with tempfile.TemporaryDirectory() as folder:
        tls = server_context(*make_certificate(Path(folder)))
        async with running_upstream(_respond) as plain, running_upstream(_respond, tls) as untrusted:
            yield Servers(plain.base, untrusted.base)


async def _respond(request: web.Request) -> web.StreamResponse:
    """Respond as the cause says whose name the path begins with."""
    response = CAUSES[request.path.split("/")[1]].response
    return web.Response(status=500) if response is None else web.Response(**response)

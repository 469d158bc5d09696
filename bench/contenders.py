"""The contenders and their start commands: the proxy in its variants, the baselines, LiteLLM."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.traffic import PACED, RESPONSES

__all__ = [
    "BASELINES", "FORMATS", "OURS", "PEERS", "TLS", "VARIANTS", "Contender", "Launch", "with_tls", "with_workers",
]  # fmt: skip

_ROOT = Path(__file__).resolve().parents[1]
#: Rates of paced streams, in chunks a second, that the scenarios use.
RATES = (4, 50)
MODELS = (*RESPONSES, *(f"{PACED}-{rate}" for rate in RATES))


@dataclass(frozen=True)
class Launch:
    """Command and environment of one contender."""

    command: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Contender:
    """A proxy that is measured.

    Attributes:
        start: (folder for its files, its port, the upstream's port) -> its command.
        start_s: timeout of its start.
        missing: returns why it cannot be run here, or None.
        headers: that its requests have besides those of Claude Code.
    """

    name: str
    start: Callable[[Path, int, int], Launch]
    start_s: float = 20.0
    missing: Callable[[], str | None] = field(default=lambda: None)
    headers: Mapping[str, str] = field(default_factory=dict)


def _environment(folder: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(folder),
        "PYTHONPATH": str(_ROOT),
        **more,
    }


@dataclass(frozen=True)
class TLS:
    """A port of the upstream where it speaks TLS, and the certificate there."""

    port: int
    certificate: Path


def _base(upstream_port: int, tls: TLS | None) -> str:
    return f"http://127.0.0.1:{upstream_port}" if tls is None else f"https://localhost:{tls.port}"


def _proxy(
    *,
    translated: bool,
    chosen: str | None = None,
    settings: Mapping[str, Any] | None = None,
    hook: str | None = None,
    tls: TLS | None = None,
    api_key: str | None = None,
) -> Callable[[Path, int, int], Launch]:
    def start(folder: Path, port: int, upstream_port: int) -> Launch:
        base = _base(upstream_port, tls)
        entries = [
            {
                "model_id": f"bench-{name}",
                "api_base": f"{base}/v1" if translated else base,
                "direct": not translated,
                **({} if chosen is None else {"format": chosen}),
                **({} if api_key is None else {"api_key": api_key, "pricing": {"input": 1.0, "output": 1.0}}),
            }
            for name in MODELS
        ]
        own = {"max_streams": 4096, **(settings or {})}
        if tls is not None:
            own["ca_file"] = str(tls.certificate)
        config = {"settings": own, "models": entries}
        models = folder / "models.yaml"
        models.write_text(json.dumps(config))  # JSON is YAML
        if hook is not None:
            (folder / "hooks").mkdir()
            (folder / "hooks" / "bench.py").write_text(hook)
        command = (sys.executable, "-m", "proxyd", "--port", str(port), "--models", str(models))
        return Launch(command, _environment(folder, XDG_STATE_HOME=str(folder / "state")))

    return start


def _python(module: str) -> Callable[[Path, int, int], Launch]:
    def start(folder: Path, port: int, upstream_port: int) -> Launch:
        return Launch((sys.executable, "-m", module, str(port), str(upstream_port)), _environment(folder))

    return start


_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 4m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream bench {{ server 127.0.0.1:{upstream_port}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://bench; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""


def _nginx(folder: Path, port: int, upstream_port: int) -> Launch:
    path = folder / "nginx.conf"
    path.write_text(_NGINX.format(folder=folder, port=port, upstream_port=upstream_port))
    nginx = shutil.which("nginx")
    assert nginx is not None, "missing() was called before"
    return Launch((nginx, "-p", str(folder), "-c", str(path)), _environment(folder))


def _missing_litellm() -> str | None:
    return None if _litellm_binary().exists() else "LiteLLM is not installed: make bench-peers does it"


def _litellm_binary() -> Path:
    return Path(os.environ.get("BENCH_PEERS", _ROOT / ".bench-peers")) / "bin" / "litellm"


def _litellm(*, translated: bool, tls: TLS | None = None) -> Callable[[Path, int, int], Launch]:
    def start(folder: Path, port: int, upstream_port: int) -> Launch:
        base = _base(upstream_port, tls)
        if translated:
            provider, base = "hosted_vllm", f"{base}/v1"
        else:
            provider = "anthropic"
        entries = [
            {
                "model_name": f"bench-{name}",
                "litellm_params": {"model": f"{provider}/bench-{name}", "api_base": base, "api_key": "bench"},
            }
            for name in MODELS
        ]
        path = folder / "config.yaml"
        path.write_text(json.dumps({"model_list": entries, "litellm_settings": {"telemetry": False}}))
        command = (
            *(str(_litellm_binary()), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)),
            *("--num_workers", "1", "--telemetry", "False"),
        )
        environment = _environment(
            folder,
            LITELLM_LOCAL_MODEL_COST_MAP="True",
            LITELLM_LOG="ERROR",
            LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY="true",  # on loopback, for minutes
            **({} if tls is None else {"SSL_CERT_FILE": str(tls.certificate)}),
        )
        return Launch(command, environment)

    return start


#: Returns each event unchanged: measures the call of a hook.
_IDENTITY_HOOK = '''"""Changes nothing."""


def stream_event_hook(event, ctx):
    return event
'''

OURS = (
    Contender("translated", _proxy(translated=True)),
    Contender("direct", _proxy(translated=False)),
)
#: Translated, to upstreams of the other protocols.
FORMATS = (
    Contender("responses", _proxy(translated=True, chosen="openai-responses")),
    Contender("gemini", _proxy(translated=True, chosen="gemini")),
)


def with_tls(tls: TLS) -> tuple[tuple[Contender, ...], tuple[Contender, ...]]:
    """Return ours and the peers in front of an upstream that speaks TLS."""
    ours = tuple(
        Contender(f"{name} TLS", _proxy(translated=name == "translated", tls=tls))
        for name in ("translated", "direct")
    )
    peers = tuple(
        Contender(
            f"LiteLLM {name} TLS",
            _litellm(translated=name == "translated", tls=tls),
            start_s=120,
            missing=_missing_litellm,
        )
        for name in ("translated", "direct")
    )
    return ours, peers


VARIANTS = (
    Contender(
        "translated records",
        _proxy(translated=True, settings={"record": "all", "record_bodies": True}),
    ),
    Contender("translated hook", _proxy(translated=True, hook=_IDENTITY_HOOK)),
)
BASELINES = (
    Contender("raw relay", _python("bench.raw_relay")),
    Contender(
        "nginx",
        _nginx,
        missing=lambda: None if shutil.which("nginx") else "nginx is not installed",
    ),
    Contender("pass-through", _python("bench.passthrough")),
)
PEERS = (
    Contender(
        "LiteLLM translated",
        _litellm(translated=True),
        start_s=120,
        missing=_missing_litellm,
    ),
    Contender(
        "LiteLLM direct",
        _litellm(translated=False),
        start_s=120,
        missing=_missing_litellm,
    ),
)


def with_keys(name: str, secret: str, settings: Mapping[str, Any]) -> Contender:
    """Return the translated route with a key and prices in the configuration; calls have the virtual key `secret`."""
    start = _proxy(translated=True, settings=settings, api_key="sk-of-the-upstream")
    return Contender(name, start, headers={"x-api-key": secret})


def with_workers(count: int) -> Contender:
    """Return the translated route with so many workers."""
    return Contender(f"{count} workers", _proxy(translated=True, settings={"workers": count}))

"""Find model servers on this machine by their usual ports, with their models and windows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from proxyd.onboarding.fetching import FetchFailed, fetch_json
from proxyd.onboarding.model_list import ListedModel, ollama_model, read_models, with_llamacpp_props
from proxyd.onboarding.vendors import LOCAL_SERVERS
from proxyd.providers.registry import PROFILES

__all__ = ["LocalServer", "find_local_servers", "inspect_server"]

#: A server on this machine answers within milliseconds, unless it loads a model.
_TIMEOUT_S = 3.0
#: Models of Ollama whose details are read; each is one request.
_MAX_SHOWN = 100


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server.

    Attributes:
        profile: name of its profile; ``generic`` for one that is not known.
        origin: scheme, host and port.
    """

    profile: str
    origin: str
    models: tuple[ListedModel, ...]

    @property
    def title(self) -> str:
        return PROFILES[self.profile].title if self.profile != "generic" else "OpenAI-compatible server"

    @property
    def api_base(self) -> str:
        return f"{self.origin}/v1"


async def find_local_servers(session: aiohttp.ClientSession, ports: Iterable[int] = ()) -> list[LocalServer]:
    """Return the servers on 127.0.0.1 that have a list of models.

    Args:
        ports: where they are looked for; their usual ports if left out.
    """
    wanted = tuple(ports) or tuple(kind.port for kind in LOCAL_SERVERS)
    origins = [f"http://127.0.0.1:{port}" for port in wanted if await _listens(port)]
    found = await asyncio.gather(*(inspect_server(session, origin) for origin in origins))
    return [server for server in found if server is not None]


async def inspect_server(session: aiohttp.ClientSession, origin: str, key: str = "") -> LocalServer | None:
    """Return the server at `origin` by what its own endpoints say; None if it has no list of models."""
    headers = {"authorization": f"Bearer {key}"} if key else {}

    async def get(path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            return await fetch_json(session, origin + path, headers=headers, body=body, timeout_s=_TIMEOUT_S)
        except FetchFailed:
            return None

    tags = await get("/api/tags")
    if isinstance(tags, dict) and isinstance(tags.get("models"), list):
        models = await _ollama_models(tags["models"], await get("/api/ps"), get)
        return LocalServer("ollama", origin, tuple(models))
    own = await get("/api/v0/models")
    if isinstance(own, dict) and isinstance(own.get("data"), list):
        return LocalServer("lmstudio", origin, tuple(_lmstudio_models(own)))
    listed = await get("/v1/models")
    try:
        found = read_models(listed)
    except ValueError:
        return None
    owner = _owner(listed)
    if owner in ("vllm", "sglang"):
        return LocalServer(owner, origin, tuple(found))
    props = await get("/props")
    if owner == "llamacpp" or (isinstance(props, dict) and "default_generation_settings" in props):
        return LocalServer("llamacpp", origin, tuple(with_llamacpp_props(each, props) for each in found))
    return LocalServer("generic", origin, tuple(found))


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), _TIMEOUT_S)
    except (OSError, asyncio.TimeoutError):
        return False
    writer.close()
    return True


async def _ollama_models(tags: list[Any], running: Any, get: Any) -> list[ListedModel]:
    names = [tag["name"] for tag in tags if isinstance(tag, dict) and isinstance(tag.get("name"), str)]
    loaded: dict[str, int] = {}
    if isinstance(running, dict) and isinstance(running.get("models"), list):
        for each in running["models"]:
            if isinstance(each, dict) and isinstance(each.get("context_length"), int):
                loaded[str(each.get("name"))] = each["context_length"]
    shown = await asyncio.gather(*(get("/api/show", {"model": name}) for name in names[:_MAX_SHOWN]))
    found = [ollama_model(name, show, loaded) for name, show in zip(names, shown, strict=False)]
    return [model for model in found if model is not None]


def _lmstudio_models(payload: dict[str, Any]) -> list[ListedModel]:
    """Return the models of LM Studio; that of one which is not loaded has no window yet, only a largest one."""
    try:
        models = read_models(payload)
    except ValueError:
        return []
    loaded = {
        str(each.get("id"))
        for each in payload["data"]
        if isinstance(each, dict) and isinstance(each.get("loaded_context_length"), int)
    }
    return [
        each
        if each.name in loaded
        else replace(each, max_input_tokens=None, largest_window=each.max_input_tokens)
        for each in models
    ]


def _owner(payload: Any) -> str:
    items = payload.get("data") if isinstance(payload, dict) else None
    first = items[0] if isinstance(items, list) and items else None
    return str(first.get("owned_by", "")).lower() if isinstance(first, dict) else ""

"""Servers on this machine are recognised by the responses of their own endpoints."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from proxyd.onboarding.fetching import http_session
from proxyd.onboarding.local_servers import find_local_servers, inspect_server
from proxyd.onboarding.model_list import ListedModel
from tests.support.model_servers import LLAMACPP, LMSTUDIO, OLLAMA, SGLANG, VLLM, ModelServer, serving


@pytest.mark.parametrize(
    ("documents", "profile", "models"),
    [
        (
            OLLAMA,
            "ollama",
            [ListedModel("qwen3-coder:30b", 65_536, 262_144, thinking=False, vision=False, tools=True)],
        ),
        (
            LMSTUDIO,
            "lmstudio",
            [
                ListedModel("qwen3", 32_768, None, vision=False, tools=True),
                ListedModel("gemma", None, 131_072, vision=True),
            ],
        ),
        (LLAMACPP, "llamacpp", [ListedModel("model.gguf", 16_384, vision=False)]),
        (VLLM, "vllm", [ListedModel("Qwen/Qwen3", 40_960)]),
        (SGLANG, "sglang", [ListedModel("Qwen/Qwen3", 32_768)]),
        ({"/v1/models": {"data": [{"id": "m"}]}}, "generic", [ListedModel("m")]),
    ],
)
async def test_kind_models_and_windows(documents: Any, profile: str, models: list[ListedModel]) -> None:
    async with serving(ModelServer(documents)) as server, http_session() as session:
        found = await inspect_server(session, server.base)
    assert found is not None
    assert (found.profile, list(found.models)) == (profile, models)
    assert found.api_base == f"{server.base}/v1"


@pytest.mark.parametrize(
    "documents", [{}, {"/v1/models": (200, "text/html", b"<html>")}, {"/v1/models": {"data": []}}]
)
async def test_what_is_no_model_server(documents: Any) -> None:
    async with serving(ModelServer(documents)) as server, http_session() as session:
        assert await inspect_server(session, server.base) is None


async def test_only_ports_on_which_something_listens_are_asked() -> None:
    async with (
        serving(ModelServer(VLLM)) as vllm,
        serving(ModelServer({})) as other,
        http_session() as session,
    ):
        ports = [urlsplit(each.base).port or 0 for each in (vllm, other)]
        found = await find_local_servers(session, [*ports, 1])
    assert [each.title for each in found] == ["vLLM"]

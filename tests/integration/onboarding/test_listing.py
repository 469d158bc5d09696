"""The lists of hosted vendors: pages, and the header of the key."""

from __future__ import annotations

import pytest

from proxyd.onboarding.fetching import FetchFailed, http_session
from proxyd.onboarding.listing import fetch_models
from proxyd.secret import Secret
from tests.support.model_servers import ModelServer, serving


async def names(server: ModelServer, key: str = "") -> list[str]:
    async with http_session() as session:
        secret = Secret(key) if key else None
        return [each.name for each in await fetch_models(session, f"{server.base}/models", "openai", secret)]


async def test_all_pages_are_read() -> None:
    documents = {
        "/models": {"data": [{"id": "a"}], "links": {"next": "/models?offset=1"}},
        "/models?offset=1": {"data": [{"id": "b"}], "links": {"next": None}},
    }
    async with serving(ModelServer(documents)) as server:
        assert await names(server) == ["a", "b"]


async def test_a_page_of_another_host_is_not_called() -> None:
    documents = {"/models": {"data": [{"id": "a"}], "links": {"next": "https://elsewhere.invalid/models"}}}
    async with serving(ModelServer(documents)) as server:
        assert await names(server) == ["a"]


async def test_a_list_that_leads_to_itself_ends() -> None:
    documents = {"/models": {"data": [{"id": "a"}], "links": {"next": "/models"}}}
    async with serving(ModelServer(documents)) as server:
        assert await names(server) == ["a"]
        assert len(server.asked) == 20


async def test_the_key_goes_as_the_vendor_wants_it() -> None:
    async with serving(ModelServer({"/models": {"data": [{"id": "a"}]}}, key="secret-key")) as server:
        assert await names(server, "secret-key") == ["a"]
        with pytest.raises(FetchFailed, match="the key was refused"):
            await names(server, "another-key")


async def test_geminis_own_list_has_a_header_and_pages_of_its_own() -> None:
    methods = {"supportedGenerationMethods": ["generateContent", "countTokens"]}
    documents = {
        "/models?pageSize=1000": {"models": [{"name": "models/a", **methods}], "nextPageToken": "xy"},
        "/models?pageSize=1000&pageToken=xy": {
            "models": [
                {"name": "models/b", "inputTokenLimit": 1_048_576, "thinking": True, **methods},
                {"name": "models/c", "supportedGenerationMethods": ["predict"]},
            ]
        },
    }
    served = ModelServer(documents, key="secret-key", key_header="x-goog-api-key")
    async with serving(served) as server, http_session() as session:
        url = f"{server.base}/models?pageSize=1000"
        found = await fetch_models(session, url, "gemini", Secret("secret-key"), "gemini")
    assert [(each.name, each.max_input_tokens, each.thinking) for each in found] == [
        ("a", None, None),
        ("b", 1_048_576, True),
    ]


async def test_an_empty_list() -> None:
    async with serving(ModelServer({"/models": {"data": []}})) as server:
        with pytest.raises(FetchFailed, match=r"/models: the list is empty"):
            await names(server)


async def test_a_refusal_that_repeats_a_key_of_no_known_form_is_masked() -> None:
    key = "0fed-odd-key.without-a-form"
    refusal = (401, "application/json", f'{{"error": {{"message": "no such key: {key}"}}}}'.encode())
    async with serving(ModelServer({"/models": refusal})) as server:
        with pytest.raises(FetchFailed) as caught:
            await names(server, key)
    assert "no such key: ***" in caught.value.message
    assert key not in caught.value.message

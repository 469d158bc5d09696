"""Which credentials are refused, and which are recognised as another vendor's."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.config.routes import ModelRoute
from proxyd.errors import BadCredential
from proxyd.providers.base import ClientKeys
from proxyd.providers.key_owner import check_anthropic_credentials, misplaced_key
from proxyd.secret import Secret

LOGIN = "sk-" + "ant-" + "x" * 20


def route(api_base: str = "https://api.moonshot.ai/anthropic", **more: Any) -> ModelRoute:
    return ModelRoute(model_id="m", model_name="m", api_base=api_base, **more)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {LOGIN}"},
        {"x-api-key": LOGIN},
        {"x-api-key": LOGIN.upper()},
        {"authorization": "Bearer other", "anthropic-beta": "a, oauth-2025-04-20"},
    ],
)
def test_anthropic_credentials_are_for_anthropic(headers: dict[str, str]) -> None:
    keys = ClientKeys.from_headers(headers)
    for base in (
        "https://api.moonshot.ai/v1",
        "http://127.0.0.1:11434/v1",
        "https://api.anthropic.com.evil.example",
    ):
        with pytest.raises(BadCredential, match="set ANTHROPIC_AUTH_TOKEN") as caught:
            check_anthropic_credentials(route(base), keys)
        assert LOGIN.lower() not in caught.value.message.lower()
        check_anthropic_credentials(route(base, accepts_anthropic_login=True), keys)
    for base in ("https://api.anthropic.com", "https://API.Anthropic.com:443/v1", "builtin:demo"):
        check_anthropic_credentials(route(base), keys)


def test_other_headers_are_checked_and_other_keys_pass() -> None:
    keys = ClientKeys.from_headers({"x-api-key": "key-of-moonshot"})
    check_anthropic_credentials(route(), keys, ["text/plain", "not-sk-ant"])
    with pytest.raises(BadCredential):
        check_anthropic_credentials(route(), keys, [f"Basic {LOGIN}"])
    check_anthropic_credentials(route(), ClientKeys.from_headers({"anthropic-beta": "oauth-1"}))


@pytest.mark.parametrize(
    ("key", "base", "vendor"),
    [
        ("gs" + "k_abc", "https://api.moonshot.ai/v1", "Groq"),
        ("gs" + "k_abc", "https://api.groq.com/openai/v1", None),
        ("sk-" + "or-abc", "https://api.openai.com/v1", "OpenRouter"),
        ("sk-abc", "https://api.openai.com/v1", None),
        ("plain", "https://api.openai.com/v1", None),
    ],
)
def test_misplaced_key(key: str, base: str, vendor: str | None) -> None:
    for found in (
        misplaced_key(route(base), ClientKeys(api_key=Secret(key))),
        misplaced_key(route(base, api_key=Secret(key)), ClientKeys()),
    ):
        assert (found.vendor if found else None) == vendor
        assert found is None or "abc" not in repr(found)
    assert misplaced_key(route(base, missing_key="none"), ClientKeys(api_key=Secret(key))) is None

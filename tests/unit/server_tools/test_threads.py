"""`thread` is refused as the SDKs expect, on every route but those to Anthropic itself."""

from __future__ import annotations

import pytest

from proxyd.config.routes import ModelRoute
from proxyd.errors import ThreadUnsupported, envelope, error_response
from proxyd.server_tools.threads import check_thread

CREATE, CONTINUE = {"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}


def route(api_base: str, *, direct: bool = True) -> ModelRoute:
    return ModelRoute(model_id="m", api_base=api_base, model_name="m", direct=direct)


@pytest.mark.parametrize("thread", [CREATE, CONTINUE])
@pytest.mark.parametrize(
    "entry", [route("https://api.moonshot.ai/anthropic"), route("http://127.0.0.1:1/v1", direct=False)]
)
def test_a_thread_is_refused(thread: object, entry: ModelRoute) -> None:
    with pytest.raises(ThreadUnsupported) as caught:
        check_thread({"thread": thread}, entry)
    assert error_response(caught.value) == (400, "invalid_request_error")
    assert envelope(caught.value)["error"]["details"] == {
        "error_code": "thread_unsupported_request",
        "unsupported": ["thread"],
    }


@pytest.mark.parametrize(
    ("payload", "entry"),
    [
        ({"thread": CREATE}, route("https://api.anthropic.com")),
        ({}, route("https://api.moonshot.ai/anthropic")),
        ({"thread": None}, route("https://api.moonshot.ai/anthropic")),
    ],
)
def test_other_requests_pass(payload: dict[str, object], entry: ModelRoute) -> None:
    check_thread(payload, entry)

"""The same calls from code without an event loop."""

from __future__ import annotations

from proxyd.onboarding.blocking import inspected_server, listed_models, local_servers
from proxyd.onboarding.entries import Target
from tests.support.model_servers import VLLM, serving_in_thread


def test_they_run_an_event_loop_of_their_own() -> None:
    with serving_in_thread(VLLM) as server:
        target = Target("x", "X", "generic", f"{server.base}/v1", f"{server.base}/v1/models", "")
        assert [each.name for each in listed_models(target, None, "")] == ["Qwen/Qwen3"]
        found = inspected_server(server.base, "")
        assert found is not None
        assert found.profile == "vllm"
        assert all(each.origin.startswith("http://127.0.0.1:") for each in local_servers(""))

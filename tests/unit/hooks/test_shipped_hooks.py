"""The hooks that are shipped with the proxy, over real streams."""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxyd.codecs.formats import FORMATS, Format
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translated import RequestOptions, run_to_end
from tests.support.harness import text_stream
from tests.support.hooked import anthropic_stream, hooked_proxy, text_of
from tests.support.paths import ROOT

SHIPPED = ROOT / "hooks"
BOTH = pytest.mark.parametrize("mode", ["translated", "direct"])


def tool(name: str) -> dict[str, Any]:
    return {"name": name, "description": "d", "input_schema": {"type": "object", "properties": {}}}


def names_in(request: dict[str, Any]) -> list[str]:
    return [each.get("function", each)["name"] for each in request.get("tools", [])]


def install(folder: Path, name: str) -> None:
    path = folder / f"{name.removeprefix('_')}.py"
    shutil.copy(SHIPPED / f"{name}.py", path)
    path.chmod(0o644)


@BOTH
@pytest.mark.parametrize(
    ("options", "kept"),
    [({}, ["Bash"]), ({"tools": ["Bash"]}, ["WebSearch", "NotebookEdit", "NotebookRead"])],
)
async def test_filter_tools(tmp_path: Path, mode: str, options: dict[str, Any], kept: list[str]) -> None:
    install(tmp_path, "_filter_tools")
    tools = [tool(name) for name in ("Bash", "WebSearch", "NotebookEdit", "NotebookRead")]
    async with hooked_proxy(tmp_path, mode, options={"filter_tools": options}) as proxy:
        await proxy.events(tools=tools)
        assert names_in(proxy.upstream.requests[-1]) == kept


@BOTH
async def test_filter_tools_removes_a_tool_choice_of_a_removed_tool(tmp_path: Path, mode: str) -> None:
    install(tmp_path, "_filter_tools")
    choice = {"type": "tool", "name": "WebSearch"}
    async with hooked_proxy(tmp_path, mode) as proxy:
        await proxy.events(tools=[tool("Bash"), tool("WebSearch")], tool_choice=choice)
        assert names_in(proxy.upstream.requests[-1]) == ["Bash"]
        assert "tool_choice" not in proxy.upstream.requests[-1]
        await proxy.events(tools=[tool("WebSearch")], tool_choice={"type": "auto"})
        assert not {"tools", "tool_choice"} & proxy.upstream.requests[-1].keys()


@BOTH
@pytest.mark.parametrize("system", [None, "Be kind.", [{"type": "text", "text": "Be kind."}]])
async def test_system_prompt(tmp_path: Path, mode: str, system: Any) -> None:
    install(tmp_path, "_system_prompt")
    body = {} if system is None else {"system": system}
    async with hooked_proxy(tmp_path, mode, options={"system_prompt": {"text": "In French."}}) as proxy:
        await proxy.events(**body)
        sent = proxy.upstream.requests[-1]
        seen = sent["system"] if mode == "direct" else sent["messages"][0]["content"]
        text = seen if isinstance(seen, str) else "\n\n".join(block["text"] for block in seen)
        assert text == ("In French." if system is None else "Be kind.\n\nIn French.")


@BOTH
async def test_redact_works_across_the_chunks_of_a_stream(tmp_path: Path, mode: str) -> None:
    install(tmp_path, "_redact")
    chunks = ("The Blue", "bi", "rd and Blue", " and Bluebirds and Blue")
    stream = anthropic_stream(*chunks) if mode == "direct" else text_stream(*chunks)
    options = {"redact": {"words": {"Bluebird": "X", "Hello": "Y"}}}
    async with hooked_proxy(tmp_path, mode, stream=stream, options=options) as proxy:
        events = await proxy.events()
        assert text_of(events) == "The X and Blue and Xs and Blue"
        assert events[-1]["type"] == "message_stop"
        expected = "Y world" if mode == "direct" else "The X and Blue and Xs and Blue"
        assert (await proxy.message())["content"][-1]["text"] == expected


@BOTH
async def test_audit_log(tmp_path: Path, mode: str) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir(mode=0o755)
    install(hooks, "_audit_log")
    path = tmp_path / "audit.jsonl"
    async with hooked_proxy(hooks, mode, options={"audit_log": {"path": str(path)}}) as proxy:
        await proxy.events()
        await proxy.message(messages=[{"role": "user", "content": "Say hi"}])
        assert proxy.hooks.files[0].failures == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["what"] for line in lines] == ["request", "answer"] * 2
    assert lines[1]["stop_reason"] == "end_turn"
    assert "Say hi" not in path.read_text()


def shipped(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, SHIPPED / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def upstream_body(chosen: Format, **fields: Any) -> dict[str, Any]:
    payload = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **fields}
    made = run_to_end(chosen.translation(payload, chosen.dialect(Dialect()), RequestOptions("m", True)))
    return copy.deepcopy(made.body)


def hooked(name: str, body: dict[str, Any], **options: Any) -> dict[str, Any]:
    context = SimpleNamespace(mode="translated", options=options)
    changed: dict[str, Any] = shipped(name).request_hook(body, context)
    return changed


@pytest.mark.parametrize("chosen", FORMATS.values(), ids=lambda chosen: chosen.name)
def test_filter_tools_in_every_format(chosen: Format) -> None:
    choice = {"type": "tool", "name": "WebSearch"}
    body = upstream_body(chosen, tools=[tool("Bash"), tool("WebSearch")], tool_choice=choice)
    changed = hooked("_filter_tools", body)
    view = chosen.chat_terms(changed)
    assert [each["function"]["name"] for each in view["tools"]] == ["Bash"]
    assert not {"tool_choice", "toolConfig"} & changed.keys()
    alone = hooked(
        "_filter_tools", upstream_body(chosen, tools=[tool("WebSearch")], tool_choice={"type": "any"})
    )
    assert not {"tools", "tool_choice", "toolConfig"} & alone.keys()
    kept = upstream_body(chosen, tools=[tool("Bash")], tool_choice={"type": "any"})
    assert hooked("_filter_tools", copy.deepcopy(kept)) == kept


@pytest.mark.parametrize("chosen", FORMATS.values(), ids=lambda chosen: chosen.name)
@pytest.mark.parametrize("system", [None, "Be kind."])
def test_system_prompt_in_every_format(chosen: Format, system: str | None) -> None:
    body = upstream_body(chosen, **({} if system is None else {"system": system}))
    changed = hooked("_system_prompt", body, text="In French.")
    first, *rest = chosen.chat_terms(changed)["messages"]
    assert first["role"] in ("system", "developer")
    content = first["content"]
    texts = [content] if isinstance(content, str) else [part["text"] for part in content]
    assert "\n\n".join(texts) == ("In French." if system is None else "Be kind.\n\nIn French.")
    assert [message["role"] for message in rest] == ["user"]

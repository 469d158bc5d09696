"""``claude-proxy check``: the effective configuration, faults and probes."""

from __future__ import annotations

import asyncio
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from proxyd.cli.commands.check import check_command, show_columns
from proxyd.errors import UnsafePermissions
from tests.support.command_line import environment
from tests.support.harness import running_upstream, text_stream


def write(folder: Path, *entries: dict[str, Any], settings: str = "") -> Path:
    path = folder / "models.yaml"
    lines = "".join(f"- {json.dumps(entry)}\n" for entry in entries)
    path.write_text(f"{settings}models:\n{lines}")
    path.chmod(0o600)
    return path


def check_process(path: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proxyd", "check", "--models", str(path), *arguments]
    return subprocess.run(
        command,
        env=environment(path.parent, **environ),
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )


def check(path: Path, *arguments: str, **environ: str) -> Result:
    """Run the command in this process, which is faster."""
    return CliRunner(env=environ).invoke(
        check_command, ["--models", str(path), *arguments], catch_exceptions=False
    )


def test_effective_configuration_and_its_origins(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "model_id": "a",
            "api_base": "https://api.deepseek.com/v1",
            "api_key": "${A_KEY}",
            "context": "128k",
        },
        {
            "model_id": "b",
            "api_base": "https://api.moonshot.ai/anthropic",
            "direct": True,
            "aliases": ["b-*"],
        },
        {
            "model_id": "c",
            "api_base": "https://api.z.ai/api/anthropic",
            "format": "anthropic",
            "api_key": "${NONE}",
        },
        settings="settings:\n  ping_s: 20\n  max_retries: 5\n",
    )
    result = check(path, "--json", A_KEY="sk-0123456789abcdef", MAX_RETRIES="7")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert [each["key"] for each in report["models"]] == ["${A_KEY}", "from the request", "missing: ${NONE}"]
    assert [each["provider"] for each in report["models"]] == ["deepseek", "moonshot", "zhipu"]
    assert [each["mode"] for each in report["models"]] == ["translated", "direct", "direct"]
    assert report["models"][0]["max_input_tokens"] == 128_000
    assert report["settings"]["ping_s"] == {"value": 20.0, "from": f"{path}:2:11"}
    assert report["settings"]["max_retries"] == {"value": 7, "from": "MAX_RETRIES"}
    assert report["settings"]["port"] == {"value": 8082, "from": "default"}
    assert (report["models_yaml"], report["chosen_by"]) == (str(path), "--models")
    assert "0123456789" not in result.stdout + result.stderr
    table = check(path, A_KEY="sk-0123456789abcdef").stdout
    assert f"{path} is valid (--models): 3 models" in table
    assert "0123456789" not in table
    assert re.search(rf"^ping_s +20.0 +{path}:2:11$", table, re.MULTILINE)
    assert re.search(r"^the other \d+ settings have their defaults; --all prints them$", table, re.MULTILINE)
    assert "keepalive_s" not in table
    assert re.search(r"^c +direct .* api\.z\.ai/api/anthropic ", table, re.MULTILINE), "the whole address"
    assert "THEN" not in table, "no entry has a fallback"
    everything = check(path, "--all", A_KEY="sk-0123456789abcdef").stdout
    assert re.search(r"^keepalive_s +75.0 +default$", everything, re.MULTILINE)


def test_the_format_of_each_entry_and_why(tmp_path: Path) -> None:
    openai = {"api_base": "https://api.openai.com/v1", "api_key": "sk-0123456789abcdef"}
    path = write(
        tmp_path,
        {"model_id": "new", "model_name": "gpt-5.6", **openai},
        {"model_id": "kept", "model_name": "gpt-5.6", "format": "openai-chat", **openai},
        {"model_id": "old", "model_name": "gpt-5.2", **openai},
        {"model_id": "claude", "api_base": "https://api.anthropic.com", "direct": True},
    )
    models = json.loads(check(path, "--json").stdout)["models"]
    assert [each["format"] for each in models] == [
        "openai-responses", "openai-chat", "openai-chat", "anthropic",
    ]  # fmt: skip
    assert [bool(each["format_chosen_because"]) for each in models] == [True, False, False, False]
    said = check(path).stdout
    assert "new goes over openai-responses: Chat Completions takes tools or reasoning" in said
    assert "kept goes over" not in said


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(
        "- model_id: a\n  api_bas: x\n  max_tokens: -1\n- model_id: a\n  api_base: builtin:demo\n"
    )
    result = check_process(path)
    assert result.returncode == 78
    assert [line.partition(": ")[0] for line in result.stderr.splitlines()] == [
        f"{path}:{place}" for place in ("2:3", "3:15", "4:13")
    ]
    assert result.stdout == ""


@pytest.mark.statement("E7")
def test_open_key_file_is_a_warning_and_with_strict_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-0123456789abcdef\n")
    key.chmod(0o644)
    path = write(
        tmp_path, {"model_id": "a", "api_base": "https://api.deepseek.com/v1", "api_key": "${file:key}"}
    )
    allowed = check(path)
    assert allowed.exit_code == 0
    assert f"others can read the key file; run 'chmod 600 {key}'" in allowed.stderr
    refused = check_process(path, "--strict")
    assert refused.returncode == 77
    assert f"chmod 600 {key}" in refused.stderr
    assert refused.stdout == ""
    key.chmod(0o600)
    env = tmp_path / "env"
    env.write_text("A_KEY=sk-0123456789abcdef\n")
    env.chmod(0o640)
    assert f"{env}: others can read this file; run 'chmod 600 {env}'" in check(path).stderr
    assert isinstance(
        CliRunner().invoke(check_command, ["--models", str(path), "--strict"]).exception, UnsafePermissions
    )
    env.chmod(0o600)
    assert check(path, "--strict").exit_code == 0


def test_probable_mistakes_are_warnings(tmp_path: Path) -> None:
    path = write(
        tmp_path, {"model_id": "a", "api_base": "https://api.openai.com/v1", "api_key": "OPENAI_API_KEY"}
    )
    result = check(path)
    assert result.exit_code == 0
    assert f"warning: {path}: models[0].api_key: looks like the name of a variable" in result.stderr


def test_misspelt_variable_is_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, {"model_id": "a", "api_base": "builtin:demo"})
    result = check(path, CLAUDE_PROXY_PING_SS="3")
    assert result.exit_code == 0
    assert "CLAUDE_PROXY_PING_SS" in result.stderr
    assert "CLAUDE_PROXY_PING_S" in result.stderr.replace("CLAUDE_PROXY_PING_SS", "")


async def test_probe_calls_each_upstream_once(tmp_path: Path) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/bad"):
            body = {"error": {"message": "no such key", "type": "authentication_error"}}
            return web.json_response(body, status=401)
        if request.path.endswith("/v1/messages"):
            return web.json_response({"type": "message", "content": []})
        return web.Response(body=text_stream("yes"), content_type="text/event-stream")

    async with running_upstream(respond) as upstream:
        path = write(
            tmp_path,
            {"model_id": "demo", "api_base": "builtin:demo"},
            {
                "model_id": "fast",
                "model_name": "n",
                "api_base": f"{upstream.base}/v1",
                "reasoning_effort": "low",
            },
            {
                "model_id": "deep",
                "model_name": "n",
                "api_base": f"{upstream.base}/v1",
                "reasoning_effort": "high",
            },
            {"model_id": "direct", "api_base": upstream.base, "direct": True},
            {"model_id": "refused", "api_base": f"{upstream.base}/bad", "direct": True, "fallback": ["demo"]},
            {"model_id": "elsewhere", "api_base": "https://api.example.invalid", "direct": True},
            {"model_id": "keyless", "api_base": "https://api.example.invalid/v1", "api_key": "${NO_SUCH}"},
        )
        result = await asyncio.to_thread(
            check_process, path, "--probe", "--json", ANTHROPIC_AUTH_TOKEN="sk-of-the-shell"
        )
        assert result.returncode == 69, result.stderr
    probes = {each["model_id"]: each for each in json.loads(result.stdout)["probes"]}
    assert {name: each["ok"] for name, each in probes.items()} == {
        "demo": True, "fast": True, "direct": True, "refused": False, "elsewhere": None, "keyless": False,
    }  # fmt: skip
    assert probes["refused"]["said"] == "401: no such key"
    assert "NO_SUCH is not set" in probes["keyless"]["said"]
    assert result.stderr == "these upstreams did not respond: refused, keyless; see above\n"
    assert len(upstream.requests) == 3
    assert all("sk-of-the-shell" not in str(headers) for headers in upstream.headers)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [40, 80])
def test_a_table_that_does_not_fit_becomes_paragraphs(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        ["MODEL", "AT", "KEY", "THEN"],
        ["demo", "builtin:demo", "none needed", "-"],
        ["kimi", "x" * 30, "from env", "-"],
    ]
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stdout", Terminal())
    show_columns(rows)
    lines = sys.stdout.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(len(line) <= columns for line in lines)
    if columns == 80:
        assert lines[0].split() == ["MODEL", "AT", "KEY"]
    else:
        assert lines[:2] == ["demo", "  at builtin:demo; key none needed"]

"""The daemon as a process: start, exit codes and stop (docs/spec/operations.md#a1, #f5)."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.command_line import daemon, run
from tests.support.paths import ROOT

EXAMPLE = ROOT / "config" / "models.yaml"


def test_example_configuration_needs_no_key(tmp_path: Path) -> None:
    with daemon(tmp_path, "--models", str(EXAMPLE)) as (process, base):
        body = {"model": "demo", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
        request = urllib.request.Request(
            f"{base}/v1/messages", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            message = json.load(response)
        assert message["content"][0]["type"] == "thinking"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.statement("A1")
def test_port_in_use_is_exit_75(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = run(tmp_path, "--port", str(port), "--models", str(EXAMPLE))
    assert result.returncode == 75
    assert f"127.0.0.1:{port} is in use" in result.stderr
    assert "Traceback" not in result.stderr


BAD_FILES = [
    ("- model_id: a\n  api_bas: http://x/v1\n", r"models\.yaml:2:3: models\[0\]\.api_bas: .*api_base"),
    (
        "- model_id: a\n  api_base: http://x/v1\n  max_tokens: -1\n",
        r"models\.yaml:3:15: models\[0\]\.max_tokens: ",
    ),
    ("- {model_id: a\n", r"models\.yaml:\d+:\d+: "),
    ("", r"models\.yaml: the file is empty"),
]


@pytest.mark.statement("A1")
@pytest.mark.parametrize(("text", "pattern"), BAD_FILES)
def test_invalid_configuration_is_exit_78(tmp_path: Path, text: str, pattern: str) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(text)
    result = run(tmp_path, "--models", str(path))
    assert result.returncode == 78
    assert re.search(pattern, result.stderr), result.stderr
    assert "Traceback" not in result.stderr


def test_missing_configuration_is_exit_78(tmp_path: Path) -> None:
    result = run(tmp_path, "--models", str(tmp_path / "none.yaml"))
    assert result.returncode == 78
    assert "none.yaml" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_configuration_is_exit_78(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("- {model_id: a, api_base: http://x}\n")
    path.chmod(0)
    result = run(tmp_path, "--models", str(path))
    assert result.returncode == 78
    assert "models.yaml" in result.stderr


def test_usage_error_is_exit_64(tmp_path: Path) -> None:
    for arguments in (("--nonsense",), ("--port", "many"), ("fly",)):
        result = run(tmp_path, *arguments)
        assert result.returncode == 64, arguments
        assert "Traceback" not in result.stderr


def test_listening_beyond_loopback_needs_a_token(tmp_path: Path) -> None:
    result = run(tmp_path, "--host", "0.0.0.0", "--models", str(EXAMPLE))
    assert result.returncode == 78
    assert "auth_token" in result.stderr


def test_version_and_help(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout.startswith("claude-proxy, version ")
    result = run(tmp_path, "--help")
    assert result.returncode == 0
    assert "Example: " in result.stdout

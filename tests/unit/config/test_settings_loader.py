"""Decision of the settings: precedence of the sources, and the exact text of each fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxyd.config.models import Checks, load_text
from proxyd.config.settings_loader import decide_settings, faults_in_file
from proxyd.errors import ConfigError
from proxyd.secret import Secret
from proxyd.urls import is_loopback


def faults(flags: dict[str, Any], environ: dict[str, str], values: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        decide_settings(flags, environ, values, {name: f"m.yaml:2:{len(name)}" for name in values or {}})
    return caught.value.message.splitlines()


def test_empty_list_differs_from_a_missing_one() -> None:
    assert decide_settings({}, {}, {"forward_headers": []}).forward_headers == ()


def test_flag_beats_environment_beats_file_beats_default() -> None:
    flags: dict[str, Any] = {"port": 1}
    environ = {"PORT": "2"}
    values, places = {"port": 3}, {"port": "m.yaml:1:2"}
    steps: list[tuple[dict[str, Any], dict[str, str], dict[str, Any], int, str]] = [
        (flags, environ, values, 1, "--port"),
        ({"port": None}, environ, values, 2, "PORT"),
        ({}, {"PORT": "  "}, values, 3, "m.yaml:1:2"),
        ({}, {}, {}, 8082, "default"),
    ]
    for flag, variables, in_file, port, origin in steps:
        found = decide_settings(flag, variables, in_file, places)
        assert (found.port, found.origin_of("port")) == (port, origin)


@pytest.mark.parametrize(
    ("variable", "written", "name", "value"),
    [
        ("HOST", "localhost", "host", "localhost"),
        ("PORT", "0", "port", 0),
        ("LOG_LEVEL", "debug", "log_level", "debug"),
        ("LOG_FORMAT", "json", "log_format", "json"),
        ("MAX_RETRIES", "0", "max_retries", 0),
        ("CLAUDE_PROXY_AUTH_TOKEN", "t0ken-of-the-proxy", "auth_token", Secret("t0ken-of-the-proxy")),
        ("CLAUDE_PROXY_IDLE_S", "0.5", "idle_s", 0.5),
        ("CLAUDE_PROXY_TOTAL_S", "0", "total_s", 0.0),
        ("CLAUDE_PROXY_MAX_BODY_BYTES", "2 MiB", "max_body_bytes", 2_097_152),
        ("CLAUDE_PROXY_MAX_BODY_BYTES", "4096", "max_body_bytes", 4096),
        ("CLAUDE_PROXY_ALLOWED_HOSTS", "a.example, b.example,", "allowed_hosts", ("a.example", "b.example")),
        ("CLAUDE_PROXY_FORWARD_HEADERS", "X-Team, x-foo-*", "forward_headers", ("X-Team", "x-foo-*")),
        ("CLAUDE_PROXY_TRUST_ENV", "Yes", "trust_env", True),
        ("CLAUDE_PROXY_TRUST_ENV", "0", "trust_env", False),
        ("CLAUDE_PROXY_ON_MIDSTREAM_ERROR", "abort", "on_midstream_error", "abort"),
        ("CLAUDE_PROXY_DISCOVERY_PREFIX", "Claude-proxy/", "discovery_prefix", "Claude-proxy/"),
        ("CLAUDE_PROXY_HOOKS", '{"isolation": "process"}', "hooks", {"isolation": "process"}),
        ("CLAUDE_PROXY_HOOK_OPTIONS", '{"a": {"b": 1}}', "hook_options", {"a": {"b": 1}}),
    ],
)
def test_variables(variable: str, written: str, name: str, value: object) -> None:
    found = decide_settings({}, {variable: written})
    assert getattr(found, name) == value
    assert found.origin_of(name) == variable


@pytest.mark.parametrize(
    ("flags", "environ", "values", "fault"),
    [
        ({"port": "eighty"}, {}, {}, "--port: expected a whole number from 0 to 65535; got 'eighty'"),
        ({}, {"PORT": "65536"}, {}, "PORT: expected a whole number from 0 to 65535; got 65536"),
        ({}, {"PORT": "80.5"}, {}, "PORT: expected a whole number from 0 to 65535; got 80.5"),
        ({}, {"PORT": "9" * 5000}, {}, f"PORT: expected a whole number from 0 to 65535; got '{'9' * 40}…'"),
        (
            {},
            {},
            {"port": True},
            "m.yaml:2:4: settings.port: expected a whole number from 0 to 65535; got true",
        ),
        ({}, {"LOG_LEVEL": "loud"}, {}, "LOG_LEVEL: expected one of debug, info, warning, error; got 'loud'"),
        ({}, {"LOG_FORMAT": "xml"}, {}, "LOG_FORMAT: expected one of auto, console, json, logfmt; got 'xml'"),
        (
            {},
            {"CLAUDE_PROXY_IDLE_S": "0"},
            {},
            "CLAUDE_PROXY_IDLE_S: expected a number of seconds from 0.001 to 86400; got 0",
        ),
        (
            {},
            {"CLAUDE_PROXY_TRUST_ENV": "maybe"},
            {},
            "CLAUDE_PROXY_TRUST_ENV: expected true or false; got 'maybe'",
        ),
        (
            {},
            {"CLAUDE_PROXY_HOOK_OPTIONS": "{"},
            {},
            "CLAUDE_PROXY_HOOK_OPTIONS: expected a mapping of hook names to mappings; got '{'",
        ),
        (
            {},
            {},
            {"max_body_bytes": "5 TB"},
            "m.yaml:2:14: settings.max_body_bytes: expected a size in bytes from 1024 to 1073741824, "
            "such as 33554432 or '32 MiB'; got '5 TB'",
        ),
        (
            {},
            {},
            {"max_stream": 5},
            "m.yaml:2:10: settings.max_stream: unknown setting; did you mean 'max_streams'?",
        ),
        (
            {},
            {},
            {"allowed_hosts": [1]},
            "m.yaml:2:13: settings.allowed_hosts: expected a host name; got 1, which needs quotes",
        ),
        (
            {},
            {},
            {"forward_headers": ["x-team", "x-*-id"]},
            "m.yaml:2:15: settings.forward_headers: "
            "expected a header's name, or its beginning followed by '*'; got 'x-*-id'",
        ),
        (
            {},
            {"CLAUDE_PROXY_FORWARD_HEADERS": "Cookie"},
            {},
            "CLAUDE_PROXY_FORWARD_HEADERS: the header 'Cookie' is never passed on as it came; remove it",
        ),
        (
            {},
            {},
            {"forward_headers": ["Sec-*"]},
            "m.yaml:2:15: settings.forward_headers: "
            "the header 'Sec-*' is never passed on as it came; remove it",
        ),
        (
            {},
            {"CLAUDE_PROXY_DISCOVERY_PREFIX": "my/"},
            {},
            "CLAUDE_PROXY_DISCOVERY_PREFIX: "
            "expected a text with 'claude' or 'anthropic' in it, or an empty one; got 'my/'",
        ),
        (
            {},
            {"CLAUDE_PROXY_AUTH_TOKEN": "${NO_SUCH}"},
            {},
            "CLAUDE_PROXY_AUTH_TOKEN: auth_token: "
            "NO_SUCH is not set where claude-proxy runs; run `export NO_SUCH=KEY` and start it again, or write "
            "NO_SUCH=KEY into the file env beside models.yaml, which is read at once",
        ),
        (
            {},
            {"CLAUDE_PROXY_AUTH_TOKEN": "$TOKEN"},
            {},
            "CLAUDE_PROXY_AUTH_TOKEN: auth_token: "
            "expected a literal key, or ${ENV_NAME}, ${file:PATH} or ${keyring:NAME} with nothing around it",
        ),
        (
            {},
            {},
            {"auth_token": 5},
            "m.yaml:2:10: settings.auth_token: "
            "expected a token, ${ENV_NAME}, ${file:PATH} or ${keyring:NAME} as one line of text; quote it",
        ),
        (
            {"host": "0.0.0.0"},
            {},
            {},
            "--host: 0.0.0.0 is beyond loopback and there is no token; "
            "set auth_token (CLAUDE_PROXY_AUTH_TOKEN), or --insecure if nobody else can reach it",
        ),
    ],
)
def test_faults(flags: dict[str, Any], environ: dict[str, str], values: dict[str, Any], fault: str) -> None:
    assert faults(flags, environ, values) == [fault]


def test_all_faults_at_once_and_none_shows_the_token() -> None:
    environ = {"HOST": "0.0.0.0", "PORT": "x", "CLAUDE_PROXY_AUTH_TOKEN": "${PLANTED-TOKEN}"}
    found = faults({"max_retries": -1}, environ, {"idle_s": "long", "colour": "red"})
    assert len(found) == 5
    assert "PLANTED" not in "".join(found)


@pytest.mark.parametrize(
    ("host", "more", "is_refused"),
    [
        ("127.0.0.2", {}, False),
        ("::1", {}, False),
        ("localhost", {}, False),
        ("0.0.0.0", {}, True),
        ("::", {}, True),
        ("myhost", {}, True),
        ("localhost.evil.example", {}, True),
        ("0.0.0.0", {"auth_token": "a-token-of-16-up"}, False),
        ("0.0.0.0", {"insecure": True}, False),
    ],
)
def test_listening_beyond_loopback(host: str, more: dict[str, Any], is_refused: bool) -> None:
    if is_refused:
        assert not is_loopback(host)
        with pytest.raises(ConfigError, match="beyond loopback"):
            decide_settings({"host": host, **more}, {})
    else:
        assert decide_settings({"host": host, **more}, {}).host == host


def test_unknown_flag_raises_assertion_error() -> None:
    with pytest.raises(AssertionError, match="colour"):
        decide_settings({"colour": "red"}, {})


def test_token_and_certificates_beside_models_yaml(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken-of-the-proxy\n", encoding="utf-8")
    (tmp_path / "ca.pem").write_text("x", encoding="utf-8")
    values = {"auth_token": "${file:token}", "ca_file": "ca.pem"}
    found = decide_settings(
        {}, {}, values, {"ca_file": "m.yaml:1:1", "auth_token": "m.yaml:2:1"}, folder=tmp_path
    )
    assert found.auth_token == Secret("t0ken-of-the-proxy")
    assert found.ca_file == str(tmp_path / "ca.pem")
    assert "t0ken" not in repr(found)
    with pytest.raises(ConfigError) as caught:
        decide_settings({"ca_file": "none.pem"}, {}, values, {"ca_file": "m.yaml:1:1"}, folder=tmp_path)
    assert caught.value.message == "--ca-file: ca_file: expected a PEM file; there is none at none.pem"
    with pytest.raises(ConfigError) as caught:
        decide_settings({}, {}, {"client_cert": "me.pem"}, {"client_cert": "m.yaml:3:1"}, folder=tmp_path)
    assert caught.value.message == (
        f"m.yaml:3:1: client_cert: expected a PEM file; there is none at {tmp_path / 'me.pem'}"
    )


def test_unknown_variables_with_our_prefix_are_reported() -> None:
    environ = {"CLAUDE_PROXY_PORT": "1", "CLAUDE_PROXY_IDEL_S": "1", "CLAUDE_PROXY_MODELS": "x", "HOME": "/"}
    assert decide_settings({}, environ).warnings == (
        "CLAUDE_PROXY_IDEL_S: not a variable of claude-proxy; did you mean 'CLAUDE_PROXY_IDLE_S'?",
        "CLAUDE_PROXY_PORT: not a variable of claude-proxy; use PORT",
    )


def test_faults_of_settings_and_models_are_reported_together() -> None:
    text = "settings:\n  prot: 1\n  idle_s: long\nmodels:\n  - model_id: m\n    api_base: 5\n"
    with pytest.raises(ConfigError) as caught:
        load_text(text, Path("m.yaml"), {}, checks=Checks(settings=faults_in_file))
    assert caught.value.message.splitlines() == [
        "m.yaml:2:3: settings.prot: unknown setting; did you mean 'port'?",
        "m.yaml:3:11: settings.idle_s: expected a number of seconds from 0.001 to 86400; got 'long'",
        "m.yaml:6:15: models[0].api_base: expected an http:// or https:// address, or builtin:demo; got 5",
    ]

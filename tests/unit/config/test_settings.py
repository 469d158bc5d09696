"""Table of the settings, and the settings that a reload may change."""

from __future__ import annotations

from proxyd.config.settings import TABLE, Settings
from proxyd.config.settings_loader import decide_settings, faults_in_file


def test_defaults() -> None:
    found = decide_settings({}, {})
    assert found == Settings()
    assert {name: getattr(found, name) for name in TABLE} == {
        "host": "127.0.0.1",
        "port": 8082,
        "auth_token": None,
        "auth": "token",
        "store": None,
        "fail_closed": False,
        "insecure": False,
        "tls": {},
        "allowed_hosts": (),
        "trusted_proxies": (),
        "log_level": "info",
        "log_format": "auto",
        "prompt_cache": True,
        "log_bodies": False,
        "keepalive_s": 75,
        "body_idle_s": 30,
        "body_total_s": 120,
        "write_stall_s": 60,
        "ping_s": 15,
        "commit_s": 10,
        "drain_timeout_s": 30,
        "connect_s": 10,
        "first_byte_s": 600,
        "idle_s": 300,
        "total_s": 0,
        "max_body_bytes": 33_554_432,
        "max_parsing_bytes": 128 * 1024 * 1024,
        "max_upstream_body_bytes": 67_108_864,
        "max_frame_bytes": 8_388_608,
        "max_error_body_bytes": 1_048_576,
        "max_streams": 256,
        "max_streams_per_route": 0,
        "max_connections": 1024,
        "max_idle_per_peer": 64,
        "workers": 1,
        "max_retries": 2,
        "circuit_failures": 5,
        "circuit_open_s": 30,
        "on_midstream_error": "event",
        "ca_file": "",
        "client_cert": "",
        "idle_connection_s": 300.0,
        "keep_warm": True,
        "trust_env": False,
        "forward_headers": ("*",),
        "discovery_prefix": "",
        "auto_mode": {},
        "context_edits": True,
        "images": {},
        "otel": {},
        "web_search": {},
        "hook_options": {},
        "hooks": {},
        "hook_timeout_s": 5,
        "ledger_days": 90,
        "record": "failures",
        "record_max": 50,
        "record_bodies": False,
    }


def test_each_default_is_a_valid_value() -> None:
    for row in TABLE.values():
        if row.default is not None:
            value = list(row.default) if isinstance(row.default, tuple) else row.default
            assert faults_in_file({row.name: value}) == {}, row.name
        assert row.help.endswith(".")
        assert row.source


def test_reload_keeps_settings_that_need_a_restart() -> None:
    old = decide_settings({}, {"PORT": "1"})
    new = decide_settings({}, {"MAX_RETRIES": "5"}, {"port": 2, "keepalive_s": 9}, {"port": "m:1:1"})
    found, waiting = old.after_reload(new)
    assert waiting == ("port", "keepalive_s")
    assert (found.port, found.keepalive_s, found.max_retries) == (1, 75, 5)
    assert [found.origin_of(name) for name in ("port", "keepalive_s", "max_retries")] == [
        "PORT",
        "default",
        "MAX_RETRIES",
    ]
    assert old.after_reload(old)[1] == ()

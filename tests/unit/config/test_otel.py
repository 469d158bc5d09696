"""The setting ``otel``: what is in force, and what is wrong."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from proxyd.config.otel import Otel
from proxyd.config.settings_loader import decide_settings
from proxyd.errors import ConfigError

KEY = "otlp-key-0123456789"
PLACES = {"otel": "models.yaml:3:3"}


def read(values: dict[str, Any], folder: Path = Path(), **environ: str) -> Otel | None:
    return decide_settings({}, environ, {"otel": values}, PLACES, folder=folder).otel_target


def headers_of(otel: Otel | None) -> dict[str, str]:
    assert otel is not None
    assert KEY not in repr(otel)
    return {name: header.reveal() for name, header in otel.headers.items()}


def test_what_is_in_force(tmp_path: Path) -> None:
    assert read({"service_name": "mine"}) == Otel(service_name="mine")
    found = read(
        {"endpoint": "https://collector.example/base/", "sample": 0.25, "interval_s": 5, "content": True}
    )
    assert found == Otel("https://collector.example/base", sample=0.25, interval_s=5.0, content=True)
    (tmp_path / "key").write_text(KEY)
    written = {"X-Key": "${file:key}", "authorization": f"Bearer {KEY}", "x-other": "Api-Token ${K}"}
    assert headers_of(read({"headers": written}, tmp_path, K=KEY)) == {
        "x-key": KEY,
        "authorization": f"Bearer {KEY}",
        "x-other": f"Api-Token {KEY}",
    }


def test_the_standard_variables_fill_in_what_is_left_out_and_switch_nothing_on() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{KEY}, X-Two={KEY}",
        "OTEL_SERVICE_NAME": "theirs",
    }
    assert decide_settings({}, environ).otel_target is None
    found = read({"enabled": True}, **environ)
    assert found is not None
    assert (found.endpoint, found.service_name) == ("http://collector:4318", "theirs")
    assert headers_of(found) == {"authorization": f"Bearer {KEY}", "x-two": KEY}
    own = read({"endpoint": "http://mine:1", "service_name": "mine", "headers": {"X-Two": "own"}}, **environ)
    assert own is not None
    assert (own.endpoint, own.service_name) == ("http://mine:1", "mine")
    assert headers_of(own) == {"authorization": f"Bearer {KEY}", "x-two": "own"}
    for off in (read({}, **environ), read({"enabled": False}), read({"sample": 1}, OTEL_SDK_DISABLED="True")):
        assert off is None


def test_what_is_wrong_is_named_with_its_place_and_no_key() -> None:
    for values, environ, expected in (
        (
            {"endpoint": f"http://user:{KEY}@host"},
            {},
            "otel: endpoint: expected an http:// or https:// address",
        ),
        ({"endpoint": "collector:4318"}, {}, "otel: endpoint: expected"),
        ({"headers": {"x-key": "${NOT_SET}"}}, {}, "otel: headers.x-key: NOT_SET is not set"),
        ({"headers": {"x-key": "${A}${B}"}}, {}, "otel: headers.x-key: expected a literal key, or"),
        ({"headers": {"x-key": f"{KEY}\n"}}, {}, "otel: headers.x-key: a header's value cannot"),
        ({"sample": 2}, {}, "otel: sample: expected"),
        ({"interval_s": 0}, {}, "otel: interval_s: expected"),
        ({"colour": "red"}, {}, "otel: colour: unknown key"),
        (
            {"enabled": True},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://user:{KEY}@host"},
            "otel: endpoint: OTEL_EXPORTER_OTLP_ENDPOINT: expected",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            read(values, **environ)  # type: ignore[arg-type]
        message = caught.value.message
        assert message.startswith("models.yaml:3:3: "), message
        assert expected in message, message
        assert KEY not in message


def test_libraries_that_are_missing_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without_exporter(name: str) -> object:
        if name.startswith("opentelemetry.exporter"):
            raise ModuleNotFoundError(name)
        return find(name)

    monkeypatch.setattr("importlib.util.find_spec", without_exporter)
    with pytest.raises(ConfigError) as caught:
        read({"enabled": True})
    assert caught.value.message == (
        "models.yaml:3:3: otel: OpenTelemetry needs its SDK and exporter: pip install 'claude-proxyd[otel]'"
    )
    assert read({"enabled": False}) is None

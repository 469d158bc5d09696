"""``claude-proxy models refresh``: it writes catalog.yaml, and what it wrote is in force."""

from __future__ import annotations

import json
import re
from pathlib import Path

from proxyd.config.catalog import read_catalog
from tests.support.command_line import Home
from tests.support.model_servers import serving_in_thread

LIST = {"data": [{"id": "q/coder", "context_length": 123_456, "supported_parameters": ["tools"]}]}
ENTRY = "models:\n- {model_id: coder, model_name: q/coder, api_base: https://openrouter.ai/api/v1, api_key: '${K}'}\n"


def own_catalog(home: Home) -> Path:
    return home.path / ".local" / "state" / "claude-proxy" / "catalog.yaml"


def test_a_list_becomes_windows_that_check_explains(home: Home) -> None:
    home.write_models(ENTRY).chmod(0o600)
    assert json.loads(home.run("check", "--json").out)["models"][0]["max_input_tokens"] is None
    with serving_in_thread({"/models": LIST}) as server:
        done = home.run("models", "refresh", "--from", f"{server.base}/models", "--date", "2026-11-01")
    assert done.code == 0, done.err
    assert "1 models, 1 of them of 2026-11-01" in done.out
    (model,) = json.loads(home.run("check", "--json").out)["models"]
    assert model["max_input_tokens"] == 123_456
    origin = "catalog.yaml: https://openrouter.ai/api/v1/models, 2026-11-01"
    assert model["figures"] == [{"figure": "window", "value": 123_456, "in_force": True, "from": origin}]
    assert f"coder       window  123456  {origin}" in home.run("check").out
    env = home.run("env", "coder", "--shell", "json").out
    assert json.loads(env)["env"]["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "123456"


def test_check_names_the_origin_of_each_figure(home: Home) -> None:
    home.write_models(
        "- {model_id: k, model_name: kimi-k2.6, api_base: https://api.moonshot.ai/v1, max_tokens: 8k, vision: true}\n"
    ).chmod(0o600)
    (model,) = json.loads(home.run("check", "--json").out)["models"]
    figures = {row["figure"]: row for row in model["figures"]}
    assert (figures["window"]["value"], figures["window"]["in_force"]) == (262_144, True)
    assert figures["output"] == {"figure": "output", "value": 8000, "in_force": True, "from": "models.yaml"}
    assert (figures["prices"]["value"]["output"], figures["prices"]["in_force"]) == (4, False)
    assert figures["vision"]["from"] == "models.yaml"
    shown = home.run("check", "--all").out
    assert re.search(r"^k +output +8000 +models\.yaml$", shown, re.MULTILINE)
    assert re.search(
        r"^k +prices +\(input 0\.95, output 4, .*not in force\) +catalog\.yaml: https", shown, re.MULTILINE
    )
    assert "prices" not in home.run("check").out


def test_models_of_an_earlier_refresh_stay(home: Home, tmp_path: Path) -> None:
    for name in ("a", "b"):
        path = tmp_path / "list.json"
        path.write_text(json.dumps({"data": [{"id": name}]}))
        assert home.run("models", "refresh", "--from", str(path)).code == 0
    assert [each.model for each in read_catalog(own_catalog(home)).models] == ["a", "b"]


def test_a_source_that_fails_changes_nothing(home: Home, tmp_path: Path) -> None:
    with serving_in_thread({"/html": (200, "text/html", b"<html>")}) as server:
        done = home.run("models", "refresh", "--from", f"{server.base}/html", "--from", str(tmp_path / "no"))
    assert done.code == 69
    assert "got a web page" in done.err
    assert "no such file" in done.err
    assert "the catalog is unchanged" in done.err
    assert not own_catalog(home).exists()
    (tmp_path / "bad").write_text("{")
    assert "expected JSON" in home.run("models", "refresh", "--from", str(tmp_path / "bad")).err
    (tmp_path / "other").write_text('{"a": 1}')
    assert "found no model in it" in home.run("models", "refresh", "--from", str(tmp_path / "other")).err
    assert home.run("models", "refresh", "--date", "today").code == 64


def test_a_catalog_with_a_fault_is_warned_of(home: Home) -> None:
    home.write_models(ENTRY).chmod(0o600)
    own_catalog(home).parent.mkdir(parents=True)
    own_catalog(home).write_text("models:\n- nonsense\n")
    checked = home.run("check")
    assert checked.code == 0
    assert f"{own_catalog(home)}:2: expected one model a line" in checked.err

"""Each command where something it needs is missing or broken: one sentence, the right exit code, never a traceback."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import Home

DEMO = "- {model_id: demo, api_base: 'builtin:demo'}\n"
CLAUDE = "#!/bin/sh\necho 9.9.9\n"
is_root = os.geteuid() == 0


def check_sentence(text: str) -> None:
    assert text.strip()
    assert "Traceback" not in text
    assert "a bug in claude-proxy" not in text


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run"], 78),
        (["start"], 78),
        (["stop"], 3),
        (["restart"], 3),
        (["status"], 3),
        (["logs"], 3),
        (["env"], 78),
        (["code"], 78),
        (["doctor"], 78),
    ],
)
@pytest.mark.parametrize(
    "models", [None, "- {model_id: [\n", "- {model_id: a}\n"], ids=["no", "no YAML", "wrong"]
)
def test_configuration(home: Home, arguments: list[str], code: int, models: str | None) -> None:
    if models is not None:
        home.write_models(models)
    result = home.run(*arguments)
    assert result.code == code
    check_sentence(result.err if code == 78 and arguments != ["doctor"] else result.out + result.err)


@pytest.mark.parametrize("line", ["no assignment", "=value", "KEY value"])
def test_an_env_file_that_is_none(home: Home, line: str) -> None:
    home.write_models(DEMO)
    (home.config / "env").write_text(f"# fine\nGOOD='a b'\n{line}\n")
    result = home.run("env", "demo")
    assert result.code == 78
    assert f"{home.config / 'env'}:3: expected KEY=value" in result.err
    assert "value" not in result.err.replace("KEY=value", "")


def test_the_env_file_gives_keys_and_the_environment_wins(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from proxyd.daemon.configuration import load_configuration

    home.write_models("- {model_id: a, api_base: 'https://example.com/v1', api_key: '${MY_KEY}'}\n")
    (home.config / "env").write_text('export MY_KEY="from the file"\nLOG_LEVEL=debug\n')
    loaded = load_configuration({}, None, os.environ)
    key = loaded.config.table.routes[0].api_key
    assert key is not None
    assert (key.reveal(), loaded.settings.log_level) == ("from the file", "debug")
    monkeypatch.setenv("MY_KEY", "from the environment")
    key = load_configuration({}, None, os.environ).config.table.routes[0].api_key
    assert key is not None
    assert key.reveal() == "from the environment"


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_models_yaml_that_everybody_may_write_is_77(home: Home, command: str, what: str) -> None:
    path = home.write_models(DEMO)
    target = path if what == "file" else path.parent
    target.chmod(0o777)
    result = home.run(command)
    target.chmod(0o755)
    assert result.code == 77
    assert f"everybody may write {target}; run 'chmod go-w {target}'" in result.err
    check_sentence(result.err)


def test_check_names_a_hook_that_everybody_may_write(home: Home) -> None:
    home.write_models(DEMO)
    hooks = home.config / "hooks"
    hooks.mkdir(mode=0o755)
    (hooks / "h.py").write_text("def request_hook(p):\n    return p\n")
    (hooks / "h.py").chmod(0o666)
    result = home.run("check")
    assert result.code == 0
    assert f"hook h: not run, since others may change it: everybody may write {hooks / 'h.py'}" in result.err
    assert f"chmod go-w {hooks / 'h.py'}" in result.err


def test_a_port_that_is_taken_is_75(home: Home) -> None:
    home.write_models(DEMO)
    with socket.create_server(("127.0.0.1", home.port)):
        result = home.run("run")
    assert result.code == 75
    assert "is in use" in result.err


@pytest.mark.skipif(is_root, reason="root may write everywhere")
@pytest.mark.parametrize("command", ["init", "start"])
def test_a_home_that_cannot_be_written(home: Home, command: str) -> None:
    if command == "start":
        home.write_models(DEMO)
    home.path.chmod(0o500)
    try:
        result = home.run(command)
    finally:
        home.path.chmod(0o700)
    assert result.code == 77
    check_sentence(result.err)


@pytest.mark.skipif(
    not is_root or shutil.which("unshare") is None, reason="a read-only HOME needs a mount namespace"
)
@pytest.mark.parametrize(
    ("command", "mount", "code", "said"),
    [
        (
            "init",
            "mount --bind {home} {home} && mount -o remount,bind,ro {home}",
            77,
            "read-only file system",
        ),
        (
            "start",
            "mount --bind {home} {home} && mount -o remount,bind,ro {home}",
            77,
            "read-only file system",
        ),
        ("init", "mount -t tmpfs -o size=8k tmpfs {home}/.config", 1, "no space left on device"),
    ],
)
def test_a_home_that_is_read_only_or_full(home: Home, command: str, mount: str, code: int, said: str) -> None:
    if command == "start":
        home.write_models(DEMO)
    else:
        (home.path / ".config").mkdir()
    script = f"{mount.format(home=home.path)} && exec {sys.executable} -m proxyd {command}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env={**home.environ, "PATH": os.environ["PATH"]},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
    assert said in done.stderr


def test_a_file_that_may_not_grow(home: Home) -> None:
    """Any write that the system refuses."""
    script = "import resource, signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    script += f"resource.setrlimit({resource.RLIMIT_FSIZE}, (100, 100))\n"
    script += "sys.argv = ['claude-proxy', 'init']\nfrom proxyd.cli.main import main\nmain()\n"
    done = subprocess.run(
        [sys.executable, "-c", script], env=home.environ, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "file too large" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["install"], ["status"], ["uninstall"]])
def test_no_service_manager(home: Home, arguments: list[str]) -> None:
    home.write_models(f"settings: {{port: {home.port}}}\nmodels:\n{DEMO}")
    (home.path / "empty").mkdir()
    os.environ["PATH"] = str(home.path / "empty")  # restored by the fixture
    result = home.run("service", *arguments)
    assert result.code == {"install": 1, "status": 3, "uninstall": 0}[arguments[0]]
    check_sentence(result.out + result.err)
    if arguments == ["install"]:
        assert "use 'claude-proxy start'" in result.err
        assert not (home.path / ".config" / "systemd").exists()


def test_systemctl_without_a_session(home: Home) -> None:
    home.write_models(DEMO)
    home.program("systemctl", "#!/bin/sh\necho 'Failed to connect to bus: No medium found' >&2\nexit 1\n")
    result = home.run("service", "install")
    assert result.code == 1
    assert "no systemd user session" in result.err
    assert not (home.path / ".config" / "systemd").exists()


# -- doctor


def lines_of(text: str) -> dict[str, str]:
    """name -> result"""
    found = [line.split(" ", 1) for line in text.splitlines() if line[:4].strip() in ("ok", "warn", "fail")]
    return {rest.strip().partition(":")[0]: result for result, rest in found}


def test_doctor_when_all_is_well(home: Home) -> None:
    home.write_models(DEMO)
    home.program("claude", CLAUDE)
    assert home.run("start").code == 0
    result = home.run("doctor", "--probe")
    assert result.code == 0, result.out
    found = lines_of(result.out)
    assert set(found.values()) == {"ok"}, result.out
    assert {
        "configuration",
        "daemon",
        "version",
        "claude",
        "stream of demo",
        "tool call of demo",
    } <= found.keys()


def test_doctor_names_each_trouble_with_a_remedy(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    home.write_models(
        f"- {{model_id: a, api_base: 'http://127.0.0.1:{port}/v1'}}\n"
        "- {model_id: b, api_base: 'https://nowhere.invalid/v1', api_key: '${NO_SUCH_KEY}'}\n"
    )
    (home.config / "env").write_text("")
    (home.config / "env").chmod(0o644)
    hooks = home.config / "hooks"
    hooks.mkdir(mode=0o755)
    (hooks / "bad.py").write_text("def request_hook(:\n")
    (hooks / "bad.py").chmod(0o644)
    settings = home.path / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(
        '{"env": {"CLAUDE_CODE_USE_BEDROCK": "1", "ANTHROPIC_BASE_URL": "https://elsewhere.invalid"}}'
    )
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "y")
    result = home.run("doctor")
    found = lines_of(result.out)
    assert found.get("env file") == "fail", result
    assert found["hooks"] == "fail"
    assert found["key of b"] == "warn"
    assert found["daemon"] == "fail"
    assert found["upstream 127.0.0.1"] == "fail"
    assert found["upstream nowhere.invalid"] == "fail"
    assert found["claude"] == "fail"
    assert found["environment"] == "warn"
    assert f"{settings}: CLAUDE_CODE_USE_BEDROCK leads Claude Code past the proxy" in result.out
    assert f"{settings}: ANTHROPIC_BASE_URL is https://elsewhere.invalid" in result.out
    assert result.out.count("→") >= 8
    assert result.code == 77  # of the first that failed
    assert "Traceback" not in result.out + result.err


def test_doctor_of_a_settings_file_that_is_none(home: Home) -> None:
    home.write_models(DEMO)
    folder = home.path / ".claude"
    folder.mkdir()
    (folder / "settings.json").write_text("{")
    assert f"warn {folder / 'settings.json'}: cannot be read" in home.run("doctor").out


def test_files_that_hold_keys_are_the_users_alone(home: Home) -> None:
    old = os.umask(0)
    try:
        home.run("init")
    finally:
        os.umask(old)
    for name in ("models.yaml", "env"):
        assert not stat.S_IMODE((home.config / name).stat().st_mode) & 0o077
    assert Path(home.config / "hooks").stat().st_mode & 0o002 == 0

"""Commands without something that they need: one sentence, the right exit code, never a traceback."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys

import pytest

from tests.support.command_line import Home

DEMO = "- {model_id: demo, api_base: 'builtin:demo'}\n"
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
@pytest.mark.parametrize("models", ["- {model_id: [\n", "- {model_id: a}\n"], ids=["no YAML", "wrong"])
def test_invalid_configuration(home: Home, arguments: list[str], code: int, models: str) -> None:
    home.write_models(models)
    result = home.run(*arguments)
    assert result.code == code
    check_sentence(result.err if code == 78 and arguments != ["doctor"] else result.out + result.err)


@pytest.mark.parametrize("line", ["no assignment", "=value", "KEY value"])
def test_invalid_env_file(home: Home, line: str) -> None:
    home.write_models(DEMO)
    (home.config / "env").write_text(f"# fine\nGOOD='a b'\n{line}\n")
    result = home.run("env", "demo")
    assert result.code == 78
    assert f"{home.config / 'env'}:3: expected KEY=value" in result.err
    assert "value" not in result.err.replace("KEY=value", "").replace(str(home.path), "")


def test_env_file_with_a_byte_order_mark(home: Home) -> None:
    home.write_models("settings: {auth_token: '${TOKEN}'}\nmodels:\n" + DEMO)
    (home.config / "env").write_text("TOKEN=a-token-of-the-env-file\n", encoding="utf-8-sig")
    result = home.run("env", "demo", "--shell", "sh")
    assert result.code == 0, result.err
    assert "ANTHROPIC_AUTH_TOKEN=a-token-of-the-env-file" in result.out


def test_the_environment_overrides_the_env_file(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_world_writable_models_yaml_is_refused(home: Home, command: str, what: str) -> None:
    path = home.write_models(DEMO)
    target = path if what == "file" else path.parent
    target.chmod(0o777)
    result = home.run(command)
    target.chmod(0o755)
    assert result.code == 77
    assert f"everybody may write {target}; run 'chmod go-w {target}'" in result.err
    check_sentence(result.err)


def test_check_warns_of_a_world_writable_hook(home: Home) -> None:
    home.write_models(DEMO)
    hooks = home.config / "hooks"
    hooks.mkdir(mode=0o755)
    (hooks / "h.py").write_text("def request_hook(p):\n    return p\n")
    (hooks / "h.py").chmod(0o666)
    result = home.run("check")
    assert result.code == 0
    assert f"hook h: not run, since others may change it: everybody may write {hooks / 'h.py'}" in result.err
    assert f"chmod go-w {hooks / 'h.py'}" in result.err


def test_port_in_use_is_exit_75(home: Home) -> None:
    home.write_models(DEMO)
    with socket.create_server(("127.0.0.1", home.port)):
        result = home.run("run")
    assert result.code == 75
    assert "is in use" in result.err


@pytest.mark.skipif(is_root, reason="root may write everywhere")
@pytest.mark.parametrize("command", ["init", "start"])
def test_home_without_write_permission(home: Home, command: str) -> None:
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
def test_read_only_or_full_home(home: Home, command: str, mount: str, code: int, said: str) -> None:
    if command == "start":
        home.write_models(DEMO)
    else:
        (home.path / ".config").mkdir()
    done = home.process_with_mounts(mount.format(home=home.path), *command.split())
    assert (done.code, len(done.err.splitlines())) == (code, 1), done.err
    assert said in done.err


def test_file_size_limit(home: Home) -> None:
    """A write that the operating system refuses."""
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
def test_missing_service_manager(home: Home, arguments: list[str]) -> None:
    home.write_models(f"settings: {{port: {home.port}}}\nmodels:\n{DEMO}")
    (home.path / "empty").mkdir()
    os.environ["PATH"] = str(home.path / "empty")  # restored by the fixture
    result = home.run("service", *arguments)
    assert result.code == {"install": 1, "status": 3, "uninstall": 0}[arguments[0]]
    check_sentence(result.out + result.err)
    if arguments == ["install"]:
        assert "use 'claude-proxy start'" in result.err
        assert not (home.path / ".config" / "systemd").exists()


def test_systemctl_without_a_user_session(home: Home) -> None:
    home.write_models(DEMO)
    home.program("systemctl", "#!/bin/sh\necho 'Failed to connect to bus: No medium found' >&2\nexit 1\n")
    assert home.run("start").code == 0
    result = home.run("service", "install")
    assert result.code == 1
    assert "no systemd user session" in result.err
    assert not (home.path / ".config" / "systemd").exists()
    assert home.run("status").code == 0, (
        "the daemon that runs is not stopped for a service that cannot be installed"
    )

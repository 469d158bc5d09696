"""The files of deploy/: their paths, ports and settings are those of the program."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from ruamel.yaml import YAML

from proxyd.api.app import build_app
from proxyd.cli.main import COMMANDS
from proxyd.config import database_url
from proxyd.config.networks import is_in
from proxyd.config.settings import TABLE, Settings
from proxyd.daemon.configuration import load_settings
from tests.support.paths import ROOT

DEPLOY = ROOT / "deploy"
PORT = Settings().port
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
#: The replicas' user.
UID = 10001


def read(name: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all((DEPLOY / name).read_text()))


def instruction(name: str) -> list[str]:
    """The values of an instruction of the last stage."""
    stage = DOCKERFILE.rpartition("\nFROM ")[2].replace("\\\n", " ")
    return [line[len(name) + 1 :].strip() for line in stage.splitlines() if line.startswith(f"{name} ")]


def environment() -> dict[str, str]:
    return dict(each.split("=", 1) for value in instruction("ENV") for each in value.split())


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What models.yaml says, with the secrets that the containers get."""
    monkeypatch.setattr(database_url.importlib.util, "find_spec", lambda _: object())
    (tmp_path / "proxy_token").write_text("0123456789abcdef" * 2)
    (tmp_path / "store_url").write_text("postgresql://proxy:secret-of-the-database@database/claude")
    text = (DEPLOY / "models.yaml").read_text()
    names = set(re.findall(r"\$\{file:/run/secrets/(\w+)\}", text))
    assert names == {"proxy_token", "store_url"}
    (tmp_path / "models.yaml").write_text(text.replace("/run/secrets", str(tmp_path)))
    known = {row.env for row in TABLE.values()} | {"CLAUDE_PROXY_MODELS", "STATE_DIRECTORY", "PATH"}
    assert environment().keys() <= known
    config, found = load_settings({}, tmp_path / "models.yaml", environment())
    assert [line for line in config.warnings if "open" not in line and "chmod" not in line] == []
    return found


def test_the_image_runs_the_daemon_as_nobody(settings: Settings) -> None:
    assert instruction("USER") == [f"{UID}:{UID}"]
    assert instruction("EXPOSE") == [str(PORT)] == [environment()["PORT"]]
    assert instruction("ENTRYPOINT") == ['["claude-proxy"]']
    (command,) = instruction("CMD")
    assert command.strip('["]') in COMMANDS
    assert instruction("VOLUME") == [environment()["STATE_DIRECTORY"]]
    copied = f"COPY --chmod=0644 deploy/models.yaml {environment()['CLAUDE_PROXY_MODELS']}"
    assert copied in DOCKERFILE, "readable by the daemon whatever umask the repository was cloned with"
    assert (settings.host, settings.auth) == ("0.0.0.0", "keys")
    assert str(settings.store) == "postgresql://proxy@database/claude"
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for extra in re.findall(r"'\.\[(\w+)\]'", DOCKERFILE):
        assert extra in setup["options.extras_require"]
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:].split("/")[0] for line in ignored if line.startswith("!")}
    needed = {
        path.split("/")[0]
        for path in re.findall(r"^    ([\w./*-]+/[\w.*-]+)$", (ROOT / "setup.cfg").read_text(), re.M)
    }
    assert needed - {"api"} <= allowed
    assert all((ROOT / name).exists() for name in allowed)


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_asks_the_port_that_is_set_and_no_proxy(status: int, code: int) -> None:
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    (check,) = instruction("HEALTHCHECK")
    python, *arguments = json.loads(check.partition("CMD ")[2])
    assert python == "python"
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        variables = {**os.environ, "PORT": str(server.server_port), "http_proxy": "http://127.0.0.1:9"}
        try:
            done = subprocess.run([sys.executable, *arguments], env=variables, timeout=60)
        finally:
            server.shutdown()
            thread.join()
    assert (done.returncode, asked) == (code, ["/readyz"])


def test_compose_starts_two_replicas_behind_one_address(settings: Settings) -> None:
    (compose,) = read("compose.yaml")
    services, secrets = compose["services"], compose["secrets"]
    replicas = [name for name, each in services.items() if each.get("image") == "claude-proxy"]
    assert replicas == ["proxy1", "proxy2"]
    for name in replicas:
        each = services[name]
        assert each["read_only"] is True
        assert each["cap_drop"] == ["ALL"]
        assert set(each["secrets"]) == {"proxy_token", "store_url"}
        assert float(each["stop_grace_period"].rstrip("s")) > settings.drain_timeout_s + 5
        (volume,) = each["volumes"]
        assert volume.split(":")[1] == environment()["STATE_DIRECTORY"]
        assert name in settings.allowed_hosts
    assert len({services[name]["volumes"][0] for name in replicas}) == 2, "each has a state folder of its own"
    for each in services.values():
        assert set(each.get("secrets", ())) <= secrets.keys()
        assert all(port.startswith("127.0.0.1:") for port in each.get("ports", ()))
    made = (DEPLOY / "make-secrets").read_text()
    assert {Path(each["file"]).name for each in secrets.values()} <= set(re.findall(r"> secrets/(\w+)", made))
    database = services["database"]["environment"]
    assert f"postgresql://{database['POSTGRES_USER']}:%s@database/{database['POSTGRES_DB']}" in made
    (prometheus,) = read("prometheus.yml")
    (job,) = prometheus["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [f"{name}:{PORT}" for name in replicas]
    assert job["authorization"]["credentials_file"] == "/run/secrets/proxy_token"
    assert settings.trusted_proxies == (services["haproxy"]["networks"]["default"]["ipv4_address"],)
    (network,) = compose["networks"]["default"]["ipam"]["config"]
    assert is_in(IPv4Address(settings.trusted_proxies[0]), (network["subnet"],))
    assert not is_in(IPv4Address(settings.trusted_proxies[0]), (network["ip_range"],))
    balancer = (DEPLOY / "haproxy.cfg").read_text()
    assert "option forwardfor" in balancer
    assert "http-request del-header forwarded" in balancer
    assert re.findall(r"server (\w+) \1:(\d+)", balancer) == [(name, str(PORT)) for name in replicas]
    assert "uri /readyz" in balancer
    assert "option http-no-delay" in balancer, "else events of a stream wait for each other"


def test_kubernetes_runs_it_without_root_and_asks_its_probes(settings: Settings) -> None:
    deployment, service, budget = read("kubernetes.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, UID)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    (port,) = container["ports"]
    assert port["containerPort"] == PORT
    pause = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > settings.drain_timeout_s + 5 + pause
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("readiness", "liveness")}
    assert {name: each["path"] for name, each in probes.items()} == {
        "readiness": "/readyz",
        "liveness": "/healthz",
    }
    assert all(each["httpHeaders"] == [{"name": "Host", "value": "localhost"}] for each in probes.values())
    mounts = {each["name"]: each for each in container["volumeMounts"]}
    assert mounts["config"]["mountPath"] == environment()["CLAUDE_PROXY_MODELS"]
    assert mounts["config"]["subPath"] == "models.yaml"
    assert mounts["state"]["mountPath"] == environment()["STATE_DIRECTORY"]
    assert mounts["secrets"]["mountPath"] == "/run/secrets"
    assert {each["name"] for each in pod["volumes"]} == mounts.keys()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == budget["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["ports"][0]["port"] == PORT
    assert service["metadata"]["name"] in settings.allowed_hosts
    assert budget["spec"]["minAvailable"] < deployment["spec"]["replicas"]


def test_the_paths_that_are_asked_exist() -> None:
    source = Path(build_app.__code__.co_filename).parent
    text = "".join(path.read_text() for path in source.glob("*.py"))
    for path in ("/readyz", "/healthz", "/metrics"):
        assert re.search(rf'add_get\(f?"(?:\{{prefix\}})?{path}"', text), path


@pytest.mark.skipif(
    shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin") is None, reason="haproxy is not installed"
)
def test_haproxy_takes_its_configuration(tmp_path: Path) -> None:
    program = str(shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin"))
    path = tmp_path / "haproxy.cfg"  # where no replica has to be looked up
    path.write_text(
        re.sub(r"server (\w+) \1:", r"server \1 127.0.0.1:", (DEPLOY / "haproxy.cfg").read_text())
    )
    done = subprocess.run([program, "-c", "-f", path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr


def test_secrets_are_made_once(tmp_path: Path) -> None:
    script = tmp_path / "make-secrets"
    shutil.copy(DEPLOY / "make-secrets", script)
    assert subprocess.run([script], timeout=120).returncode == 0
    token = (tmp_path / "secrets" / "proxy_token").read_text()
    password = (tmp_path / "secrets" / "database_password").read_text()
    assert len(token) == len(password) == 64
    assert (
        tmp_path / "secrets" / "store_url"
    ).read_text() == f"postgresql://proxy:{password}@database/claude"
    again = subprocess.run([script], capture_output=True, text=True, timeout=120)
    assert (again.returncode, "there already" in again.stderr) == (1, True)
    assert (tmp_path / "secrets" / "proxy_token").read_text() == token
    assert "/secrets/" in (DEPLOY / ".gitignore").read_text()

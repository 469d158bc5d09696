"""The configuration as a whole: what is read, from where, and what makes it invalid."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyd.daemon.configuration import hooks_folder, load_configuration, load_settings
from proxyd.errors import ConfigError, UnsafePermissions
from tests.support.hooked import write_hook

MODELS = """
settings:
  max_retries: 1
  port: 4321
models:
  - {model_id: a, api_base: 'http://localhost:1/v1', api_key: '${A_KEY}'}
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text(MODELS)
    path.chmod(0o600)
    return path


def test_flags_override_the_environment_which_overrides_the_file(models: Path) -> None:
    loaded = load_configuration({"port": 1}, str(models), {"PORT": "2", "MAX_RETRIES": "3"})
    assert (loaded.settings.port, loaded.settings.max_retries) == (1, 3)
    loaded = load_configuration({"port": None}, str(models), {})
    assert (loaded.settings.port, loaded.settings.max_retries) == (4321, 1)


def test_variables_are_read_from_the_env_file_too(models: Path) -> None:
    assert load_configuration({}, str(models), {}).config.table.routes[0].missing_key is not None
    env = models.parent / "env"
    env.write_text("A_KEY=from-the-file\n")
    env.chmod(0o600)
    route = load_configuration({}, str(models), {}).config.table.routes[0]
    assert route.api_key is not None
    assert route.api_key.matches("from-the-file")


def test_an_env_file_that_others_can_read_is_a_warning_or_with_strict_a_fault(models: Path) -> None:
    env = models.parent / "env"
    env.write_text("A_KEY=x\n")
    env.chmod(0o644)
    config, _ = load_settings({}, models, {})
    assert any("env" in warning for warning in config.warnings)
    with pytest.raises(UnsafePermissions, match="env"):
        load_settings({}, models, {}, strict=True)


def test_hooks_are_loaded_from_the_folder_beside_the_file(models: Path) -> None:
    write_hook(hooks_folder(models), "mark", "def request_hook(p):\n return p\n")
    assert [file.name for file in load_configuration({}, str(models), {}).hooks.files] == ["mark"]


def test_an_entry_with_an_unknown_hook_is_invalid(models: Path) -> None:
    models.write_text(MODELS.replace("}'}", "}', hooks: [mark]}"))
    with pytest.raises(ConfigError, match="there is no hook 'mark'"):
        load_configuration({}, str(models), {})


def test_all_faults_are_reported_at_once(models: Path) -> None:
    models.write_text("settings: {prot: 1}\nmodels: [{model_id: a}]\n")
    with pytest.raises(ConfigError) as caught:
        load_configuration({}, str(models), {})
    assert len(caught.value.message.splitlines()) == 2

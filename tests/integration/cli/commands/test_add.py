"""``claude-proxy add``: scripts and terminals, what is refused, and that nothing is half written."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from keyring import errors

from proxyd.cli.add_key import keep_found_key
from proxyd.cli.exit_codes import CommandFailed
from proxyd.config.models import load
from proxyd.onboarding import vendors
from proxyd.onboarding.found_key import FoundKey
from tests.support.command_line import Home
from tests.support.keyrings import FILE_VARIABLE, MemoryKeyring, using_keyring
from tests.support.model_servers import OLLAMA, VLLM, ModelServer, serving_in_thread
from tests.support.pty_session import PtySession, pty_session

KEY = "sk-0123456789abcdef"
HOSTED = {
    "/v1/models": {
        "data": [
            {"id": "kimi-k2.6", "context_length": 262_144, "supports_reasoning": True, "supports_image_in": True},
            {"id": "kimi-k3", "context_length": 1_000_000},
            {"id": "text-embedding-1"},
        ]
    }
}  # fmt: skip
KEYRING = {"PYTHON_KEYRING_BACKEND": "tests.support.keyrings.FileKeyring"}
DEMO = "# Mine.\nmodels:\n  # The first.\n  - model_id: demo   # quick\n    api_base: builtin:demo\n"


@contextmanager
def adding(home: Home, *arguments: str, **environ: str) -> Iterator[PtySession]:
    command = [sys.executable, "-m", "proxyd", "add", *arguments]
    with pty_session(command, {**home.environ, **environ}, home.path) as session:
        yield session


def entry(home: Home, model_id: str) -> Any:
    config = load(home.config / "models.yaml", {"MOONSHOT_API_KEY": KEY, "MY_KEY": KEY})
    return next(route for route in config.table.routes if route.model_id == model_id)


def files(home: Home) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in home.path.rglob("*") if path.is_file()}


# -- scripts


def test_a_script_adds_a_model_of_an_address(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write_models(DEMO).chmod(0o600)
    monkeypatch.setenv("MY_KEY", KEY)
    with serving_in_thread(HOSTED, key=KEY) as server:
        done = home.run(
            "add", "--api-base", f"{server.base}/v1", "--provider", "moonshot", "--key-env", "MY_KEY",
            "--model", "kimi-k2.6",
        )  # fmt: skip
    assert done.code == 0, done.err
    assert "kimi-k2.6: responds in" in done.out
    assert re.search(
        r"^Start Claude Code on it:  (\S*/)?claude-proxy code kimi-k2\.6$", done.out, re.MULTILINE
    )
    assert KEY not in done.out + done.err
    assert server.chats[0]["model"] == "kimi-k2.6"
    text = (home.config / "models.yaml").read_text()
    assert text.startswith(DEMO)
    assert "  # Moonshot Kimi: kimi-k2.6. Added by 'claude-proxy add' on 20" in text
    added = entry(home, "kimi-k2.6")
    assert (added.provider, added.max_input_tokens, added.key_origin) == ("moonshot", 262_144, "${MY_KEY}")
    assert not (home.config / "env").exists()


def test_gemini_is_added_with_its_own_api(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    listed = {"name": "models/gemini-3.5-flash", "supportedGenerationMethods": ["generateContent"]}
    documents = {"/v1beta/models?pageSize=1000": {"models": [listed]}}
    with serving_in_thread(documents, key=KEY, key_header="x-goog-api-key") as server:
        gemini = next(each for each in vendors.VENDORS if each.name == "gemini")
        base, where = (
            f"{server.base}/v1beta",
            gemini.list_url.replace(gemini.api_base, f"{server.base}/v1beta"),
        )
        here = replace(gemini, api_base=base, list_url=where)
        monkeypatch.setattr(vendors, "VENDORS", (here,))
        done = home.run("add", "gemini", "--model", "gemini-3.5-flash")
    assert done.code == 0, done.err
    assert "gemini-3.5-flash: responds in" in done.out
    assert "contents" in server.chats[0]
    added = entry(home, "gemini-3.5-flash")
    assert (added.format, added.provider, added.api_base) == ("gemini", "gemini", base)
    assert added.max_input_tokens == 1_048_576, "from the catalog"


VERTEX = "https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5"


def test_vertex_is_added_with_the_credentials_of_google(home: Home) -> None:
    added = ("add", "vertex", "--api-base", VERTEX, "--no-test")
    assert "--model" in home.run(*added).err
    assert home.run(*added, "--model", "gemini-3.5-flash").code == 0
    assert home.run(*added, "--model", "claude-sonnet-4-5@20250929", "--direct", "--id", "c").code == 0
    gemini, claude = entry(home, "gemini-3.5-flash"), entry(home, "c")
    assert (gemini.format, gemini.obtains_token, gemini.provider) == ("gemini", True, None)
    assert (claude.direct, claude.obtains_token, claude.model_name) == (
        True,
        True,
        "claude-sonnet-4-5@20250929",
    )
    checked = home.run("check")
    assert (checked.code, "warning" in checked.out + checked.err) == (0, False), checked.out
    assert "application-default" in checked.out


def test_a_first_entry_makes_the_file_and_a_second_one_joins_it(home: Home) -> None:
    with serving_in_thread(VLLM) as server:
        first = home.run("add", server.base)
        assert first.code == 0, first.err
        again = home.run("add", server.base)
        assert again.code == 64
        assert "Qwen/Qwen3 of vLLM is there already, as Qwen3" in again.err
        assert home.run("add", server.base, "--model", "Qwen/Qwen3", "--id", "second").code == 0
    assert stat.S_IMODE((home.config / "models.yaml").stat().st_mode) == 0o600
    added = entry(home, "Qwen3")
    assert (added.api_base, added.provider) == (f"{server.base}/v1", "vllm")
    assert (added.model_name, added.max_input_tokens, added.api_key) == ("Qwen/Qwen3", 40_960, None)
    assert entry(home, "second").model_name == "Qwen/Qwen3"
    assert home.run("check").code == 0
    assert home.run("models", "remove", "second").code == 0


def test_models_add_with_a_vendor_is_the_same(home: Home) -> None:
    done = home.run("models", "add", "nobody")
    assert done.code == 64
    assert "'nobody' is no vendor that is known; known are kimi, deepseek," in done.err
    assert "--api-base is missing" in home.run("models", "add", "kimi", "--direct").err


def test_figures_that_the_list_lacks_come_from_the_catalog(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOONSHOT_API_KEY", KEY)
    with serving_in_thread({"/v1/models": {"data": [{"id": "kimi-k2.6"}]}}, key=KEY) as server:
        done = home.run("add", "kimi", "--api-base", f"{server.base}/v1", "--model", "kimi-k2.6")
    assert done.code == 0, done.err
    added = entry(home, "kimi-k2.6")
    assert added.max_input_tokens == 262_144
    assert added.pricing is not None
    assert (
        "Figures that the list of models does not have are from https://"
        in (home.config / "models.yaml").read_text()
    )


def test_a_model_that_does_not_respond_is_not_written(home: Home) -> None:
    with serving_in_thread(VLLM) as server:
        before = files(home)
        done = home.run(
            "add", f"{server.base}/v2", "--provider", "vllm", "--model", "m", "--key-env", "MISSING_KEY"
        )
        assert done.code == 64
        assert "MISSING_KEY is not set here, nor in" in done.err
    done = home.run("add", f"{server.base}/v1", "--provider", "vllm", "--model", "m")
    assert done.code == 69
    assert "m: FAILED" in done.out
    assert "nothing was written; --no-test writes the entry all the same" in done.err
    assert files(home) == before
    done = home.run("add", f"{server.base}/v1", "--provider", "vllm", "--model", "m", "--no-test")
    assert done.code == 0
    assert entry(home, "m").provider == "vllm"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ((200, "application/json", b'{"data": []}'), "the list is empty; name the model with --model"),
        (
            (200, "application/json", b'["' + b"x" * (5 << 20) + b'"]'),
            "larger than 4 MB; check the address, or name the model with --model",
        ),
        ((200, "application/json", b""), "got an empty response; check the address, or name"),
        (
            (200, "text/html", b"<html></html>"),
            "got a web page; check the address, or name the model with --m",
        ),
        ((401, "application/json", b'{"error":{"message":"no"}}'), "the key was refused (401: no)"),
    ],
)
def test_a_list_that_is_none(home: Home, document: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOONSHOT_API_KEY", KEY)
    before = files(home)
    with serving_in_thread({"/v1/models": document}) as server:
        done = home.run("add", "kimi", "--api-base", f"{server.base}/v1")
        assert (done.code, files(home)) == (69, before)
        assert said in done.err
        if b"401" not in done.err.encode():  # with a name it goes on, for the call itself is what counts
            named = home.run("add", "kimi", "--api-base", f"{server.base}/v1", "--model", "kimi-k2.6")
            assert named.code == 0, named.err
            assert "warning: " in named.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a vendor ('claude-proxy add kimi') or an address"),
        (("azure",), "has an address for each account; give yours with --api-base"),
        (("ollama",), "no ollama listens on 127.0.0.1:11434"),
        (("kimi",), "MOONSHOT_API_KEY is not set here, nor in"),
        (("kimi", "--key-env", "two words"), "--key-env: expected the name of a variable"),
        (("--api-base", "ftp://x"), "--api-base: expected an http:// or https:// address"),
        (("--api-base", "https://x.example/v1/chat/completions"), "remove /chat/completions at its end"),
        (("kimi", "--id", "x"), "--id names the entry of one model"),
        (("--api-base", "http://127.0.0.1:9/v1", "--provider", "nobody"), "provider: expected one of"),
    ],
)
def test_what_is_missing_or_wrong_in_a_script(home: Home, arguments: tuple[str, ...], said: str) -> None:
    done = home.run("add", *arguments)
    assert done.code != 0
    assert said in done.err
    assert files(home) == {}


def test_no_network(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K", KEY)
    done = home.run("add", "--api-base", "https://nothing.invalid/v1", "--key-env", "K")
    assert done.code == 69
    assert "there is no such host, or no network" in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(home: Home) -> None:
    home.write_models(DEMO).chmod(0o600)
    home.config.chmod(0o500)
    done = home.run("add", "--api-base", "http://127.0.0.1:9/v1", "--model", "m")
    home.config.chmod(0o700)
    assert done.code == 77
    assert "cannot be written" in done.err


def test_files_that_cannot_be_written(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.path / "file").write_text("")
    elsewhere = home.path / "folder"
    (elsewhere / "models.yaml").mkdir(parents=True)
    for place, code, said in (
        (
            "file/models.yaml",
            77,
            "file is no folder, and models.yaml goes there; move it, or name another file",
        ),
        (
            "folder/models.yaml",
            78,
            "expected a file, and this is a folder; move it, or name another with --models",
        ),
    ):
        done = home.run("add", "http://127.0.0.1:9/v1", "--model", "m", "--models", str(home.path / place))
        assert (done.code, said in done.err) == (code, True), done.err
    home.write_models(DEMO).chmod(0o600)
    (home.config / "env").mkdir()
    done = home.run("add", "http://127.0.0.1:9/v1", "--model", "m")
    assert (done.code, done.err) == (
        78,
        f"{home.config / 'env'}: expected a file of KEY=value lines, and this is a folder; move it\n",
    )


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounts need a namespace of root's"
)
def test_a_folder_that_is_mounted_read_only(home: Home) -> None:
    home.write_models(DEMO).chmod(0o600)
    before = files(home)
    mounts = f"mount --bind {home.config} {home.config} && mount -o remount,bind,ro {home.config}"
    done = home.process_with_mounts(mounts, "add", "http://127.0.0.1:9")
    said = f"{home.config} cannot be written, and models.yaml goes there; check its owner, and whether its disk is"
    assert (done.code, said in done.err) == (77, True), done.err
    assert files(home) == before


def test_a_symlink_is_kept_and_a_broken_one_is_named(home: Home) -> None:
    real = home.path / "dotfiles" / "models.yaml"
    real.parent.mkdir()
    real.write_text(DEMO)
    real.chmod(0o600)
    home.config.mkdir(parents=True)
    link = home.config / "models.yaml"
    link.symlink_to("../../dotfiles/models.yaml")
    with serving_in_thread(VLLM) as server:
        assert home.run("add", server.base).code == 0
    assert link.is_symlink()
    assert "Qwen3" in real.read_text()
    assert [path.name for path in real.parent.iterdir()] == ["models.yaml"]
    real.unlink()
    broken = home.run("add", "http://127.0.0.1:9/v1", "--model", "m")
    assert broken.code == 78
    assert f"{link} is a link to {real}, which does not exist" in broken.err


# -- terminals


def test_a_terminal_asks_for_vendor_key_and_model(home: Home) -> None:
    with serving_in_thread(HOSTED, key=KEY) as server, adding(home) as terminal:
        terminal.expect("Vendors:")
        terminal.expect("Number, name or address")
        terminal.type("nobody")
        terminal.expect("There is no 'nobody' in this list.")
        terminal.type("azure")
        terminal.expect("Address of your Azure OpenAI")
        terminal.type(f"{server.base}/v1")
        terminal.expect("only you can read, as AZURE_OPENAI_API_KEY")
        terminal.expect("Paste the key")
        terminal.type("NOT_SET_KEY")
        terminal.expect("NOT_SET_KEY looks like the name of a variable, and it is not set")
        terminal.expect("Paste the key")
        terminal.type("sk-1 2")
        terminal.expect("expected a key without blanks")
        terminal.expect("Paste the key")
        assert terminal.interrupt() == 130
    assert files(home) == {}


def vendor_session(home: Home, server: ModelServer, **environ: str) -> Any:
    return adding(home, "kimi", "--api-base", f"{server.base}/v1", **environ)


@pytest.mark.parametrize("pasted", [f'"Bearer {KEY}"', f"export MOONSHOT_API_KEY='{KEY}'", f"  {KEY} "])
def test_a_pasted_key_is_cleaned_and_kept_in_a_private_file(home: Home, pasted: str) -> None:
    home.config.mkdir(parents=True)
    (home.config / "env").write_text("# Mine.\nOTHER=1")
    (home.config / "env").chmod(0o644)
    with serving_in_thread(HOSTED, key=KEY) as server, vendor_session(home, server) as terminal:
        terminal.expect("Paste the key")
        terminal.type("sk-of-somebody-else")
        terminal.expect("the key was refused (401: Invalid API key); check that it is whole")
        terminal.expect("Paste the key")
        terminal.type(pasted)
        terminal.expect("kimi-k2.6  262k")
        terminal.expect("thinking, vision")
        terminal.type("9")
        terminal.expect("There is no number 9 in this list.")
        terminal.type("1 kimi-k3")
        terminal.expect("kimi-k3: responds in")
        terminal.expect("claude-proxy code kimi-k2.6")
        assert terminal.end() == 0, terminal.screen
    assert KEY not in terminal.screen
    assert (home.config / "env").read_text() == f"# Mine.\nOTHER=1\nMOONSHOT_API_KEY={KEY}\n"
    assert stat.S_IMODE((home.config / "env").stat().st_mode) == 0o600
    assert entry(home, "kimi-k3").max_input_tokens == 1_000_000
    assert KEY not in (home.config / "models.yaml").read_text()


def test_the_name_of_a_variable_in_place_of_the_key(home: Home) -> None:
    with serving_in_thread(HOSTED, key=KEY) as server, vendor_session(home, server, MY_KEY=KEY) as terminal:
        terminal.expect("Paste the key")
        terminal.type("$MY_KEY")
        terminal.expect("Numbers or names")
        terminal.type("k3")  # a part of a name searches
        terminal.expect("kimi-k3")
        terminal.type("1")
        terminal.expect("MY_KEY comes from this shell's environment")
        assert terminal.end() == 0, terminal.screen
    assert entry(home, "kimi-k3").key_origin == "${MY_KEY}"
    assert not (home.config / "env").exists()


def test_a_pasted_key_is_kept_in_the_systems_keyring_if_wanted(home: Home) -> None:
    store = home.path / "keyring.json"
    store.write_text("{}")
    with serving_in_thread(HOSTED, key=KEY) as server:
        with vendor_session(home, server, **KEYRING, **{FILE_VARIABLE: str(store)}) as terminal:
            terminal.expect("only you can read, or in the system's keyring (Test Keyring), as MOONSHOT")
            terminal.expect("Paste the key")
            terminal.type(f"Bearer {KEY}")
            terminal.expect("Numbers or names")
            terminal.type("kimi-k3")
            terminal.expect("Keep the key in the system's keyring instead of")
            terminal.type("y")
            terminal.expect("The system's keyring: MOONSHOT_API_KEY is kept there.")
            assert terminal.end() == 0, terminal.screen
        assert json.loads(store.read_text()) == {"claude-proxy MOONSHOT_API_KEY": KEY}
        assert not (home.config / "env").exists()
        # It is found there the next time, on no terminal too.
        with using_keyring(MemoryKeyring(MOONSHOT_API_KEY=KEY)):
            done = home.run("add", "kimi", "--api-base", f"{server.base}/v1", "--model", "kimi-k2.6")
            assert done.code == 0, done.err
            assert "The key of Moonshot Kimi is MOONSHOT_API_KEY in the system's keyring." in done.out
            checked = home.run("check", "--json")
            keys = [each["key"] for each in json.loads(checked.out)["models"]]
            assert (checked.code, keys) == (0, ["${keyring:MOONSHOT_API_KEY}"] * 2)
        with using_keyring(MemoryKeyring()):
            checked = home.run("check")
            assert checked.code == 0
            assert "missing: ${keyring:MOONSHOT_API_KEY}" in checked.out
            said = re.sub(r"\s+", " ", checked.err)
            assert "models.yaml:10:14: models[0].api_key: the system's keyring has no key MOONSHOT" in said
    assert KEY not in terminal.screen + checked.out + checked.err


def test_a_keyring_that_does_not_keep_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.confirm", lambda *words, **options: True)
    keyring = MemoryKeyring()

    def locked() -> None:
        raise errors.KeyringLocked("locked")

    keyring.on_use = locked
    key = FoundKey("MY_KEY", KEY, is_pasted=True)
    with using_keyring(keyring), pytest.raises(CommandFailed) as caught:
        keep_found_key(key, tmp_path / "env")
    assert caught.value.code == 77
    assert (
        "the key was not kept, and nothing was written: the system's keyring is locked"
        in caught.value.message
    )
    assert list(tmp_path.iterdir()) == []


def test_a_failing_model_is_written_only_if_wanted(home: Home) -> None:
    for answer, code in (("n", 69), ("y", 0)):
        with serving_in_thread(VLLM) as server:
            server.fails = True
            with adding(home, server.base) as terminal:
                terminal.expect("Numbers or names")
                terminal.type("")
                terminal.expect("Qwen3: FAILED")
                terminal.expect("Write it all the same?")
                terminal.type(answer)
                assert terminal.end() == code, terminal.screen
        assert (home.config / "models.yaml").exists() == (answer == "y")


@pytest.mark.parametrize("step", ["vendor", "key", "model", "call", "failed call", "keyring"])
def test_ctrl_c_in_each_step_changes_no_file(home: Home, step: str) -> None:
    home.write_models(DEMO).chmod(0o600)
    (home.config / "env").write_text("A=1\n")
    before = files(home)
    with serving_in_thread(HOSTED) as server:
        vendor = () if step == "vendor" else ("kimi", "--api-base", f"{server.base}/v1")
        with adding(home, *vendor, **(KEYRING if step == "keyring" else {})) as terminal:
            if step == "vendor":
                terminal.expect("Number, name or address")
            else:
                terminal.expect("Paste the key")
            if step not in ("vendor", "key"):
                terminal.type(KEY)
                terminal.expect("Numbers or names")
            if step in ("failed call", "keyring"):
                server.fails = step == "failed call"
                terminal.type("1")
                terminal.expect("Write it all the same?" if server.fails else "Keep the key in the system's")
            if step == "call":
                server.is_slow.set()
                terminal.type("1")
                terminal.expect("Calling kimi-k2.6 ...")
            code = terminal.interrupt()
    assert code == 130, terminal.screen
    assert files(home) == before


def test_a_local_server_by_its_name(home: Home) -> None:
    with serving_in_thread(OLLAMA) as server:
        done = home.run("add", server.base)
    assert done.code == 0, done.err
    added = entry(home, "qwen3-coder:30b")
    assert (added.provider, added.max_input_tokens) == ("ollama", 65_536)

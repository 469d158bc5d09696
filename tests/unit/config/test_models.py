"""Reader of models.yaml: the route field of each key, keys and files. Faults of entries are in `test_entries.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.config.models import ModelRoute, Pricing, Timeouts, load, load_text
from proxyd.config.yaml import MAX_BYTES
from proxyd.errors import ConfigError, UnsafePermissions
from proxyd.providers.route_warnings import route_warnings
from tests.support.effort import examples
from tests.support.models_yaml import ALL_EXAMPLES, HEAD, TOKENS, faults, only, read
from tests.support.paths import ROOT

EXAMPLE = ROOT / "config" / "models.yaml"

# -- what is read


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("8192", 8192), ("8_192", 8192), ("8k", 8000), ("8K", 8000), ("1.5k", 1500), ("1m", 1_000_000),
        ("1.048576M", 1_048_576), ("'200 k'", 200_000), ("'8192'", 8192), ("0.5k", 500),
        ("1_000k", 1_000_000),
    ],
)  # fmt: skip
def test_token_counts(written: str, count: int) -> None:
    assert only(f"{HEAD}  max_tokens: {written}\n").max_tokens == count


def test_every_key_reaches_the_route() -> None:
    text = """\
settings: {port: 9000}
models:
  - model_id: translated
    model_name: up/stream
    api_base: https://api.example.com/v1/
    format: openai
    provider: deepseek
    api_key: ${KEY}
    can_stream: false
    max_tokens: 8k
    context: 128k
    temperature: 1
    top_p: 0.5
    reasoning_effort: none
    extra_body: {a: {b: [1, 2.5, null, true, "x", 2020-01-01]}}
    extra_headers: {X-Title: t}
    aliases: ["t-*", other]
    fallback: direct
    pricing: {input: 1, output: 2.5}
    vision: false
    accepts_anthropic_login: true
    timeouts: {connect_s: 1, total_s: 0}
    quirks: {known: 1}
    hooks: []
  - {model_id: direct, api_base: "https://d.example.com", direct: true, omit: [output_config],
  max_input_tokens: 1m}
"""
    config = read(text, KEY=" sk-1 ")
    translated, direct = config.table.routes
    assert translated.api_key is not None
    assert translated.api_key.reveal() == "sk-1"
    assert translated == ModelRoute(
        model_id="translated",
        model_name="up/stream",
        api_base="https://api.example.com/v1",
        format="openai-chat",
        provider="deepseek",
        api_key=translated.api_key,
        key_origin="${KEY}",
        can_stream=False,
        max_tokens=8000,
        max_input_tokens=128_000,
        temperature=1.0,
        top_p=0.5,
        reasoning_effort="none",
        extra_body={"a": {"b": [1, 2.5, None, True, "x", "2020-01-01"]}},
        extra_headers={"X-Title": "t"},
        aliases=("t-*", "other"),
        fallback=("direct",),
        pricing=Pricing(input=1.0, output=2.5),
        vision=False,
        timeouts=Timeouts(connect_s=1.0, total_s=0.0),
        quirks={"known": 1},
        accepts_anthropic_login=True,
        hooks=(),
    )
    assert direct == ModelRoute(
        model_id="direct",
        model_name="direct",
        api_base="https://d.example.com",
        direct=True,
        omit=("output_config",),
        max_input_tokens=1_000_000,
    )
    assert (config.settings, config.settings_at) == ({"port": 9000}, {"port": "models.yaml:1:18"})
    (warning,) = config.warnings
    assert warning.startswith("models.yaml:18:15: models[0].fallback: 'direct' is at another address")


def test_merge_keys_share_what_entries_have_in_common() -> None:
    text = """\
- &base
  model_id: fast
  api_base: https://api.example.com/v1
  context: 8k
- <<: *base
  model_id: deep
  reasoning_effort: high
"""
    fast, deep = read(text).table.routes
    assert (deep.api_base, deep.max_input_tokens, deep.reasoning_effort) == (fast.api_base, 8000, "high")
    bad = faults(text.replace("8k", "x"))
    assert bad == [f"models.yaml:4:12: models[{n}].context: {TOKENS}'x'" for n in (0, 1)]


def test_an_anchor_may_be_redefined() -> None:
    text = "".join(
        f"- &a {{model_id: {one}, api_base: 'https://{one}'}}\n- {{<<: *a, model_id: {two}}}\n"
        for one, two in [("m", "n"), ("o", "p")]
    )
    assert [route.api_base for route in read(text).table.routes] == ["https://m"] * 2 + ["https://o"] * 2


@pytest.mark.parametrize("block", ["settings:\n", "settings: {}\n", "settings:\n  # port: 1\n"])
def test_settings_may_be_commented_out(block: str) -> None:
    assert read(f"{block}models:\n{HEAD}").settings == {}


def test_yaml_1_1_words_are_texts_unless_the_file_asks_for_1_1() -> None:
    assert only(HEAD + "  aliases: [on, 'no']\n").aliases == ("on", "no")
    old = "%YAML 1.1\n---\n" + HEAD
    assert only(old + "  can_stream: no\n  extra_body: {a: 0x1F, b: -5, c: 1_0.5}\n").extra_body == {
        "a": 31, "b": -5, "c": 10.5,
    }  # fmt: skip


# -- keys


def test_a_missing_variable_affects_only_its_entry() -> None:
    text = HEAD + "  api_key: ${NO_SUCH}\n" + HEAD.replace(" m\n", " n\n") + "  api_key: sk-literal\n"
    config = read(text)
    missing, literal = config.table.routes
    assert missing.api_key is None
    assert missing.missing_key == (
        "model 'm' has no key: NO_SUCH is not set where claude-proxy runs; run `export NO_SUCH=KEY` and start it "
        "again, or write NO_SUCH=KEY into the file env beside models.yaml, which is read at once"
    )
    assert (missing.key_origin, literal.key_origin) == ("${NO_SUCH}", "literal")
    assert literal.missing_key is None


@pytest.mark.parametrize("value", ["", "  ", "a\nb", "ключ"])
def test_a_variable_without_a_valid_key(value: str) -> None:
    route = only(HEAD + "  api_key: ${K}\n", K=value)
    assert route.api_key is None
    assert "K is not set" in str(route.missing_key) or "K holds characters" in str(route.missing_key)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_key_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "beside.key", "sk-beside\n")
    write(tmp_path / "absolute.key", "sk-absolute")
    write(tmp_path / "empty.key", "\n")
    write(tmp_path / "two.key", "sk-1\nsk-2\n")
    names = ["beside.key", f"{tmp_path}/absolute.key", "~/beside.key", "empty.key", "two.key", "none.key"]
    entries = [
        f"- model_id: m{n}\n  api_base: builtin:x\n  api_key: ${{file:{name}}}\n"
        for n, name in enumerate(names)
    ]
    text = "".join(entries).replace("builtin:x", "https://api.example.com")
    routes = load(write(tmp_path / "models.yaml", text), {}).table.routes
    keys = [route.api_key.reveal() if route.api_key else route.missing_key for route in routes]
    remedy = "write the key alone into it and reload"
    assert keys == [
        "sk-beside",
        "sk-absolute",
        "sk-beside",
        f"model 'm3' has no key: the key file {tmp_path}/empty.key holds no key; {remedy}",
        f"model 'm4' has no key: the key file {tmp_path}/two.key holds no key; {remedy}",
        f"model 'm5' has no key: the key file {tmp_path}/none.key cannot be read "
        f"(no such file or directory); {remedy}",
    ]


def test_systemd_credentials_replace_variables(tmp_path: Path) -> None:
    write(tmp_path / "MY_KEY", "sk-cred\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    route = only(HEAD + "  api_key: ${MY_KEY}\n", **environ)
    assert route.api_key is not None
    assert route.api_key.reveal() == "sk-cred"
    route = only(HEAD + "  api_key: ${MY_KEY}\n", MY_KEY="sk-env", **environ)
    assert route.api_key is not None
    assert route.api_key.reveal() == "sk-env"


@pytest.mark.statement("E7")
@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_files_with_keys_that_others_can_read(tmp_path: Path, mode: int) -> None:
    key = write(tmp_path / "k", "sk-1", mode)
    path = write(tmp_path / "models.yaml", HEAD + "  api_key: ${file:k}\n", mode)
    expected = f"{path}:3:12: models[0].api_key: others can read the key file; run 'chmod 600 {key}'"
    assert load(path, {}).warnings == (expected,)
    with pytest.raises(UnsafePermissions) as caught:
        load(path, {}, strict=True)
    assert caught.value.message == expected

    write(path, HEAD + "  extra_headers: {Authorization: Bearer sk-1}\n", mode)
    expected = f"{path}: others can read this file, and it holds a key; run 'chmod 600 {path}'"
    assert load(path, {}).warnings == (expected,)
    with pytest.raises(UnsafePermissions, match="holds a key"):
        load(path, {}, strict=True)
    path.chmod(0o600)
    assert load(path, {}, strict=True).warnings == ()


def test_another_fault_with_open_permissions_is_a_config_error(tmp_path: Path) -> None:
    path = write(tmp_path / "models.yaml", HEAD + "  api_key: sk-1\n  top_p: 7\n", 0o644)
    with pytest.raises(ConfigError) as caught:
        load(path, {}, strict=True)
    assert not isinstance(caught.value, UnsafePermissions)
    assert len(caught.value.message.splitlines()) == 2


def test_a_token_in_the_settings_is_a_key_in_the_file(tmp_path: Path) -> None:
    text = "settings: {auth_token: %s}\nmodels:\n" + HEAD
    literal = write(tmp_path / "literal.yaml", text % "abc", 0o644)
    reference = write(tmp_path / "reference.yaml", text % "'${TOKEN}'", 0o644)
    assert any("it holds a key" in line for line in load(literal, {}).warnings)
    assert load(reference, {}).warnings == ()


@pytest.mark.parametrize(
    ("host", "warns"),
    [
        ("api.example.com", True),
        ("8.8.8.8", True),
        ("localhost:1", False),
        ("10.0.0.5", False),
        ("gpu.lan", False),
    ],
)
def test_plain_http_to_a_public_host_is_warned_about(host: str, warns: bool) -> None:
    warnings = read(f"- model_id: m\n  api_base: http://{host}/v1\n").warnings
    text = "plain http to a public host shows keys and prompts to the network; use https"
    assert warnings == ((f"models.yaml:2:13: models[0].api_base: {text}",) if warns else ())


def test_an_alias_of_two_entries_is_warned_about() -> None:
    config = read(HEAD + "  aliases: [a]\n" + HEAD.replace(" m\n", " n\n") + "  aliases: [b, a]\n")
    text = "'a' is an alias on line 3 already, and that one wins"
    assert config.warnings == (f"models.yaml:6:16: models[1].aliases[1]: {text}",)
    assert config.table.resolve("a") is config.table.routes[0]


# -- the file


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    remedy = "run 'claude-proxy add' to write one, or name another with --models"
    for path, fault in [
        (tmp_path / "none.yaml", f": there is no such file; {remedy}"),
        (tmp_path, ": expected a file, and this is a folder; move it, or name another with --models"),
        (
            write(tmp_path / "a" if False else tmp_path / "f", "") / "x",
            f": cannot be read (not a directory); {remedy}",
        ),
    ]:
        with pytest.raises(ConfigError) as caught:
            load(path, {})
        assert caught.value.message == f"{path}{fault}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = write(tmp_path / "models.yaml", HEAD, 0o000)
    with pytest.raises(ConfigError, match=r"cannot be read \(permission denied\)"):
        load(path, {})


def test_encodings(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + HEAD.encode().replace(b"\n", b"\r\n"))
    assert load(path, {}).table.ids() == ("m",)
    path.write_bytes("# ä\n# ö".encode() + b"x\xff\n")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert caught.value.message == f"{path}:2:5: expected UTF-8; this byte is not; save the file as UTF-8"
    path.write_bytes(b"#" * MAX_BYTES + "ä".encode())
    with pytest.raises(ConfigError, match="larger than 512 KiB"):
        load(path, {})


def test_a_fallback_that_no_key_reaches_is_warned_about() -> None:
    text = """\
- {model_id: a, api_base: "https://one.example/v1", fallback: [b, c, d, e, f]}
- {model_id: b, api_base: "https://two.example/v1"}
- {model_id: c, api_base: "https://two.example/v1", api_key: "${NAME}"}
- {model_id: d, api_base: "https://one.example/anthropic", direct: true}
- {model_id: e, api_base: "http://localhost:8000/v1"}
- {model_id: f, api_base: "builtin:demo"}
"""
    assert read(text).warnings == (
        "models.yaml:1:64: models[0].fallback[0]: 'b' is at another address and will be passed over, since the "
        "client's key does not go there; give it an api_key",
    )


def test_the_example_loads_without_variables() -> None:
    config = load(EXAMPLE, {})
    assert config.table.ids()[0] == "demo"
    assert config.table.routes[0].is_demo
    assert config.table.routes[0].missing_key is None
    assert config.warnings == ()
    assert list(route_warnings(config.table.routes)) == [], "a first start needs no key"
    assert EXAMPLE.read_text(encoding="utf-8").startswith(
        "# yaml-language-server: $schema=models.schema.json\n"
    )
    assert config.table.ids() == ("demo",)
    table = load_text(ALL_EXAMPLES, EXAMPLE, {}).table
    coder = table.resolve("coder")
    assert coder is not None
    assert [route.model_id for route in table.fallbacks(coder)] == ["openrouter/qwen3-coder", "local"]


# -- anything at all


FRAGMENTS = """
- |model_id: m|api_base: https://x|{|}|[|]|: |, |&a |*a|<<: |!!int |!x |'|"|>|# |? |0x|1_0|true|~|models:
settings:|aliases|fallback: [m]|api_key: ${X}|%YAML 1.1|%TAG ! !|---|...|\\x
"""
YAML_LIKE = st.lists(
    st.sampled_from([*FRAGMENTS.replace("\n", "|").split("|"), "\n", "\n  ", "\t", "|", "\u2028", "\ufeff"]),
    max_size=25,
).map("".join)


@settings(max_examples=examples(400), deadline=None)
@given(st.one_of(YAML_LIKE, st.text(max_size=60), st.builds(str.__add__, st.just(HEAD + "  "), YAML_LIKE)))
def test_any_text_gives_a_table_or_a_config_error(text: str) -> None:
    try:
        config = read(text)
    except ConfigError as exc:
        lines = exc.message.split("\n")
    else:
        lines = []
        assert config.table.routes
    assert all(line.startswith("models.yaml:") for line in lines)


@settings(max_examples=examples(100), deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_table_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError):
        load(path, {})

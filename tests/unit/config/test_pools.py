"""Keys of a pool: their forms, names and faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.models_yaml import HEAD, faults, only, read

#: Lines below HEAD -> the faults they make, from the column on (HEAD has two lines).
FAULTS = [
    ("api_keys: $A", ["13: models[0].api_keys: expected a list, each a key, ${ENV_NAME}, ${file:PATH} or "
     "${keyring:NAME} or a mapping such as {key: ${NAME}, weight: 2}, 1 to 100 of them; got no list"]),
    ("api_keys: []", ["13: models[0].api_keys: expected a list, each a key, ${ENV_NAME}, ${file:PATH} or "
     "${keyring:NAME} or a mapping such as {key: ${NAME}, weight: 2}, 1 to 100 of them; got 0 in a list"]),
    ("api_keys: [x${A}]", ["14: models[0].api_keys[0]: expected a literal key, or ${ENV_NAME}, ${file:PATH} or "
     "${keyring:NAME} with nothing around it"]),
    ("api_keys: [{weight: 2}]", ["14: models[0].api_keys[0]: key is missing; write {key: ${NAME}, weight: 2}"]),
    ("api_keys: [{key: a-key, weight: 0}]", ["35: models[0].api_keys[0].weight: expected a weight from 0.001 to "
     "1000; got 0"]),
    ("api_keys: [{key: a-key, weigth_: 2}]", ["27: models[0].api_keys[0].weigth_: unknown key; did you mean "
     "'weight'?"]),
    ("api_keys: [one-key, one-key]", ["23: models[0].api_keys[1]: the same key is in this list twice; keep one, with "
     "a weight"]),
    ("api_keys: [{key: sk-12345678, name: '1234'}]", ["14: models[0].api_keys[0]: the name '1234' is that of another "
     "key, or a part of the key; choose another"]),
    ("api_keys: [{key: one-key, name: a}, {key: two-key, name: a}]", ["39: models[0].api_keys[1]: the name 'a' is "
     "that of another key, or a part of the key; choose another"]),
]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), FAULTS)
def test_each_fault_names_its_place(line: str, expected: list[str]) -> None:
    found = faults(f"{HEAD}  {line}\n")
    assert found == [f"models.yaml:3:{each}" for each in expected]


def test_one_key_or_several() -> None:
    (fault,) = faults(f"{HEAD}  api_key: a-key\n  api_keys: [b-key]\n")
    assert fault.endswith("models[0].api_keys: api_key stands there too; move its key into this list")


def test_references_within_brackets_need_no_quotes(tmp_path: Path) -> None:
    key = tmp_path / "zai"
    key.write_text("key-of-zai-1234")
    key.chmod(0o600)
    line = f'api_keys: [${{A}}, "${{B}}", {{key: ${{C}}, weight: 2}}, ${{file:{key}}}, a-literal-key]'
    route = only(
        f"{HEAD}  {line}\n  extra_body: {{note: a ${{A}} b}}\n",
        A="key-a-1234",
        B="key-b-1234",
        C="key-c-1234",
    )
    assert [(each.name, each.secret.reveal(), each.weight) for each in route.api_keys] == [
        ("A", "key-a-1234", 1),
        ("B", "key-b-1234", 1),
        ("C", "key-c-1234", 2),
        ("zai", "key-of-zai-1234", 1),
        ("key-5", "a-literal-key", 1),
    ]
    assert route.extra_body == {"note": "a ${A} b"}, "other texts are what they were"
    assert route.api_key == route.api_keys[0].secret
    assert route.missing_key is None


def test_a_name_is_never_a_part_of_its_key() -> None:
    route = only(f"{HEAD}  api_keys: [${{ABCD}}, ${{B}}, ${{B_2}}]\n", ABCD="sk-ABCD-9", B="sk-2", B_2="sk-3")
    assert [each.name for each in route.api_keys] == ["key-1", "B", "B_2"]


def test_a_written_name_comes_before_a_derived_one() -> None:
    route = only(f"{HEAD}  api_keys: [${{A}}, {{key: ${{B}}, name: A}}]\n", A="sk-1", B="sk-2")
    assert [each.name for each in route.api_keys] == ["A-2", "A"]


def test_missing_keys_are_warned_of_and_the_others_serve() -> None:
    config = read(f"{HEAD}  api_keys: [${{A}}, ${{B}}]\n", B="key-b-1234")
    (route,) = config.table.routes
    assert [each.name for each in route.api_keys] == ["B"]
    (warning,) = config.warnings
    assert warning.startswith("models.yaml:3:14: models[0].api_keys[0]: A is not set where claude-proxy runs")
    assert warning.endswith("until then the other keys of this entry serve its calls")


def test_without_any_key_the_entry_says_what_is_missing() -> None:
    route = only(f"{HEAD}  api_keys: [${{A}}, ${{B}}]\n")
    assert (route.api_keys, route.key_origin) == ((), "${A}, ${B}")
    assert route.missing_key is not None
    assert route.missing_key.startswith("model 'm' has no key: A is not set")
    assert "; B is not set" in route.missing_key


def test_key_files_that_others_can_read_are_warned_of(tmp_path: Path) -> None:
    key = tmp_path / "open"
    key.write_text("key-1234")
    key.chmod(0o644)
    config = read(f"{HEAD}  api_keys: [${{file:{key}}}]\n")
    assert [line for line in config.warnings if "others can read the key file" in line]

"""Resolution of API keys. Tests through models.yaml are in test_models.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyd.config.secrets import is_open_to_others, read_credential


def test_literal_and_variable() -> None:
    literal = read_credential(" sk-1 ", {}, Path())
    assert literal.secret is not None
    assert (literal.secret.reveal(), literal.origin) == ("sk-1", "literal")
    variable = read_credential("${K}", {"K": " sk-2 "}, Path())
    assert variable.secret is not None
    assert (variable.secret.reveal(), variable.origin) == ("sk-2", "${K}")


@pytest.mark.parametrize(
    "text", ["$K", "x${K}", "${K}${K}", "${}", "${keyring:}", "x${keyring:K}", "k\nk", "schlüssel"]
)
def test_invalid_references_raise_without_their_text(text: str) -> None:
    with pytest.raises(ValueError, match="expected a") as caught:
        read_credential(text, {"K": "sk"}, Path())
    assert text not in str(caught.value)


def test_key_file_open_to_others(tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_text("sk-3\n", encoding="ascii")
    path.chmod(0o644)
    assert is_open_to_others(path)
    assert read_credential("${file:k}", {}, tmp_path).open_file == path
    path.chmod(0o600)
    assert read_credential("${file:k}", {}, tmp_path).open_file is None
    assert not is_open_to_others(tmp_path / "missing")

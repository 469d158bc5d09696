"""What ``make audit`` says: advisories where an index of them answers, else one line and no failure."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.system.audit import audit, main

FOUND = """
import sys
report = sys.argv[sys.argv.index("--output") + 1]
if "--vulnerability-service pypi" in " ".join(sys.argv):
    open(report, "w").write('{"dependencies": [{"name": "aiohttp", "skip_reason": "not found"}]}')
    sys.exit(0)
open(report, "w").write('''{"dependencies": [
  {"name": "sound", "version": "1", "vulns": []}, {"name": "own", "skip_reason": "not found"},
  {"name": "aiohttp", "version": "3.14.2", "vulns": [
    {"id": "PYSEC-1", "aliases": ["GHSA-1"], "fix_versions": ["3.14.3"], "description": "d"}]}]}''')
sys.exit(1)
"""


def test_advisories_are_listed_by_whichever_index_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tool.py").write_text(FOUND)
    assert audit([sys.executable, str(tmp_path / "tool.py")]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "not known to the index: own",
        "aiohttp 3.14.2: PYSEC-1, GHSA-1; fixed in 3.14.3",
        "audit: 1 known advisories for 2 packages (asked of osv)",
    ]


def test_no_index_is_one_line_and_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "pip-audit"
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('ERROR: no connection')\n")
    program.chmod(0o755)
    assert main(tmp_path) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("audit: no index of advisories can be reached")


def test_no_aiohttp_with_known_request_smuggling_is_let_in() -> None:
    """GHSA-mfx4-hv73-q22v and GHSA-cq5v-8q36-5273, fixed in 3.14.3."""
    (wanted,) = [each for each in metadata.requires("claude-proxyd") or () if each.startswith("aiohttp<")]
    assert ">=3.14.3" in wanted
    assert "<4" in wanted

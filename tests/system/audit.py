"""``make audit``: the known advisories of what is installed in this environment.

pip-audit asks an index of advisories about each installed package. It is installed into an environment of its own, so
that what it needs does not mix with what it looks at. Where it cannot be installed, or no index answers, that is said
in one line and is no failure: nothing is known then, neither good nor bad.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["audit", "main"]

#: The version that was tried.
PIP_AUDIT = "pip-audit==2.10.1"
#: Both have the advisories of PyPI; either may be out of reach.
INDEXES = ("pypi", "osv")
_LIMIT_S = 300


def main(folder: Path) -> int:
    """Install pip-audit into `folder`, unless it is there; audit this environment."""
    program = folder / "bin" / "pip-audit"
    if not program.exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, timeout=_LIMIT_S)
            install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", PIP_AUDIT]
            subprocess.run(install, check=True, capture_output=True, timeout=_LIMIT_S)
        except (OSError, subprocess.SubprocessError):
            print(f"audit: {PIP_AUDIT} cannot be installed from the package index; nothing was looked up")
            return 0
    return audit([str(program)])


def audit(program: list[str]) -> int:
    """Print what `program`, a pip-audit, finds; 1 where it finds any advisory."""
    for index in INDEXES:
        found = _advisories(program, index)
        if found is not None:
            break
    else:
        print(f"audit: no index of advisories can be reached ({', '.join(INDEXES)}); nothing was looked up")
        return 0
    count = 0
    unknown = [package["name"] for package in found if "skip_reason" in package]
    if unknown:
        print(f"not known to the index: {', '.join(unknown)}")
    for package in found:
        for advisory in package.get("vulns", ()):
            count += 1
            names = ", ".join([advisory["id"], *advisory.get("aliases", ())])
            fixed = ", ".join(advisory.get("fix_versions", ())) or "no version"
            print(f"{package['name']} {package['version']}: {names}; fixed in {fixed}")
    known = len(found) - len(unknown)
    print(f"audit: {count} known advisories for {known} packages (asked of {index})")
    return 1 if count else 0


def _advisories(program: list[str], index: str) -> list[dict[str, Any]] | None:
    """What is known of each installed package; None where `index` gives no response."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            *program,
            *("--path", sysconfig.get_path("purelib"), "--vulnerability-service", index),
            *("--format", "json", "--output", str(report), "--progress-spinner", "off", "--timeout", "10"),
        ]
        try:
            subprocess.run(command, check=False, capture_output=True, timeout=_LIMIT_S)
            found = json.loads(report.read_bytes())["dependencies"]
        except (OSError, subprocess.SubprocessError, ValueError, KeyError):
            return None
        # A mirror of packages alone knows none of them.
        is_answer = isinstance(found, list) and any("skip_reason" not in package for package in found)
        return found if is_answer else None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

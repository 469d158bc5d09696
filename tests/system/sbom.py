"""``make sbom``: the bill of materials of an installation, from the metadata of what is installed here.

It lists claude-proxyd and everything that it needs at run time, with versions, licences and package URLs, in the form
of CycloneDX 1.5; ``--licences`` prints a table instead. Nothing is looked up.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

__all__ = ["bill_of_materials", "licence_of", "main", "needed"]

NAME = "claude-proxyd"


def needed(name: str = NAME) -> list[Distribution]:
    """Return the distribution `name` and what it needs on this Python, each once, sorted by name."""
    found: dict[str, Distribution] = {}
    queue: list[tuple[str, frozenset[str]]] = [(name, frozenset())]
    for current, extras in queue:
        key = _normal(current)
        if key in found:
            continue
        found[key] = distribution(current)
        for text in found[key].requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in (*extras, "")
            ):
                queue.append((requirement.name, frozenset(requirement.extras)))
    return [found[key] for key in sorted(found)]


def licence_of(package: Distribution) -> str:
    """Return the licence that the metadata names: the expression, the classifiers, or the free text's first line."""
    meta = package.metadata
    if meta.get("License-Expression"):
        return str(meta["License-Expression"])
    classified = [
        line.rpartition(" :: ")[2]
        for line in meta.get_all("Classifier") or ()
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    if classified:
        return ", ".join(sorted(set(classified)))
    text = str(meta.get("License") or "").strip()
    return text.splitlines()[0] if text else "not named"


def bill_of_materials(packages: Sequence[Distribution]) -> dict[str, object]:
    """Return the document; it has no serial number and no time, so that equal environments give equal ones."""
    components = [
        {
            "type": "application" if _normal(each.metadata["Name"]) == NAME else "library",
            "name": each.metadata["Name"],
            "version": each.version,
            "licenses": [{"license": {"name": licence_of(each)}}],
            "purl": f"pkg:pypi/{_normal(each.metadata['Name'])}@{each.version}",
        }
        for each in packages
    ]
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components}


def main(arguments: Sequence[str]) -> None:
    """Print the document, or with ``--licences`` a table."""
    try:
        packages = needed()
    except PackageNotFoundError as exc:
        raise SystemExit(f"{exc.name} is not installed here; run 'pip install -e .' again") from None
    if list(arguments) == ["--licences"]:
        for each in packages:
            print(f"{each.metadata['Name']:24} {each.version:12} {licence_of(each)}")
    elif arguments:
        raise SystemExit("usage: python -m tests.system.sbom [--licences]")
    else:
        print(json.dumps(bill_of_materials(packages), indent=2))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main(sys.argv[1:])

"""A software bill of materials of this environment: CycloneDX 1.5 as JSON on standard output.

    python scripts/sbom.py > sbom.json

What is installed, by name, version, licence and the SHA-256 of its list of files (RECORD), which names the hash of each
file. Needs nothing but the standard library; equal environments give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from importlib.metadata import Distribution, distributions
from typing import Any


def component(package: Distribution) -> dict[str, Any]:
    """One installed package."""
    name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
    found: dict[str, Any] = {
        "type": "library",
        "name": name,
        "version": package.version,
        "purl": f"pkg:pypi/{name}@{package.version}",
        "bom-ref": f"{name}@{package.version}",
    }
    licence = package.metadata.get("License-Expression") or package.metadata.get("License") or ""
    if licence and "\n" not in licence and len(licence) < 80:
        found["licenses"] = [{"license": {"name": licence}}]
    record = package.read_text("RECORD")
    if record:
        listed = "\n".join(sorted(line for line in record.splitlines() if ".pyc," not in line))
        found["properties"] = [{"name": "record-sha256", "value": hashlib.sha256(listed.encode()).hexdigest()}]
    return found


def main() -> None:
    """Print the bill."""
    found = {part["bom-ref"]: part for part in map(component, distributions())}
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"properties": [{"name": "python", "value": sys.version.split()[0]}]},
        "components": [found[reference] for reference in sorted(found)],
    }
    json.dump(bill, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()

"""Compares the contract with that of the last release; breaking it takes a greater major version.

Redocly CLI says what has changed. This says what of it breaks clients as the contract's own rules define it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

LINT = Path(__file__).parent
CONTRACT = LINT.parent / "openapi" / "contracts" / "rest-api.yaml"
RELEASED = LINT / "released" / "rest-api.yaml"
REDOCLY = LINT / "node_modules" / ".bin" / "redocly"
# These may grow within a major version: clients are told to ignore what they do not know.
MAY_GROW = "#/components/schemas/Problem/properties/code/enum"


def compare(base: Path, revision: Path) -> dict[str, Any]:
    """Return Redocly's report: both versions and every change between two contracts."""
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    command = [str(REDOCLY), "diff", str(base), str(revision), "--format=json", "--fail-on=none"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, env=os.environ | quiet)
    if done.returncode:
        sys.exit(done.stderr)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def breaks(change: dict[str, Any]) -> bool:
    """Tell whether a client of the base may fail against the revision."""
    rules = {verdict["ruleId"] for verdict in change["verdicts"]}
    if rules == {"enum-values-added"} and change["base"]["pointer"] == MAY_GROW:
        return False
    # Redocly takes these for no more than a patch.
    is_security = "security" in change["path"].split("/") or change.get("property") == "security"
    is_promised_header = change["typeName"] == "Header" and change.get("property") == "required"
    return change["impact"] == "major" or is_security or is_promised_header


def describe(change: dict[str, Any]) -> str:
    """Return a line for people."""
    place = change["path"].removeprefix("#/paths/").replace("~1", "/").replace("~0", "~")
    reasons = [verdict["message"] for verdict in change["verdicts"]] or [f"{change.get('property', 'it')} changed"]
    return f"  {place}: {' '.join(reasons)}"


def numbers(version: str) -> list[int]:
    """Return the parts of a version, to compare."""
    return [int(part) for part in version.split(".")]


def main() -> int:
    """Print the verdict and return the exit code."""
    if not RELEASED.is_file():
        print(f"There is no {RELEASED.relative_to(LINT.parent)}, the contract of the last release, to compare with.")
        return 1
    report = compare(RELEASED, CONTRACT)
    released, current = report["infoVersions"]["base"], report["infoVersions"]["revision"]
    if numbers(released) > numbers(current):
        print(f"Version {current} of the contract is older than {released}, which has been released.")
        return 1
    broken = [describe(change) for change in report["changes"] if breaks(change)]
    if not broken:
        print(f"The contract keeps what {released} promised.")
        return 0
    print(f"The contract breaks what {released} promised:", *dict.fromkeys(broken), sep="\n")
    if numbers(current)[0] > numbers(released)[0]:
        print("The major version has grown, so it may.")
        return 0
    print(f"Keep it, or let info.version begin with {numbers(released)[0] + 1}.")
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""Compares the contract with that of the last version tag; breaking it takes a greater major version.

Redocly CLI says what has changed. This says what of it breaks clients as the contract's own rules define it.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CONTRACT = "openapi/contracts/rest-api.yaml"
REDOCLY = Path(__file__).parent / "node_modules" / ".bin" / "redocly"
# These may grow within a major version: clients are told to ignore what they do not know.
MAY_GROW = "#/components/schemas/Problem/properties/code/enum"


def git(*arguments: str) -> str:
    """Return what git prints, nothing where it fails."""
    # A checkout may belong to another user, as it does in a container.
    command = ["git", "-c", "safe.directory=*", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False).stdout


def last_tag() -> str | None:
    """Return the greatest version tag; a shallow clone has to ask where it came from."""
    for attempt in range(2):
        tags = git("tag", "--list", "v[0-9]*", "--sort=-version:refname").split()
        if tags or attempt:
            return tags[0] if tags else None
        git("fetch", "--quiet", "--tags", "--depth=1")
    return None


def changes(base: str, revision: str) -> list[dict[str, Any]]:
    """Return every change between two contracts."""
    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory, name) for name in ("base.yaml", "revision.yaml")]
        for file, text in zip(files, (base, revision), strict=True):
            file.write_text(text, encoding="utf-8")
        quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
        command = [str(REDOCLY), "diff", *map(str, files), "--format=json", "--fail-on=none"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | quiet)
    found: list[dict[str, Any]] = json.loads(done.stdout)["changes"]
    return found


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


def major(contract: str) -> int:
    """Return the first number of `info.version`."""
    found = re.search(r"^  version: [\"']?(\d+)\.", contract, re.MULTILINE)
    assert found, "the contract has no version"
    return int(found[1])


def main() -> int:
    """Print the verdict and return the exit code."""
    tag = last_tag()
    base = git("show", f"{tag}:{CONTRACT}") if tag else ""
    if not base:
        print(f"No contract to compare with: {f'{tag} has none' if tag else 'there is no version tag yet'}.")
        return 0
    revision = Path(CONTRACT).read_text(encoding="utf-8")
    broken = [describe(change) for change in changes(base, revision) if breaks(change)]
    if not broken:
        print(f"The contract keeps what {tag} promised.")
        return 0
    print(f"The contract breaks what {tag} promised:", *dict.fromkeys(broken), sep="\n")
    if major(revision) > major(base):
        print("The major version has grown, so it may.")
        return 0
    print(f"Keep it, or let info.version begin with {major(base) + 1}.")
    return 1


if __name__ == "__main__":
    sys.exit(main())

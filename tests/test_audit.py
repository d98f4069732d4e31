"""What `make audit` makes of pip-audit's findings."""

import json
from typing import Any

from tools.audit import NOTHING, verdict

CLEAN: dict[str, Any] = {"name": "click", "version": "8.4.0", "vulns": []}
VULNERABLE: dict[str, Any] = {
    "name": "flask",
    "version": "3.1.0",
    "vulns": [{"id": "GHSA-1", "fix_versions": ["3.1.1"], "aliases": []}],
}
SKIPPED: dict[str, Any] = {"name": "wrapt", "skip_reason": "Dependency not found"}


def output(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_packages_without_vulnerabilities_pass() -> None:
    assert verdict(output(CLEAN)) == ("1 of 1 packages audited, 0 vulnerabilities.", 0)


def test_a_vulnerable_package_fails_and_is_named_with_the_version_that_mends_it() -> None:
    words = "flask 3.1.0: GHSA-1, mended in 3.1.1\n2 of 2 packages audited, 1 vulnerabilities."
    assert verdict(output(CLEAN, VULNERABLE)) == (words, 1)


def test_a_package_that_was_not_audited_is_named() -> None:
    words = "wrapt was not audited: Dependency not found\n1 of 2 packages audited, 0 vulnerabilities."
    assert verdict(output(CLEAN, SKIPPED)) == (words, 0)


def test_it_says_so_when_no_source_of_advisories_can_be_reached() -> None:
    assert verdict(output(SKIPPED)) == (NOTHING, 0)
    assert verdict("") == (NOTHING, 0)

"""Looks for known vulnerabilities in the locked packages: `make audit`."""

import json
import subprocess
import sys

COMMAND = (
    *(sys.executable, "-m", "pip_audit", "--requirement", "requirements.lock", "--require-hashes", "--disable-pip"),
    *("--format", "json", "--progress-spinner", "off"),
)
NOTHING = "Nothing was audited: no source of advisories can be reached from here."


def verdict(output: str) -> tuple[str, int]:
    """Return what pip-audit's output comes to, in words and as an exit status."""
    try:
        packages = json.loads(output)["dependencies"]
    except ValueError:
        return NOTHING, 0
    audited = [package for package in packages if "vulns" in package]
    if not audited:
        return NOTHING, 0
    lines = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, mended in "
        + (", ".join(vulnerability["fix_versions"]) or "no version yet")
        for package in audited
        for vulnerability in package["vulns"]
    ]
    lines += [
        f"{package['name']} was not audited: {package['skip_reason']}" for package in packages if package not in audited
    ]
    count = sum(len(package["vulns"]) for package in audited)
    return "\n".join([*lines, f"{len(audited)} of {len(packages)} packages audited, {count} vulnerabilities."]), bool(
        count
    )


if __name__ == "__main__":
    words, status = verdict(subprocess.run(COMMAND, stdout=subprocess.PIPE, text=True, check=False).stdout)
    print(words)
    sys.exit(status)

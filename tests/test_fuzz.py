"""Schemathesis sends what the contract allows, and what it does not, and follows its links."""

import os
import subprocess
import sys
from pathlib import Path

from tests.server import ROOT, Server

EXAMPLES = 25


def test_schemathesis_finds_nothing(server: Server, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(ROOT / "schemathesis.toml")),
        *("run", f"{server.url}/openapi.json", "--max-examples", str(EXAMPLES)),
        *("--header", f"Authorization: Bearer {server.token(sub='fuzz')}"),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "No issues found" in result.stdout, result.stdout

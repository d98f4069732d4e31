"""The tutorial's steps with Postman, on the collection that Postman's own importer makes by default."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from openapi.contract import Contract
from tests.support.server import ROOT, Server

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]

SOURCES = ROOT / "tests" / "postman"


def steps() -> list[list[str]]:
    """Return the rows of the tutorial's table: a request, what to untick, and the body."""
    section = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8").partition("### With Postman")[2]
    rows = re.findall(r"^ +\| (.*?) \| (.*?) \| ?(.*?) ?\|$", section.partition("\n## ")[0], re.MULTILINE)
    return [[name, unticked, body.strip("`")] for name, unticked, body in rows[1:]]


def test_every_request_succeeds_after_the_steps_of_the_tutorial(
    server: Server, need: Callable[..., str], tmp_path: Path
) -> None:
    need("node")
    shutil.copytree(SOURCES, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    command = [need("npm"), "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    contract = tmp_path / "openapi.json"
    contract.write_bytes(httpx.get(f"{server.url}/openapi.json", trust_env=False).content)
    variables = {"baseUrl": server.url, "bearerToken": server.token(sub=f"postman-{tmp_path.name}")}
    done = subprocess.run(
        ["node", "run.mjs", str(contract), json.dumps(variables), json.dumps(steps())],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [one for one in answers if one[1] not in (200, 201, 204)] == []
    assert len(answers) == sum(len(endpoint.operations) for endpoint in Contract().path_items)

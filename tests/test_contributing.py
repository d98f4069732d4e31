"""The guide to adding an operation, followed to the letter on a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]

GUIDE = ROOT / "docs" / "contributing.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEW_FILE = re.compile(r"# (tests/\w+\.py)\n")
CHECKS = ["--all", "tests/test_copy.py", "tests/test_contract.py", "tests/test_generated_client.py"]


def run(*command: str, directory: Path, text: str | None = None) -> str:
    """Run a program that has to succeed, and return what it prints."""
    # In a copy within another repository git would take that one's root for the place of the files.
    variables = os.environ | {"GIT_CEILING_DIRECTORIES": str(directory.parent), "PYTHONPATH": str(directory)}
    done = subprocess.run(
        command, cwd=directory, env=variables, input=text, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def copy(need: Callable[..., str], tmp_path: Path) -> Path:
    """A copy of the repository as it would be with the next commit."""
    command = (need("git"), "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "-z")
    copy = tmp_path / "copy"
    for name in run(*command, directory=ROOT).split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    return copy


def follow(section: str, copy: Path) -> None:
    """Do what the blocks of a section say."""
    for language, content in BLOCK.findall(section):
        if language == "diff":
            run("git", "apply", "--recount", "-", directory=copy, text=content)
        elif label := NEW_FILE.match(content):
            (copy / label[1]).write_text(content.removeprefix(label[0]), encoding="utf-8")


def test_the_guide_to_adding_an_operation_leads_there(need: Callable[..., str], copy: Path) -> None:
    need("npm")
    section = GUIDE.read_text(encoding="utf-8").partition("\n## Add an operation\n")[2].partition("\n## ")[0]
    assert f"python -m pytest {' '.join(CHECKS)}\n" in section
    follow(section, copy)
    programs = Path(sys.executable).parent
    run(str(programs / "ruff"), "check", ".", directory=copy)
    run(str(programs / "ruff"), "format", "--check", ".", directory=copy)
    run(str(programs / "mypy"), directory=copy)
    run(str(programs / "openapi-spec-validator"), "openapi/contracts/rest-api.yaml", directory=copy)
    python = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert " passed" in run(*python, *CHECKS, "-k", "not compile and not guide", directory=copy)

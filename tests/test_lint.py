"""The linters of the contract refuse what they are there to refuse, and a broken promise needs a new major version."""

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from openapi.contract import CONTRACT, Contract
from tests.support.server import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]

PLACE = CONTRACT.relative_to(ROOT)
Document = dict[str, Any]
Run = Callable[..., subprocess.CompletedProcess[str]]


def run(*command: object, directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=directory,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a folder with the linters: the one that `make lint` has filled, else one of its own."""

    @cache
    def install(npm: str) -> Path:
        if (ROOT / "lint" / "node_modules" / ".ready").exists():
            return ROOT / "lint"
        folder = tmp_path_factory.mktemp("linters") / "lint"
        shutil.copytree(ROOT / "lint", folder, ignore=shutil.ignore_patterns("node_modules"))
        done = run(npm, "ci", "--no-audit", "--no-fund", directory=folder)
        assert done.returncode == 0, done.stderr
        return folder

    return install


@pytest.fixture
def linters(need: Callable[..., str], install: Callable[[str], Path]) -> Path:
    """The folder of the linters."""
    need("node")
    return install(need("npm"))


def write(directory: Path, document: Document) -> Path:
    """Write a contract to its place in a folder."""
    path = directory / PLACE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def git(directory: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
    done = run("git", *identity, *arguments, directory=directory)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def compare(need: Callable[..., str], linters: Path, tmp_path: Path) -> Run:
    """Compare a contract with the one of the tag v1.0.0, which is today's."""
    need("git")
    git(tmp_path, "init", "--quiet")
    write(tmp_path, Contract().document)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "First")
    git(tmp_path, "tag", "v1.0.0")

    def compare(change: Callable[[Document], None]) -> subprocess.CompletedProcess[str]:
        document = copy.deepcopy(Contract().document)
        change(document)
        write(tmp_path, document)
        return run(sys.executable, linters / "compatibility.py", directory=tmp_path)

    return compare


def schema(document: Document, name: str) -> Document:
    found: Document = document["components"]["schemas"][name]
    return found


def remove_a_field_of_an_answer(document: Document) -> None:
    del schema(document, "Task")["properties"]["updated_at"]
    schema(document, "Task")["required"].remove("updated_at")


def tighten_a_bound(document: Document) -> None:
    schema(document, "Title")["maxLength"] = 199


def require_a_field(document: Document) -> None:
    schema(document, "TaskCreate")["required"].append("priority")


def remove_a_value(document: Document) -> None:
    document["components"]["parameters"]["Status"]["schema"]["enum"].remove("pending")


def remove_a_parameter(document: Document) -> None:
    del document["paths"]["/api/tasks"]["get"]["parameters"][-1]


def remove_an_operation(document: Document) -> None:
    del document["paths"]["/api/me"]["delete"]


def add_a_value_to_an_answer(document: Document) -> None:
    schema(document, "Task")["properties"]["priority"]["enum"].append("urgent")


def ask_for_a_token(document: Document) -> None:
    del document["paths"]["/health"]["get"]["security"]


def no_longer_promise_a_header(document: Document) -> None:
    del document["components"]["headers"]["ETag"]["required"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (remove_a_field_of_an_answer, "properties/updated_at: Property `updated_at`"),
        (tighten_a_bound, "`maxLength` of `title` changed from '200' to '199'."),
        (require_a_field, "became required: `priority`"),
        (remove_a_value, "'pending'"),
        (remove_a_parameter, "`cursor`"),
        (remove_an_operation, "/api/me/delete"),
        (add_a_value_to_an_answer, "'urgent'"),
        (ask_for_a_token, "/health/get/security"),
        (no_longer_promise_a_header, "headers/ETag: required changed"),
    ],
    ids=lambda one: one.__name__.replace("_", " ") if callable(one) else "",
)
def test_a_broken_promise_fails(compare: Run, change: Callable[[Document], None], complaint: str) -> None:
    done = compare(change)
    assert done.returncode == 1, done.stdout + done.stderr
    assert complaint in done.stdout
    assert done.stdout.endswith("Keep it, or let info.version begin with 2.\n")


def test_a_broken_promise_passes_with_a_new_major_version(compare: Run) -> None:
    def change(document: Document) -> None:
        tighten_a_bound(document)
        document["info"]["version"] = "2.0.0"

    done = compare(change)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("The major version has grown, so it may.\n")


def test_what_is_only_added_passes(compare: Run) -> None:
    def change(document: Document) -> None:
        schema(document, "TaskCreate")["properties"]["colour"] = {"type": "string", "maxLength": 20}
        schema(document, "Task")["properties"]["colour"] = {"type": "string", "maxLength": 20}
        schema(document, "Problem")["properties"]["code"]["enum"].append("too_late")

    done = compare(change)
    assert (done.returncode, done.stdout) == (0, "The contract keeps what v1.0.0 promised.\n"), done.stderr


def test_without_a_tag_there_is_nothing_to_break(need: Callable[..., str], tmp_path: Path) -> None:
    need("git")
    git(tmp_path, "init", "--quiet")
    done = run(sys.executable, ROOT / "lint" / "compatibility.py", directory=tmp_path)
    assert done.stdout == "No contract to compare with: there is no version tag yet.\n"
    assert done.returncode == 0


def test_a_shallow_clone_asks_for_the_tag(compare: Run, tmp_path: Path, linters: Path) -> None:
    assert compare(tighten_a_bound).returncode == 1
    git(tmp_path, "commit", "--quiet", "--all", "--message", "Second")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth=1", "--no-tags", tmp_path.as_uri(), str(clone))
    done = run(sys.executable, linters / "compatibility.py", directory=clone)
    assert done.returncode == 1
    assert "The contract breaks what v1.0.0 promised:" in done.stdout


def remove_a_bound(document: Document) -> None:
    del document["components"]["parameters"]["Cursor"]["schema"]["maxLength"]


def forget_the_answer_to_a_missing_token(document: Document) -> None:
    del document["paths"]["/api/me"]["get"]["responses"]["401"]


def allow_any_field(document: Document) -> None:
    schema(document, "TaskCreate")["additionalProperties"] = True


def misspell_a_reference(document: Document) -> None:
    document["components"]["parameters"]["DueFrom"]["schema"]["$ref"] = "#/components/schemas/QueryInstance"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (remove_a_bound, "owasp:api4:2023-string-limit"),
        (forget_the_answer_to_a_missing_token, "owasp:api8:2023-define-error-responses-401"),
        (allow_any_field, "owasp:api3:2023-no-additionalProperties"),
        (misspell_a_reference, "invalid-ref"),
    ],
    ids=lambda one: one.__name__.replace("_", " ") if callable(one) else "",
)
def test_the_linter_refuses(linters: Path, tmp_path: Path, change: Callable[[Document], None], rule: str) -> None:
    document = copy.deepcopy(Contract().document)
    change(document)
    write(tmp_path, document)
    (tmp_path / "lint").symlink_to(linters, target_is_directory=True)
    spectral = linters / "node_modules" / ".bin" / "spectral"
    options = ("--ruleset", "lint/spectral.yaml", "--fail-severity", "hint")
    done = run(spectral, "lint", *options, PLACE, directory=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert rule in done.stdout

"""A TypeScript program that is written against the types generated from the contract."""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import yaml

from openapi.contract import CONTRACT, Contract
from tests.support.server import ROOT, Server

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]


def run(*command: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        command, cwd=directory, env=os.environ | environment, capture_output=True, text=True, timeout=300
    )


def output(*command: str, directory: Path, **environment: str) -> str:
    """Run a program that has to succeed, and return what it prints."""
    done = run(*command, directory=directory, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_client(directory: Path, document: dict[str, Any] | None = None) -> Path:
    """Copy the client to a folder beside a contract, and return where it is."""
    contract = directory / CONTRACT.relative_to(ROOT)
    contract.parent.mkdir(parents=True)
    contract.write_text(yaml.safe_dump(document) if document else CONTRACT.read_text("utf-8"), encoding="utf-8")
    client = directory / "client"
    client.mkdir()
    for name in ("package.json", "package-lock.json", "tsconfig.json", "program.ts"):
        shutil.copy(ROOT / "client" / name, client)
    return client


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Install the client's packages, generate its types and compile it; once, however often it is asked for."""

    @cache
    def build(npm: str) -> Path:
        client = copy_client(tmp_path_factory.mktemp("generated"))
        output(npm, "ci", "--no-audit", "--no-fund", directory=client)
        output(npm, "run", "generate", directory=client)
        output(npm, "run", "build", directory=client)
        return client

    return build


@pytest.fixture
def npm(need: Callable[..., str]) -> str:
    """The path of npm, which needs Node."""
    need("node")
    return need("npm")


@pytest.fixture
def client(npm: str, build: Callable[[str], Path]) -> Path:
    """The folder of the compiled client."""
    return build(npm)


def test_the_program_calls_every_operation(npm: str, client: Path, server: Server) -> None:
    token = server.token(sub=f"generated-{token_hex(6)}")
    printed = output(npm, "run", "--silent", "start", directory=client, API_URL=server.url, API_TOKEN=token)
    operations = sum(len(endpoint.operations) for endpoint in Contract().path_items)
    assert printed == f"{operations} operations called\n"


def test_the_program_fails_when_an_answer_is_not_the_expected_one(npm: str, client: Path, server: Server) -> None:
    done = run(npm, "run", "start", directory=client, API_URL=server.url, API_TOKEN="not a token")
    assert done.returncode != 0
    assert "401 from" in done.stderr


def rename_a_field(schemas: dict[str, Any]) -> None:
    task = schemas["Task"]
    task["properties"]["headline"] = task["properties"].pop("title")
    task["required"][task["required"].index("title")] = "headline"


def add_a_code(schemas: dict[str, Any]) -> None:
    schemas["Problem"]["properties"]["code"]["enum"].append("too_late")


def allow_any_field(schemas: dict[str, Any]) -> None:
    schemas["TaskCreate"]["additionalProperties"] = True


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (rename_a_field, "Property 'title' does not exist on type"),
        (add_a_code, """Type '"too_late"' is not assignable to type 'never'"""),
        (allow_any_field, "Unused '@ts-expect-error' directive"),
    ],
    ids=["a renamed field", "a new code", "a schema that takes any field"],
)
def test_the_program_does_not_compile_against_another_contract(
    npm: str, client: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    document = Contract().document
    change(document["components"]["schemas"])
    other = copy_client(tmp_path, document)
    (other / "node_modules").symlink_to(client / "node_modules", target_is_directory=True)
    output(npm, "run", "generate", directory=other)
    done = run(npm, "run", "build", directory=other)
    assert done.returncode != 0
    assert complaint in done.stdout

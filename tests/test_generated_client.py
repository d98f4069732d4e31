"""TypeScript that is written against the types generated from the contract: a program, and the guide's examples."""

import json
import os
import re
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

GUIDE = ROOT / "docs" / "frontend.md"
EXAMPLE = re.compile(r"^```ts\n// (lib/[a-z-]+\.ts)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What the examples import and the application has.
SURROUNDINGS = """
declare module "server-only" {}
declare module "@/lib/tasks" { export function tasksToken(): Promise<string | null>; }
"""
# As create-next-app sets it up, and stricter.
COMPILER_OPTIONS = {
    "target": "es2022",
    "lib": ["dom", "dom.iterable", "esnext"],
    "module": "esnext",
    "moduleResolution": "bundler",
    "paths": {"@/*": ["./*"]},
    "strict": True,
    "noUncheckedIndexedAccess": True,
    "exactOptionalPropertyTypes": True,
    "noUnusedLocals": True,
    "isolatedModules": True,
    "rootDir": ".",
    "outDir": "build",
}
ZONES = ["UTC", "Europe/Berlin", "America/Los_Angeles", "America/St_Johns", "Pacific/Kiritimati", "Asia/Kathmandu"]
ROUND_TRIP = """
import { dayInWords, dayOf, dueOn, endOfDay } from "./build/lib/due-dates.js";
const days = ["0001-01-02", "1999-12-31", "2024-02-29", "2026-03-29", "2026-10-25", "2026-11-01", "9999-12-30"];
const wrong = days.filter((day) => {
  const due = endOfDay(day);
  const { due_from, due_to } = dueOn(day);
  return dayOf(due) !== day || !(due_from <= due && due < due_to && dayOf(due_from) === day && dayOf(due_to) > day);
});
console.log(JSON.stringify([wrong, dayInWords(endOfDay("2026-12-01"), "en-US")]));
"""


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


def test_every_example_of_the_guide_is_compiled() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert len(EXAMPLE.findall(text)) == len(re.findall(r"^```(ts|tsx|js|jsx)\b", text, re.MULTILINE)) > 0


@pytest.fixture
def guide(npm: str, client: Path, tmp_path: Path) -> Path:
    """A folder with the compiled examples of the guide."""
    (tmp_path / "lib").mkdir()
    shutil.copy(client / "schema.d.ts", tmp_path / "lib" / "tasks-schema.d.ts")
    for name, content in EXAMPLE.findall(GUIDE.read_text(encoding="utf-8")):
        (tmp_path / name).write_text(content, encoding="utf-8")
    options = {"compilerOptions": COMPILER_OPTIONS, "include": ["lib", "surroundings.d.ts"]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(options), encoding="utf-8")
    (tmp_path / "surroundings.d.ts").write_text(SURROUNDINGS, encoding="utf-8")
    shutil.copy(client / "package.json", tmp_path)
    (tmp_path / "node_modules").symlink_to(client / "node_modules", target_is_directory=True)
    output(npm, "run", "build", directory=tmp_path)
    return tmp_path


def test_a_due_date_of_the_guide_is_the_same_day_in_every_time_zone(guide: Path, need: Callable[..., str]) -> None:
    (guide / "round-trip.js").write_text(ROUND_TRIP, encoding="utf-8")
    results = {zone: json.loads(output(need("node"), "round-trip.js", directory=guide, TZ=zone)) for zone in ZONES}
    assert results == {zone: [[], "Dec 1, 2026"] for zone in ZONES}

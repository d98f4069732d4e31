"""The documents: every command that they show runs, and every sample is what the command prints."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openapi.contract import Contract
from tests.support.documents import Block, Checkout, blocks, commands, shows
from tests.support.postgres import Postgres
from tests.support.server import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
DEPLOYMENT = ROOT / "docs" / "deployment.md"
# Blocks that are neither commands nor samples: files, statements, changes, drawings.
NO_COMMANDS = {"ts", "tsx", "ini", "sql", "nginx", "diff", "python", "powershell", ""}
IN_A_FRONTEND = "test_frontend.py does it in an application like the one that it makes, with fixed versions"
# What runs in place of a command, and why: something quicker, or nothing.
INSTEAD = {
    "make run": ("cat server.log", "the server runs already, on a port of its own"),
    ".venv/bin/tasks-api serve": ("cat server.log", "the server runs already, on a port of its own"),
    "python3 -m venv .venv": ("", "the tests run in it"),
    ".venv/bin/python -m pip install --require-hashes -r requirements.lock": ("", "the tests run with these packages"),
    ".venv/bin/python -m pip install --no-build-isolation --no-deps -e .": ("", "the tests run with it"),
    "make test": ("make --dry-run test", "these are the tests"),
    "make lint": ("make --dry-run lint", "takes long"),
    "make fuzz": ("make --dry-run fuzz", "takes long; test_fuzz.py fuzzes briefly"),
    "make replay RECORD=build/fuzz/asgi-1": ("make --dry-run replay RECORD=x", "there is no record"),
    "make replay RECORD=build/fuzz/asgi-1/crashes/GET_api_tasks_id_response_headers_conformance_1bdf5d80.json": (
        "",
        "there is no record",
    ),
    ".venv/bin/python -m pytest tests/test_tokens.py": (
        ".venv/bin/python -m pytest --collect-only -q tests/test_tokens.py",
        "these are the tests",
    ),
    ".venv/bin/python -m pytest -k another_users_task": (
        ".venv/bin/python -m pytest --collect-only -q -k another_users_task tests/test_tasks.py",
        "these are the tests",
    ),
    ".venv/bin/python -m pytest --all tests/test_copy.py tests/test_contract.py tests/test_generated_client.py": (
        "",
        "test_contributing.py runs it, on a copy of the repository",
    ),
    ".venv/bin/python -m tools.mutate --only schemas/Title": (
        ".venv/bin/python -m tools.mutate --help | grep -e '--only ONLY'",
        "takes long",
    ),
    ".venv/bin/python -m tools.mutate --sample 40 --seed 16b2b73": (
        ".venv/bin/python -m tools.mutate --help | grep -e '--sample SAMPLE' -e '--seed SEED'",
        "takes long",
    ),
    "cd ..": ("", IN_A_FRONTEND),
    "npx create-next-app@latest frontend --yes": ("", IN_A_FRONTEND),
    "cd frontend": ("", IN_A_FRONTEND),
    "npm install better-auth @libsql/kysely-libsql": ("", IN_A_FRONTEND),
    "npm install --save-dev auth": ("", IN_A_FRONTEND),
    "npx auth migrate --yes": ("", IN_A_FRONTEND),
    "npm run dev": ("", "test_frontend.py builds and serves the application"),
    "npm install jose": ("", IN_A_FRONTEND),
    "npm install openapi-fetch jose": (
        "cp client/package.json client/package-lock.json . && npm ci --silent --no-audit --no-fund",
        "the versions that the other tests use",
    ),
    "npm install --save-dev openapi-typescript typescript@5": ("", "installed with the line before"),
    "docker compose up --build --detach": ("", "needs a Docker daemon"),
    "docker compose exec app tasks-api token --user alice": ("", "needs a Docker daemon"),
    "docker build --tag tasks-api .": ("", "needs a Docker daemon"),
    "docker run --publish 127.0.0.1:8000:8000 --env BETTER_AUTH_SECRET --env DATABASE_URL tasks-api": (
        "",
        "needs a Docker daemon",
    ),
}


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    """A checkout with a server."""
    # Not in pytest's own folder: each run of pytest closes that to the user that PostgreSQL runs as.
    directory = Path(tempfile.mkdtemp(prefix="tasks-api-checkout-"))
    with Checkout(directory) as checkout:
        yield checkout
    shutil.rmtree(directory, ignore_errors=True)


def check_samples(block: Block, printed: str, log: str) -> None:
    """Fail unless every sample is what was printed, and no problem was printed that the document does not show."""
    for sample in block.samples:
        actual = log if sample.language == "log" else printed
        assert shows(sample, actual), f"{sample.place} does not show what is printed:\n{actual}"
    if not any(sample.language == "json" for sample in block.samples):
        assert '"request_id":' not in printed, f"{block.place} is answered with a problem:\n{printed}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_runs_and_prints_what_the_document_shows(
    checkout: Checkout, need: Callable[..., str], document: Path
) -> None:
    for block in blocks(document):
        if block.language != "sh":
            continue
        run = "\n".join(INSTEAD.get(command, (command, ""))[0] for command in commands(block.text))
        for program in re.findall(r"^(?:make|npm|curl)\b", run, re.MULTILINE):
            need(program)
        printed = checkout.run(run)
        may_fail = any(sample.language == "text" for sample in block.samples)
        assert printed.status == 0 or may_fail, f"{block.place} fails:\n{printed.text}"
        check_samples(block, printed.text, checkout.log)


def test_the_role_of_the_deployment_guide_is_one_that_row_level_security_binds() -> None:
    create, check, *_ = (block for block in blocks(DEPLOYMENT) if block.language == "sql")
    with Postgres() as postgres:
        postgres.execute("DROP DATABASE tasks_api")
        postgres.execute("DROP ROLE tasks_api")
        postgres.execute(create.text)
        url = postgres.superuser_url.replace("user=postgres", "user=tasks_api")
        psql = [str(postgres.programs / "psql"), "--no-psqlrc", "--dbname", url, "--command", check.text]
        check_samples(check, subprocess.check_output(psql, text=True), "")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_is_a_command_a_sample_of_one_or_neither(document: Path) -> None:
    for block in blocks(document):
        assert block.language in {"sh", *NO_COMMANDS}, f"{block.place}: nothing prints this, or its kind is unknown"
        assert not block.samples or block.language == "sh" or document == DEPLOYMENT, f"{block.place}: prints nothing"


def test_every_command_that_is_replaced_is_in_a_document() -> None:
    shown = {command for document in DOCUMENTS for block in blocks(document) for command in commands(block.text)}
    assert set(INSTEAD) - shown == set()


def test_every_make_target_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", document.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert named - targets == set()


def test_the_guide_for_frontends_lists_every_header_that_scripts_can_read() -> None:
    section = (ROOT / "docs" / "frontend.md").read_text(encoding="utf-8").partition("## Calls from the browser")[2]
    listed = [name for cell in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE) for name in cell.split(", ")]
    assert sorted(name.strip("`") for name in listed) == sorted(Contract().response_headers)


def anchors(document: Path) -> set[str]:
    """Return what a link can lead to within a document, as GitHub names it."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_within_the_repository_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if re.match("https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), f"{document.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{document.name} links to {link}"

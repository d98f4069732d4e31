"""Fixtures: a fresh PostgreSQL for each test process, the application on both hosts, clients that check answers."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models import schema
from openapi.contract import Contract
from postgres import embedded
from postgres.database import Database
from settings.settings import Settings
from tests.support.client import Client, Conformance
from tests.support.hosts import HOSTS
from tests.support.pooler import pooler
from tests.support.postgres import another_database
from tests.support.server import SECRET, Server

# What runs only with --all, or when it is asked for: each is a marker of pyproject.toml.
LEFT_OUT = ("second_host", "slow", "load")


@pytest.fixture(autouse=True)
def unshared_readiness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let /ready look each time; tests/test_health.py tries how its result is shared."""
    monkeypatch.setattr("handlers.health.CHECK_INTERVAL", 0)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that docs/contributing.md describes."""
    parser.addoption("--all", action="store_true", help="also run what is slow, under load, or on the second host")
    parser.addoption("--model-steps", type=int, help="steps of tests/test_model.py; 300 by default, 2000 with --all")
    parser.addoption("--database-url", help="use this database instead of a server of the test process's own")
    parser.addoption("--fuzz-seed", type=int, help="seed of tests/test_fuzz.py; a random one by default")


def pytest_configure(config: pytest.Config) -> None:
    """Choose once for all processes what no option says."""
    if config.option.fuzz_seed is None:
        config.option.fuzz_seed = secrets.randbelow(10**9)
    if config.option.model_steps is None:
        config.option.model_steps = 2000 if config.option.all else 300


def pytest_report_header(config: pytest.Config) -> str:
    """Say how to fuzz with the same seed again."""
    return f"fuzzing: --fuzz-seed {config.option.fuzz_seed}"


def is_whole(config: pytest.Config) -> bool:
    """Tell whether nothing is left out but what the command line itself leaves out."""
    return bool(config.option.all or config.option.markexpr)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what runs with --all, unless a test is asked for by its name."""
    if is_whole(config):
        return
    named = [argument for argument in config.args if "::" in argument]
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        is_named = any(item.nodeid == name or item.nodeid.startswith(f"{name}[") for name in named)
        is_extra = any(item.get_closest_marker(marker) for marker in LEFT_OUT)
        (left_out if is_extra and not is_named else kept).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


@pytest.fixture(scope="session")
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database on a server of this test process's own."""
    if given := request.config.getoption("--database-url"):
        yield given
        return
    directory = Path(tempfile.mkdtemp(prefix="tasks-api-"))
    yield embedded.start(directory / "postgres")
    embedded.stop(directory / "postgres")
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Path]:
    """A folder for the data of an embedded server, which has stopped when the test ends."""
    directory = tmp_path / "data" / "postgres"
    yield directory
    embedded.stop(directory)


@pytest.fixture
def made(cluster: Path) -> Path:
    """A data folder that a server has run with."""
    embedded.start(cluster)
    embedded.stop(cluster)
    return cluster


@pytest.fixture(scope="session")
def database(database_url: str) -> Iterator[Database]:
    """The database with its schema in place."""
    database = Database(database_url)
    schema.migrate(database)
    yield database
    database.dispose()


@pytest.fixture
def empty_database_url(database_url: str) -> Iterator[str]:
    """The URL of a database without a schema."""
    with another_database(database_url) as url:
        yield url


@pytest.fixture(scope="session")
def make_settings(database_url: str) -> Callable[..., Settings]:
    """Make settings for a server on the test database; keyword arguments override single ones."""

    def make(**overrides: object) -> Settings:
        defaults = {"database_url": database_url, "better_auth_secret": SECRET}
        return Settings.load({}, **defaults | overrides)

    return make


@pytest.fixture(scope="session", params=HOSTS)
def server(request: pytest.FixtureRequest, make_settings: Callable[..., Settings]) -> Iterator[Server]:
    """The running application, once on each host."""
    with Server(make_settings(server_framework=request.param)) as server:
        yield server


@pytest.fixture(scope="session")
def contract() -> Contract:
    """The contract."""
    return Contract()


@pytest.fixture(scope="session")
def conformance() -> Conformance:
    """What checks every answer against the contract."""
    return Conformance()


@pytest.fixture
def make_client(server: Server, conformance: Conformance) -> Iterator[Callable[..., Client]]:
    """Make a client of the server for a user of its own, or for the user named."""
    clients: list[Client] = []

    def make(user: str | None = None, **claims: Any) -> Client:
        user = user or f"user-{secrets.token_hex(6)}"
        clients.append(Client(server.url, conformance, token=server.token(sub=user, **claims), user=user))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def alice(make_client: Callable[..., Client]) -> Client:
    """A client of a user without tasks."""
    return make_client()


@pytest.fixture
def bob(make_client: Callable[..., Client]) -> Client:
    """A client of another user without tasks."""
    return make_client()


@pytest.fixture
def anonymous(server: Server, conformance: Conformance) -> Iterator[Client]:
    """A client without a token."""
    with Client(server.url, conformance) as client:
        yield client


@pytest.fixture
def need() -> Callable[..., str]:
    """Find a program that is more than Python: its path, else a skipped test, or a failed one in CI."""

    def find(*names: str) -> str:
        for name in names:
            path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
            if path:
                return path
        if os.environ.get("CI"):
            pytest.fail(f"{names[0]} is not installed")
        pytest.skip(f"needs {names[0]}")

    return find


@pytest.fixture
def pooler_url(database_url: str, need: Callable[..., str], tmp_path: Path) -> Iterator[str]:
    """The URL of the database behind PgBouncer in transaction mode, with two connections for all clients."""
    with pooler(need("pgbouncer"), database_url, tmp_path) as url:
        yield url


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was left out, and what for want of a program."""
    if not is_whole(config):
        terminalreporter.write_line("What is slow, under load or on the second host was left out; --all runs it too.")
    reasons = {
        report.longrepr[2].removeprefix("Skipped: needs ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    }
    if reasons:
        terminalreporter.write_line(f"Left out, because it is not installed here: {', '.join(sorted(reasons))}.")

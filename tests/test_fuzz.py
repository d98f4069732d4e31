"""Schemathesis sends what the contract allows, and what it does not, and follows its links."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from handlers import tasks
from models.database import Database
from openapi.settings import Settings
from tests.fuzz import Target
from tests.server import Server

EXAMPLES = 25


@contextmanager
def target(settings: Settings) -> Iterator[Target]:
    """Run the application, every answer held to the contract."""
    with Server(settings) as server:
        yield Target(server.url, str(settings.database_url), server.token)


@pytest.fixture
def make_fresh_settings(make_settings: Callable[..., Settings], empty_database_url: str) -> Callable[..., Settings]:
    """Make settings for a server on a database of its own."""
    database = Database(empty_database_url)
    database.migrate()
    database.dispose()
    return lambda **overrides: make_settings(database_url=empty_database_url, **overrides)


@pytest.mark.parametrize("host", ["asgi", "flask"])
def test_fuzzing_finds_nothing(
    make_fresh_settings: Callable[..., Settings], host: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    with target(make_fresh_settings(server_framework=host)) as fuzzed:
        assert fuzzed.fuzz(tmp_path, EXAMPLES, pytestconfig.getoption("fuzz_seed")) == 0
    assert (tmp_path / "junit.xml").stat().st_size > 0
    assert (tmp_path / "requests.har").stat().st_size > 0


def test_a_failure_that_fuzzing_finds_can_be_replayed(
    make_fresh_settings: Callable[..., Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(tasks, "entity_tag", lambda version: f"{version}")
        with target(make_fresh_settings()) as fuzzed:
            only = ("--phases", "examples", "--include-operation-id", "handlers.tasks.get_task")
            assert fuzzed.fuzz(tmp_path, 1, 1, *only) != 0
            crashes = sorted((tmp_path / "crashes").glob("GET_api_tasks_id*.json"))
            assert crashes
            capfd.readouterr()
            assert fuzzed.replay(crashes[0]) == 1
            assert "does not match" in capfd.readouterr().out
    with target(make_fresh_settings()) as mended:
        assert mended.replay(crashes[0]) == 0

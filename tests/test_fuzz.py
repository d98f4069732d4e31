"""Schemathesis sends what the contract allows, and what it does not, and follows its links."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from handlers import tasks
from handlers.tasks import Result, get_task
from models import schema
from models.caller import Caller
from models.errors import TaskForbidden
from postgres.database import Database
from settings.settings import Settings
from tests.support.hosts import HOSTS
from tests.support.server import Server
from tools.fuzz import IDENTITIES, Target

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]

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
    schema.migrate(database)
    database.dispose()
    return lambda **overrides: make_settings(database_url=empty_database_url, **overrides)


@pytest.mark.parametrize("host", HOSTS)
def test_fuzzing_finds_nothing(
    make_fresh_settings: Callable[..., Settings], host: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    with target(make_fresh_settings(server_framework=host)) as fuzzed:
        assert fuzzed.fuzz(tmp_path, EXAMPLES, pytestconfig.getoption("fuzz_seed")) == 0
    assert (tmp_path / "junit.xml").stat().st_size > 0
    assert (tmp_path / "requests.har").stat().st_size > 0


def give_out_any_task(database: Database, caller: Caller, id: str, if_none_match: str | None = None) -> Result:
    """Stand in for the handler that returns one task, and forget whose it is."""
    for owner in (caller, *(Caller(name, None, None) for name in IDENTITIES)):
        with suppress(TaskForbidden):
            return get_task(database, owner, id, if_none_match)
    raise TaskForbidden


def bare_entity_tag(version: int) -> str:
    """Forget the quotes."""
    return str(version)


@pytest.mark.parametrize(
    ("name", "broken", "finding", "phase"),
    [
        ("entity_tag", bare_entity_tag, "response_headers_conformance", "examples"),
        ("get_task", give_out_any_task, "object_level_authorization", "stateful"),
    ],
    ids=["a malformed header", "another user's task"],
)
def test_what_fuzzing_finds_can_be_replayed_until_it_is_mended(
    make_fresh_settings: Callable[..., Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    broken: Callable[..., Any],
    finding: str,
    phase: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tasks, name, broken)
        with target(make_fresh_settings()) as fuzzed:
            assert fuzzed.fuzz(tmp_path, 10, 1, "--phases", phase, "--exclude-tag", "me") == 1
            crashes = sorted((tmp_path / "crashes").glob(f"GET_api_tasks_id_{finding}_*.json"))
            assert crashes
        with target(make_fresh_settings()) as again:
            assert again.replay(crashes[0]) == 1
    with target(make_fresh_settings()) as mended:
        # 1 is for failures. A 403 in the place of another user's task is an error of its own to Schemathesis.
        assert mended.replay(crashes[0]) == (0 if phase == "examples" else 2)

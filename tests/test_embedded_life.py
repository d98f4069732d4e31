"""The embedded PostgreSQL lives exactly as long as the last process that uses it, however that ends."""

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from postgres import embedded
from postgres.database import Database
from postgres.embedded.failure import EmbeddedFailure
from postgres.errors import DatabaseUnavailable
from postgres.scope import Scope
from tests.support.embedded import User, fake_programs, is_running, parent, postmaster, room, user
from tests.support.server import ServerProcess
from tests.support.waiting import await_true

ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every account can enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="reachable-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def answers(url: str) -> bool:
    """Tell whether the server accepts a connection."""
    with suppress(psycopg.OperationalError):
        psycopg.connect(url).close()
        return True
    return False


def left(directory: Path, url: str) -> Callable[[], bool]:
    """Return what tells whether nothing is left of the server that runs now."""
    server = postmaster(directory)
    keeper = parent(server)
    return lambda: not (is_running(server) or is_running(keeper) or room(url).exists())


def test_it_keeps_its_data_when_it_starts_again(cluster: Path) -> None:
    for _ in range(2):
        with psycopg.connect(embedded.start(cluster), autocommit=True) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
            connection.execute("INSERT INTO kept VALUES (1)")
            count = connection.execute("SELECT count(*) FROM kept").fetchone()
        embedded.stop(cluster)
    assert count == (2,)


def test_when_the_last_use_has_stopped_nothing_is_left(cluster: Path) -> None:
    url = embedded.start(cluster)
    assert embedded.start(cluster) == url
    has_ended = left(cluster, url)
    embedded.stop(cluster)
    embedded.stop(cluster)
    assert has_ended()


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_it_ends_with_its_last_user_in_whatever_way_they_end(cluster: Path, ending: signal.Signals) -> None:
    with user(cluster) as first, user(cluster) as second:
        assert first.url == second.url
        has_ended = left(cluster, first.url)
        first.end(ending)
        assert answers(second.url)
        second.end(ending)
        await_true(has_ended)
    with psycopg.connect(embedded.start(cluster)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_all_users_are_killed_at_once(cluster: Path) -> None:
    with user(cluster) as first, user(cluster) as second:
        has_ended = left(cluster, first.url)
        for one in (first, second):
            one.process.kill()
        await_true(has_ended)


def test_processes_that_start_at_once_share_one_server(cluster: Path) -> None:
    users = [User(cluster) for _ in range(4)]
    assert len({one.await_url() for one in users}) == 1
    has_ended = left(cluster, users[0].url)
    for one in users:
        one.end()
    await_true(has_ended)


def test_a_start_that_is_killed_in_the_middle_is_none(cluster: Path, reachable: Path) -> None:
    fake_programs(reachable, "echo $$ > draft && mv draft PG_VERSION && exec sleep 300")
    version = cluster.with_name("postgres.run") / "new" / "PG_VERSION"
    for _ in range(2):
        one = User(cluster, env={**os.environ, "PYTHONPATH": str(reachable)})
        await_true(version.exists)
        one.end()
        os.kill(int(version.read_text()), signal.SIGKILL)  # until initdb has ended, nobody else begins
        version.unlink()
        assert not cluster.exists()
    with psycopg.connect(embedded.start(cluster)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("victims", ["server", "keeper", "both"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=str)
def test_it_is_started_again_when_it_dies_and_the_pool_recovers(
    cluster: Path, victims: str, how: signal.Signals
) -> None:
    url = embedded.start(cluster)
    database = Database(url)
    server = postmaster(cluster)
    keeper = parent(server)
    rows = lambda: database.rows(Scope.user("u"), text("SELECT 1 AS one"), {})  # noqa: E731
    assert rows()[0]["one"] == 1
    for victim in {"server": [server], "keeper": [keeper], "both": [keeper, server]}[victims]:
        os.kill(victim, how)
    await_true(lambda: postmaster(cluster) not in (0, server) and answers(url), timeout=60)

    def recovers() -> bool:
        with suppress(DatabaseUnavailable):
            return bool(rows()[0]["one"] == 1)
        return False

    await_true(recovers, timeout=60)
    database.dispose()
    has_ended = left(cluster, url)
    embedded.stop(cluster)
    assert has_ended()


def test_a_user_that_joined_starts_it_again_when_the_first_one_has_gone_with_the_keeper(cluster: Path) -> None:
    with user(cluster) as first, user(cluster) as second:
        server = postmaster(cluster)
        first.end()
        os.kill(parent(server), signal.SIGKILL)
        await_true(lambda: postmaster(cluster) not in (0, server) and answers(second.url), timeout=60)


def test_if_keeper_and_users_are_killed_the_server_ends_too(cluster: Path) -> None:
    with user(cluster) as one:
        server = postmaster(cluster)
        os.kill(one.process.pid, signal.SIGSTOP)  # so that it starts no other keeper
        os.kill(parent(server), signal.SIGKILL)
        one.end()
        await_true(lambda: not is_running(server))
    url = embedded.start(cluster)
    has_ended = left(cluster, url)
    embedded.stop(cluster)
    assert has_ended()


@pytest.mark.slow
def test_a_connection_that_hangs_does_not_keep_it(cluster: Path) -> None:
    url = embedded.start(cluster)
    has_ended = left(cluster, url)
    with psycopg.connect(url) as connection:
        os.kill(connection.info.backend_pid, signal.SIGSTOP)
        embedded.stop(cluster)
        assert has_ended()
        connection.close()


def test_one_that_does_not_end_is_told(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded.start(cluster)
    embedded.stop(cluster)
    monkeypatch.setattr("postgres.embedded.use.PATIENCE", 0.5)
    with (cluster.with_name("postgres.run") / "use").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as a keeper at its end holds it
        with pytest.raises(EmbeddedFailure, match="does not answer: the last one does not end"):
            embedded.start(cluster)


def test_as_long_as_it_cannot_be_started_again_the_log_says_why(
    cluster: Path, caplog: pytest.LogCaptureFixture
) -> None:
    embedded.start(cluster)
    version = cluster / "PG_VERSION"
    version.write_text("17\n")
    os.kill(parent(postmaster(cluster)), signal.SIGTERM)
    await_true(lambda: "cannot be started again" in caplog.text)
    version.write_text("18\n")
    await_true(lambda: answers(embedded.start(cluster)))


@pytest.mark.parametrize("options", [[], ["--workers", "2"], ["--reload"]], ids=" ".join)
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL], ids=str)
def test_the_service_takes_it_along(tmp_path: Path, options: list[str], ending: signal.Signals) -> None:
    with ServerProcess(*options, directory=tmp_path) as server:
        data = tmp_path / ".data" / "postgres"
        has_ended = left(data, f"host={(tmp_path / '.data' / 'postgres.run' / 'room').read_text()}")
        server.process.send_signal(ending)
        status = server.process.wait(timeout=30)
        assert status == (0 if ending == signal.SIGTERM else -signal.SIGKILL)
        await_true(has_ended)
        await_true(lambda: not server.answers())

"""Two PostgreSQL servers with streaming replication: the primary dies, the standby takes over, the service goes on."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from settings.settings import Settings
from tests.support.client import Client, Conformance, assert_problem
from tests.support.hosts import HOSTS
from tests.support.postgres import Postgres
from tests.support.problems import READ_ONLY
from tests.support.server import ROOT, SECRET, Server, ServerProcess, sign
from tests.support.waiting import await_true

STANDBY = (
    "the server is a standby, which accepts no writes; connect to the primary, or name both servers with "
    "target_session_attrs=read-write"
)
pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]


class Pair(NamedTuple):
    """A primary and its standby, and the URL that finds whichever can write."""

    primary: Postgres
    standby: Postgres
    url: str


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two servers; a commit is acknowledged when both have it."""
    with Postgres() as primary, Postgres(copy_of=primary) as standby:
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")
        state = "SELECT sync_state FROM pg_stat_replication"
        await_true(lambda: primary.execute(state) == [("sync",)])
        servers = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        yield Pair(primary, standby, f"postgresql://tasks_api@{servers}/tasks_api?target_session_attrs=read-write")


@pytest.mark.parametrize("host", HOSTS)
def test_the_service_goes_on_by_itself_when_the_standby_takes_over(pair: Pair, host: str, tmp_path: Path) -> None:
    environment = {"DATABASE_URL": pair.url, "BETTER_AUTH_SECRET": SECRET, "SERVER_FRAMEWORK": host}
    token = sign(Settings.load(environment), sub="failover")
    acknowledged: list[str] = []
    statuses: set[int] = set()
    is_over = threading.Event()
    with ServerProcess(directory=tmp_path, **environment) as server:

        def client() -> httpx.Client:
            authorization = {"Authorization": f"Bearer {token}"}
            return httpx.Client(base_url=server.url, headers=authorization, timeout=30, trust_env=False)

        def write(number: int) -> None:
            step = 0
            with client() as c:
                while not is_over.is_set():
                    step += 1
                    title = f"{number} {step}"
                    answer = c.post("/api/tasks", json={"title": title})
                    statuses.add(answer.status_code)
                    if answer.status_code == 201:
                        acknowledged.append(title)
                    else:
                        is_over.wait(0.05)

        with ThreadPoolExecutor(4) as threads:
            writers = [threads.submit(write, number) for number in range(4)]
            try:
                await_true(lambda: len(acknowledged) > 100)
                pair.primary.stop(signal.SIGKILL)
                await_true(lambda: 503 in statuses)
                before = len(acknowledged)
                pair.standby.promote()
                await_true(lambda: len(acknowledged) > before + 100)
            finally:
                is_over.set()
            for writer in writers:
                writer.result()
        assert statuses == {201, 503}
        stored = [title for (title,) in pair.standby.execute("SELECT title FROM tasks", database="tasks_api")]
        assert len(set(stored)) == len(stored)
        assert set(acknowledged) <= set(stored)
        with client() as c:
            assert c.get("/ready").status_code == 200
        assert server.process.poll() is None


def test_a_standby_answers_reads_and_refuses_writes(
    pair: Pair, make_settings: Callable[..., Settings], conformance: Conformance
) -> None:
    with (
        Server(make_settings(database_url=pair.url)) as server,
        Client(server.url, conformance, token=server.token(sub="reader")) as client,
    ):
        task = client.create()
    lsn = pair.primary.execute("SELECT pg_current_wal_lsn()")[0][0]
    await_true(lambda: pair.standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'") == [(True,)])
    with (
        Server(make_settings(database_url=pair.standby.url)) as server,
        Client(server.url, conformance, token=server.token(sub="reader")) as client,
    ):
        assert client.get("/api/tasks").json() == [task]
        assert_problem(client.get("/ready"), 503, "unavailable", f"The service is not ready: {STANDBY}.")
        assert_problem(client.post("/api/tasks", json={"title": "x"}), 503, "unavailable", READ_ONLY)
        assert_problem(client.delete(f"/api/tasks/{task['id']}"), 503, "unavailable", READ_ONLY)
    command = [sys.executable, "-m", "server", "check"]
    environment = os.environ | {"DATABASE_URL": pair.standby.url, "BETTER_AUTH_SECRET": SECRET}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, f"The database is not in order: {STANDBY}\n")

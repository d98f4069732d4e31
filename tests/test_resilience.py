"""What happens when the database or the server fails, or has too much to do: real processes, really killed."""

import asyncio
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from models import schema
from postgres.database import Database
from settings.settings import Settings
from tests.support.client import Client, Conformance, assert_problem
from tests.support.hosts import HOSTS
from tests.support.postgres import ACCOUNT, Postgres
from tests.support.problems import READ_ONLY, UNAVAILABLE
from tests.support.server import SECRET, Server, ServerProcess, sign
from tests.support.waiting import await_true

HANGING = 30  # seconds; how fast it is depends on the machine, and the figure is printed
CROWD = 1000


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as postgres:
        yield postgres


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty database on the server that may be killed."""
    name = f"empty_{secrets.token_hex(4)}"
    postgres.execute(f"CREATE DATABASE {name} OWNER tasks_api")
    yield make_conninfo(postgres.url, dbname=name)
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(url: str, host: str, make_settings: Callable[..., Settings], conformance: Conformance) -> Iterator[Client]:
    """A client of a server, on each host, with that database; nothing times out while a test waits for locks."""
    settings = make_settings(database_url=url, server_framework=host, lock_timeout=20.0, statement_timeout=20.0)
    with (
        Server(settings) as server,
        Client(server.url, conformance, token=server.token(sub="alice")) as client,
    ):
        yield client


@pytest.fixture
def in_background() -> Iterator[Callable[..., Future[httpx.Response]]]:
    with ThreadPoolExecutor(20) as threads:
        yield threads.submit


def superuser(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("user=tasks_api", "user=postgres"), autocommit=True)


def waiting(url: str) -> list[int]:
    """The processes of the database that wait for a lock."""
    query = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE usename = 'tasks_api' AND datname = current_database() AND wait_event_type = 'Lock'"
    )
    with superuser(url) as connection:
        return [pid for (pid,) in connection.execute(query)]


def assert_unavailable(response: httpx.Response) -> None:
    assert_problem(response, 503, "unavailable", UNAVAILABLE)
    assert response.headers["retry-after"] == "2"


def disconnect(url: str) -> None:
    """Close all connections of the application, from the server's side."""
    with superuser(url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE usename = 'tasks_api' AND datname = current_database()"
        )


# The database


@pytest.mark.load
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGQUIT])
def test_a_database_killed_in_mid_request_is_a_503_and_then_the_service_goes_on(
    postgres: Postgres,
    url: str,
    client: Client,
    in_background: Callable[..., Future[httpx.Response]],
    how: signal.Signals,
) -> None:
    task = client.create()
    holder = superuser(url)
    holder.autocommit = False
    holder.execute("LOCK TABLE tasks")
    requests = [
        in_background(client.get, "/api/tasks"),
        in_background(client.post, "/api/tasks", json={"title": "x"}),
        in_background(client.patch, f"/api/tasks/{task['id']}/complete"),
    ]
    await_true(lambda: len(waiting(url)) == len(requests))
    postgres.stop(how)
    holder.close()
    for request in requests:
        assert_unavailable(request.result())
    assert_unavailable(client.get("/ready"))
    assert client.get("/health").status_code == 200
    postgres.start()
    with ThreadPoolExecutor(10) as threads:
        assert {answer.status_code for answer in threads.map(client.get, ["/api/tasks"] * 30)} == {200}
    assert client.get("/api/tasks").json() == [task]
    await_true(lambda: client.get("/ready").status_code == 200)  # what was found a moment ago has been forgotten


def test_writes_do_not_notice_that_the_server_closed_all_idle_connections(url: str, client: Client) -> None:
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(client.create, ["before"] * 30))
        disconnect(url)
        list(threads.map(client.create, ["after"] * 30))
    assert Counter(client.titles()) == {"before": 30, "after": 30}


def test_when_its_connection_breaks_a_read_runs_once_more_and_a_write_does_not(
    url: str, client: Client, in_background: Callable[..., Future[httpx.Response]]
) -> None:
    task = client.create()
    with superuser(url) as holder, holder.transaction():
        holder.execute("LOCK TABLE tasks")
        reads = [in_background(client.get, path) for path in ("/api/tasks", f"/api/tasks/{task['id']}", "/api/me")]
        write = in_background(client.post, "/api/tasks", json={"title": "lost"})
        await_true(lambda: len(waiting(url)) == 4)
        disconnect(url)
    assert [read.result().status_code for read in reads] == [200] * 3
    assert_unavailable(write.result())
    assert client.get("/api/tasks").json() == [task]


def test_a_database_at_its_connection_limit_is_a_503_for_those_beyond_it(
    postgres: Postgres, url: str, client: Client
) -> None:
    task = client.create()

    def limit(number: int) -> None:
        postgres.execute(f"ALTER ROLE tasks_api CONNECTION LIMIT {number}")
        disconnect(url)

    try:
        limit(0)
        assert_unavailable(client.get("/api/tasks"))
        limit(2)
        with ThreadPoolExecutor(20) as threads:
            answers = list(threads.map(client.get, ["/api/tasks"] * 40))
        assert {answer.status_code for answer in answers} <= {200, 503}
        assert any(answer.status_code == 200 for answer in answers)
        for answer in answers:
            if answer.status_code == 503:
                assert_unavailable(answer)
    finally:
        limit(-1)
    assert client.get("/api/tasks").json() == [task]


def test_a_database_that_only_reads_answers_reads_and_refuses_writes(url: str, client: Client) -> None:
    task = client.create()
    path = f"/api/tasks/{task['id']}"
    with superuser(url) as connection:
        (name,) = connection.execute("SELECT current_database()").fetchone() or ("",)
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        disconnect(url)
        assert client.get("/api/tasks").json() == [task]
        assert client.get(path).json() == task
        assert client.get("/api/me").status_code == 200
        not_ready = "The service is not ready: the database accepts no writes: transaction_read_only is on."
        assert_problem(client.get("/ready"), 503, "unavailable", not_ready)
        for response in (
            client.post("/api/tasks", json={"title": "x"}),
            client.post("/api/tasks", json={"title": "x"}, headers={"Idempotency-Key": "key"}),
            client.put(path, json={"title": "x"}),
            client.patch(f"{path}/complete"),
            client.delete(path),
            client.delete("/api/me"),
        ):
            assert_problem(response, 503, "unavailable", READ_ONLY)
            assert response.headers["retry-after"] == "2"
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        disconnect(url)
    assert client.get("/api/tasks").json() == [task]
    assert client.put(path, json={"title": "x"}).status_code == 200


@pytest.fixture
def small_disk(postgres: Postgres, url: str) -> Iterator[tuple[Callable[[], None], Callable[[], object]]]:
    """Move the database to a disk of 24 MB; fill it, and make room again.

    Where no file system can be mounted, the database itself says that the disk is full, at the same point of a write.
    """
    directory = postgres.directory / "disk"
    directory.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0777", "tmpfs", str(directory)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield from _pretended_full_disk(url)
        return
    if ACCOUNT:
        os.chown(directory, ACCOUNT.uid, ACCOUNT.gid)
    with superuser(postgres.url) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{directory}'")
        name = re.findall(r"dbname=(\S+)", url)[0]
        connection.execute(f"ALTER DATABASE {name} SET TABLESPACE small")
    with superuser(url) as connection:

        def fill() -> None:
            connection.execute("CREATE TABLE filler (content text STORAGE PLAIN)")
            for size in (7000, 100):
                with suppress(psycopg.errors.DiskFull):
                    while True:
                        connection.execute(
                            "INSERT INTO filler SELECT repeat('x', %s) FROM generate_series(1, 100)", (size,)
                        )

        yield fill, lambda: connection.execute("DROP TABLE filler; CHECKPOINT")
    with superuser(postgres.url) as connection:
        connection.execute("ALTER DATABASE " + name + " SET TABLESPACE pg_default")
        connection.execute("DROP TABLESPACE small")
    subprocess.run(["umount", str(directory)], check=True)


def _pretended_full_disk(url: str) -> Iterator[tuple[Callable[[], None], Callable[[], object]]]:
    with superuser(url) as connection:

        def fill() -> None:
            connection.execute(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
                " $$BEGIN RAISE SQLSTATE '53100' USING MESSAGE = 'could not extend file'; END$$"
            )
            for table in ("tasks", "idempotency_keys"):
                connection.execute(
                    f"CREATE TRIGGER full_disk AFTER INSERT OR UPDATE ON {table} EXECUTE FUNCTION full_disk()"
                )

        yield fill, lambda: connection.execute("DROP FUNCTION full_disk CASCADE")


def test_a_full_disk_is_a_503_for_writes_and_nothing_is_half_written(
    small_disk: tuple[Callable[[], None], Callable[[], object]], url: str, client: Client
) -> None:
    fill, make_room = small_disk
    task = client.create()
    fill()
    refused = None
    stored = 1
    while refused is None:  # the tasks' last pages have some room left
        answer = client.post(
            "/api/tasks", json={"title": "x" * 200, "description": "y" * 1000}, headers={"Idempotency-Key": str(stored)}
        )
        if answer.status_code == 201:
            stored += 1
        else:
            refused = answer
    assert_unavailable(refused)
    assert client.get(f"/api/tasks/{task['id']}").json() == task
    assert len(client.titles(limit="1000")) == stored
    with superuser(url) as connection:
        counts = "SELECT (SELECT count(*) FROM tasks), (SELECT count(*) FROM idempotency_keys)"
        assert connection.execute(counts).fetchone() == (stored, stored - 1)
    make_room()
    client.create()
    assert len(client.titles(limit="1000")) == stored + 1


# The server


@pytest.mark.load
def test_every_write_acknowledged_by_a_server_that_is_killed_is_there_and_none_is_half_there(
    url: str, host: str, tmp_path: Path
) -> None:
    environment = {"DATABASE_URL": url, "BETTER_AUTH_SECRET": SECRET, "SERVER_FRAMEWORK": host}
    token = sign(Settings.load(environment), sub="killed", email="killed@example.com")
    acknowledged: set[str] = set()
    is_over = threading.Event()
    with ServerProcess(directory=tmp_path, **environment) as server:
        port = server.url.rpartition(":")[2]

        def write(number: int) -> None:
            step = 0
            with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {token}"}, trust_env=False) as c:
                while not is_over.is_set():
                    step += 1
                    title = f"{number} {step}"
                    body = {"title": title, "description": title, "priority": "low", "due_date": "2030-01-01T00:00:00Z"}
                    with suppress(httpx.TransportError):
                        if c.post("/api/tasks", json=body).status_code == 201:
                            acknowledged.add(title)

        with ThreadPoolExecutor(8) as threads:
            writers = [threads.submit(write, number) for number in range(8)]
            try:
                for _ in range(3):
                    before = len(acknowledged)
                    await_true(lambda before=before: len(acknowledged) > before + 50)  # type: ignore[misc]
                    server.process.send_signal(signal.SIGKILL)
                    server.process.wait(timeout=10)
                    server.restart(port)
            finally:
                is_over.set()
            for writer in writers:
                writer.result()
    with superuser(url) as connection:
        query = "SELECT title, title_folded, description, description_folded, priority, due_date, version FROM tasks"
        rows = connection.execute(query).fetchall()
        assert connection.execute("SELECT id, email FROM users").fetchall() == [("killed", "killed@example.com")]
    stored = {row[0] for row in rows}
    assert len(stored) == len(rows)
    assert acknowledged <= stored
    assert len(stored) - len(acknowledged) <= 3 * 8  # what was in flight at each kill
    for title, *others, priority, due, version in rows:
        assert others == [title] * 3
        assert (priority, due.year, version) == ("low", 2030, 1)


def test_sigterm_lets_requests_in_flight_end_and_refuses_later_ones(
    url: str, host: str, tmp_path: Path, conformance: Conformance, in_background: Callable[..., Future[httpx.Response]]
) -> None:
    environment = {"DATABASE_URL": url, "BETTER_AUTH_SECRET": SECRET, "SERVER_FRAMEWORK": host, "LOCK_TIMEOUT": "9"}
    environment["STATEMENT_TIMEOUT"] = "9"
    token = sign(Settings.load(environment), sub="drained")
    with (
        ServerProcess(directory=tmp_path, **environment) as server,
        Client(server.url, conformance, token=token) as client,
        superuser(url) as holder,
    ):
        task = client.create()
        with holder.transaction():
            holder.execute("LOCK TABLE tasks")
            requests = [
                in_background(client.patch, f"/api/tasks/{task['id']}/complete"),
                in_background(client.get, "/api/tasks"),
            ]
            await_true(lambda: len(waiting(url)) == 2)
            server.process.send_signal(signal.SIGTERM)
            asked = time.monotonic()
            await_true(lambda: not accepts(server.url), timeout=10)
            assert server.process.poll() is None
        assert [request.result().status_code for request in requests] == [200, 200]
        assert server.process.wait(timeout=10) == 0
        assert time.monotonic() - asked < 10
        with pytest.raises(httpx.ConnectError):
            client.get("/health")
    assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_sigterm_waits_ten_seconds_at_the_most(
    url: str, host: str, tmp_path: Path, conformance: Conformance, in_background: Callable[..., Future[httpx.Response]]
) -> None:
    environment = {"DATABASE_URL": url, "BETTER_AUTH_SECRET": SECRET, "SERVER_FRAMEWORK": host, "LOCK_TIMEOUT": "60"}
    environment["STATEMENT_TIMEOUT"] = "60"
    token = sign(Settings.load(environment), sub="stuck")
    with (
        ServerProcess(directory=tmp_path, **environment) as server,
        Client(server.url, conformance, token=token) as client,
        superuser(url) as holder,
        holder.transaction(),
    ):
        holder.execute("LOCK TABLE tasks")
        request = in_background(client.get, "/api/tasks")
        await_true(lambda: len(waiting(url)) == 1)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=10 + 5) == 0
        assert_problem(request.result(), 503, "unavailable", "The service is shutting down. Try again.")


def accepts(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port))).close()
    except OSError:
        return False
    return True


# More than it can do


@pytest.fixture
def crowded(url: str, host: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server whose database takes 2 s to store a task."""
    environment = {"DATABASE_URL": url, "BETTER_AUTH_SECRET": SECRET, "SERVER_FRAMEWORK": host}
    database = Database(url)
    schema.migrate(database)
    database.dispose()
    with superuser(url) as connection:
        connection.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN PERFORM pg_sleep(2); RETURN NEW; END$$;"
            "CREATE TRIGGER slow BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION slow()"
        )
    with ServerProcess(directory=tmp_path, **environment) as server:
        yield server


@pytest.mark.load
@pytest.mark.parametrize("operation", ["fast", "slow"])
def test_a_thousand_requests_at_once_each_have_an_answer_in_time_and_memory_is_bounded(
    crowded: ServerProcess, url: str, operation: str
) -> None:
    settings = Settings.load({"BETTER_AUTH_SECRET": SECRET})
    requests = [REQUESTS[operation].replace("TOKEN", sign(settings, sub=user)).encode() for user in ("one", "other")]
    before = peak_memory(crowded.process.pid)
    answers = asyncio.run(send_at_once(crowded.url, *requests))
    growth = peak_memory(crowded.process.pid) - before
    statuses = Counter(status for status, _, _ in answers)
    slowest = max(seconds for _, _, seconds in answers)
    success = 200 if operation == "fast" else 201
    assert statuses[success] >= 8  # half of nine slots, of each of two users
    assert set(statuses) <= {success, 503}
    assert all("retry-after: 2" in head for status, head, _ in answers if status == 503)
    assert slowest < HANGING, statuses
    assert growth < 128  # MiB
    with superuser(url) as connection:
        assert connection.execute("SELECT count(*) FROM tasks").fetchone() == (statuses[201],)
    assert httpx.get(f"{crowded.url}/ready", trust_env=False).status_code == 200


def test_a_slow_database_does_not_hold_up_health(crowded: ServerProcess) -> None:
    token = sign(Settings.load({"BETTER_AUTH_SECRET": SECRET}), sub="slow")
    request = REQUESTS["slow"].replace("TOKEN", token).encode()
    is_over = threading.Event()
    seconds = []

    def ask() -> None:
        with httpx.Client(base_url=crowded.url, trust_env=False, timeout=30) as client:
            while not is_over.is_set():
                asked = time.monotonic()
                assert client.get("/health").status_code == 200
                seconds.append(time.monotonic() - asked)

    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(ask)
        asyncio.run(send_at_once(crowded.url, request, number=50))
        is_over.set()
        asking.result()
    assert len(seconds) > 10
    assert max(seconds) < 2  # as long as one statement takes


REQUESTS = {
    "fast": "GET /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\n\r\n",
    "slow": "POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\n"
    'Content-Type: application/json\r\nContent-Length: 13\r\n\r\n{"title":"x"}',
}


async def send_at_once(url: str, *requests: bytes, number: int = CROWD) -> list[tuple[int, str, float]]:
    """Open the connections, then send a request on each, in turn; return status, head and seconds of each answer."""
    host, port = url.removeprefix("http://").split(":")
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(number)]

    async def ask(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, str, float]:
        started = time.monotonic()
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        head = answer.partition(b"\r\n\r\n")[0].decode()
        return int(head.split()[1]), head, time.monotonic() - started

    return await asyncio.gather(
        *(ask(one, *connection) for one, connection in zip(cycle(requests), connections, strict=False))
    )


def peak_memory(pid: int) -> int:
    """The most memory that a process has had, in MiB."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) // 1024

"""The database underneath: URLs, migrations, the pool, and what happens when it is away (FR-018 to FR-024, SC-009)."""

import asyncio
import logging
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import httpx
import psycopg
import pytest
import uvloop
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import text
from sqlalchemy.util import greenlet_spawn

from models import schema
from models.base import Base
from models.caller import Caller
from models.errors import KeyInUse
from models.idempotency import ATTEMPTS, create_task_once
from models.inspection import VERSION_TABLE
from models.quota import Quota
from models.schema import HEAD, LOCK
from models.task_creation import create_task
from openapi.lifespan import migrate, watch
from postgres.database import Database
from postgres.driver import InThread, OnLoop
from postgres.errors import ConstraintViolated, DatabaseFault, DatabaseUnavailable, NotInOrder, RoleUnbound
from postgres.scope import Scope
from postgres.statement import read
from settings.settings import Settings
from tests.support.client import Client, Conformance, assert_problem
from tests.support.hosts import HOSTS
from tests.support.problems import UNAVAILABLE
from tests.support.raw import connect
from tests.support.relay import Relay
from tests.support.server import ROOT, SECRET, Server, ServerProcess, sign
from tests.support.waiting import await_true

# How many statements sleep for a minute. What is merely active may be too young to be cancelled.
ASLEEP = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND wait_event = 'PgSleep'"


@pytest.fixture
def relay(database_url: str) -> Iterator[Relay]:
    with Relay(database_url) as relay:
        yield relay


@pytest.mark.parametrize("framework", HOSTS)
def test_a_database_that_is_away_later_is_a_503_and_comes_back_by_itself(
    relay: Relay, make_settings: Callable[..., Settings], conformance: Conformance, framework: str
) -> None:
    with (
        Server(make_settings(database_url=relay.url, server_framework=framework)) as server,
        Client(server.url, conformance, token=server.token(sub="cut")) as client,
    ):
        task = client.create()
        relay.cut()
        for response in (
            client.get("/api/tasks"),
            client.post("/api/tasks", json={"title": "x"}),
            client.get("/ready"),
        ):
            assert_problem(response, 503, "unavailable", UNAVAILABLE)
            assert response.headers["retry-after"] == "2"
        assert client.get("/health").status_code == 200
        relay.mend()
        assert client.get(f"/api/tasks/{task['id']}").json() == task
        assert client.get("/ready").status_code == 200


def test_connections_that_the_server_closed_while_idle_are_not_noticed(
    relay: Relay, make_settings: Callable[..., Settings], conformance: Conformance
) -> None:
    with (
        Server(make_settings(database_url=relay.url)) as server,
        Client(server.url, conformance, token=server.token(sub="idle")) as client,
    ):
        with ThreadPoolExecutor(10) as clients:
            list(clients.map(lambda _: client.create(), range(30)))
        relay.cut()
        relay.mend()
        with ThreadPoolExecutor(10) as clients:
            answers = list(clients.map(lambda _: client.get("/api/tasks").status_code, range(30)))
        assert answers == [200] * 30


def test_a_database_that_is_away_at_the_start_is_a_503_until_it_comes(
    relay: Relay, make_settings: Callable[..., Settings], conformance: Conformance
) -> None:
    relay.cut()
    with (
        Server(make_settings(database_url=relay.url)) as server,
        Client(server.url, conformance, token=server.token(sub="start")) as client,
    ):
        assert client.get("/health").status_code == 200
        assert_problem(client.get("/ready"), 503, "unavailable", UNAVAILABLE)
        assert_problem(client.get("/api/tasks"), 503, "unavailable", UNAVAILABLE)
        relay.mend()
        await_true(lambda: client.get("/ready").status_code == 200)
        client.create()


@pytest.fixture
def held_schema(empty_database_url: str) -> Iterator[psycopg.Connection]:
    """A connection that keeps others from making the schema until it closes."""
    with psycopg.connect(empty_database_url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        yield holder


def release(held_schema: psycopg.Connection) -> None:
    time.sleep(2)
    held_schema.close()


def test_the_start_waits_for_the_schema(
    empty_database_url: str,
    held_schema: psycopg.Connection,
    make_settings: Callable[..., Settings],
    conformance: Conformance,
) -> None:
    with ThreadPoolExecutor() as threads:
        threads.submit(release, held_schema)
        with (
            Server(make_settings(database_url=empty_database_url)) as server,
            Client(server.url, conformance, token=server.token(sub="early")) as client,
        ):
            client.create()


def test_the_start_does_not_wait_for_ever_for_the_schema(
    empty_database_url: str,
    held_schema: psycopg.Connection,
    make_settings: Callable[..., Settings],
    conformance: Conformance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("openapi.lifespan.START_TIMEOUT", 0.1)
    with (
        Server(make_settings(database_url=empty_database_url)) as server,
        Client(server.url, conformance, token=server.token(sub="early")) as client,
    ):
        assert client.get("/health").status_code == 200
        assert_problem(client.post("/api/tasks", json={"title": "x"}), 503, "unavailable", UNAVAILABLE)
        held_schema.close()
        await_true(lambda: client.get("/ready").status_code == 200)
        client.create()


def test_a_database_without_its_schema_is_not_ready(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    with pytest.raises(DatabaseUnavailable, match=f"revision none, this version needs {HEAD}"):
        schema.check(database)
    schema.migrate(database)
    schema.check(database)
    database.dispose()


def test_migrations_are_harmless_when_they_run_again(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    schema.migrate(database)
    schema.migrate(database)
    assert schema.revision(database) == HEAD
    database.dispose()


def test_migrations_make_the_schema_that_the_models_describe(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_server_default": True, "version_table": VERSION_TABLE}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_a_schema_that_is_newer_than_the_code_is_left_alone(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    schema.migrate(database)
    with database.engine.connect() as connection:
        connection.execute(text("UPDATE tasks_api_version SET version_num = 'from-the-future'"))
    schema.migrate(database)
    schema.check(database)
    assert schema.revision(database) == "from-the-future"
    database.dispose()


def test_four_workers_that_start_at_once_on_an_empty_database_all_come_up(
    empty_database_url: str, tmp_path: Path, conformance: Conformance
) -> None:
    environment = {"DATABASE_URL": empty_database_url, "BETTER_AUTH_SECRET": SECRET}
    with ServerProcess("--workers", "4", directory=tmp_path, **environment) as server:
        await_true(lambda: server.log.read_text().count("Application startup complete") == 4)
        token = sign(Settings.load(environment), sub="workers")
        with Client(server.url, conformance, token=token) as client:
            for _ in range(20):
                client.create()
            assert len(client.titles()) == 20
        assert "failed" not in server.log.read_text()


def test_many_processes_that_migrate_at_once_all_succeed(empty_database_url: str) -> None:
    command = [sys.executable, "-m", "server", "migrate"]
    environment = os.environ | {"DATABASE_URL": empty_database_url, "BETTER_AUTH_SECRET": SECRET}
    processes = [subprocess.Popen(command, cwd=ROOT, env=environment) for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4


@pytest.mark.parametrize(
    "form",
    [
        "postgres://tasks_api@/tasks_api?host={host}",
        "postgresql://tasks_api@/tasks_api?host={host}",
        "postgresql://tasks_api@/tasks_api?host={host}&application_name=from-the-url&connect_timeout=3",
        "host={host} user=tasks_api dbname=tasks_api",
    ],
)
def test_every_form_of_url_that_libpq_takes_is_taken(database_url: str, form: str) -> None:
    database = Database(form.format(host=conninfo_to_dict(database_url)["host"]))
    query = text("SELECT current_setting('application_name')")
    with database.engine.connect() as connection:
        expected = "from-the-url" if "from-the-url" in form else "tasks-api"
        assert connection.execute(query).scalar() == expected
    database.dispose()


def test_parameters_of_the_url_reach_libpq(relay: Relay) -> None:
    with_tls = Database(relay.url.replace("sslmode=disable", "sslmode=require&channel_binding=require"))
    with pytest.raises(DatabaseUnavailable, match="server does not support SSL"):
        schema.revision(with_tls)
    with_tls.dispose()


def test_a_statement_that_takes_too_long_is_given_up(database_url: str) -> None:
    database = Database(database_url, statement_timeout=0.2)
    with pytest.raises(DatabaseUnavailable, match="statement timeout"):
        database.rows(Scope.user("alice"), text("SELECT pg_sleep(30)"), {})
    assert database.rows(Scope.user("alice"), text("SELECT 1 AS one"), {}) == [{"one": 1}]
    database.dispose()


def test_a_lock_that_is_held_too_long_is_given_up(database_url: str, alice: Client) -> None:
    task = alice.create()
    database = Database(database_url, lock_timeout=0.2)
    update = text("UPDATE tasks SET title = title WHERE id = :id RETURNING id")
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT set_config('app.user_id', %s, true)", (alice.user,))
        holder.execute("SELECT 1 FROM tasks WHERE id = %s FOR UPDATE", (task["id"],))
        with pytest.raises(DatabaseUnavailable, match="lock timeout"):
            database.rows(Scope.user(str(alice.user)), update, {"id": task["id"]})
    database.dispose()


def test_the_pool_is_bounded(database_url: str) -> None:
    database = Database(database_url, pool_size=2, pool_timeout=0.2)
    unavailable = pytest.raises(DatabaseUnavailable, match="limit of size 2")
    with database.engine.connect(), database.engine.connect(), unavailable:
        schema.revision(database)
    database.dispose()


def test_a_connection_that_was_in_use_when_the_database_was_disposed_of_is_closed_after_its_statement(
    database_url: str,
) -> None:
    database = Database(database_url)
    with database.engine.connect() as connection:
        in_use: Any = connection.connection.dbapi_connection
        database.dispose()
        assert not in_use.closed
    assert in_use.closed


def test_disposing_of_the_database_ends_what_it_runs(database_url: str) -> None:
    database = Database(database_url, statement_timeout=600)
    with ThreadPoolExecutor() as threads, psycopg.connect(database_url, autocommit=True) as other:
        slow = threads.submit(database.rows, Scope.user("alice"), text("SELECT pg_sleep(60)"), {})
        await_true(lambda: other.execute(ASLEEP).fetchone() == (1,))
        database.dispose()
        with pytest.raises(DatabaseUnavailable):
            slow.result(timeout=5)


def test_when_all_connections_break_at_once_each_statement_finds_a_new_one(database_url: str) -> None:
    locked = read(text("SELECT 1 AS one FROM pg_advisory_xact_lock_shared(8)"))
    waiting = "FROM pg_stat_activity WHERE query LIKE 'SELECT 1 AS one FROM pg_adv%' AND wait_event = 'advisory'"
    database = Database(database_url, on_loop=True, lock_timeout=60, statement_timeout=60)

    async def run() -> None:
        with psycopg.connect(database_url, autocommit=True) as other:
            for _ in range(10):
                other.execute("SELECT pg_advisory_lock(8)")
                trips = [
                    asyncio.create_task(greenlet_spawn(database.rows, Scope.user("alice"), locked, {}))
                    for _ in range(8)
                ]
                await asyncio.to_thread(
                    await_true, lambda: other.execute(f"SELECT count(*) {waiting}").fetchone() == (8,)
                )
                # The event loop stands still until all have ended, so that it hears of them at once.
                other.execute(f"SELECT pg_terminate_backend(pid) {waiting}")
                await_true(lambda: other.execute(f"SELECT count(*) {waiting}").fetchone() == (0,))
                other.execute("SELECT pg_advisory_unlock(8)")
                assert await asyncio.wait_for(asyncio.gather(*trips), 10) == [[{"one": 1}]] * 8
        await greenlet_spawn(database.dispose)

    uvloop.run(run())


def test_the_descriptor_of_a_broken_connection_is_left_before_another_can_get_it() -> None:
    async def run() -> None:
        driver, loop, (ours, theirs) = OnLoop(), asyncio.get_running_loop(), socket.socketpair()
        with ours, theirs:
            trip = Mock(socket=ours.fileno(), is_sending=True)
            trip.proceed.side_effect = psycopg.OperationalError
            end = asyncio.create_task(greenlet_spawn(driver.wait, trip))
            await asyncio.sleep(0)
            driver.poll_pending()
            assert not loop.remove_reader(ours.fileno())
            assert not loop.remove_writer(ours.fileno())
            with pytest.raises(psycopg.OperationalError):
                await asyncio.wait_for(end, 5)

    with ThreadPoolExecutor() as threads:
        threads.submit(asyncio.run, run()).result()


@pytest.mark.parametrize("on_loop", [False, True])
def test_what_is_larger_than_the_buffers_of_the_network_is_sent_whole(database_url: str, on_loop: bool) -> None:
    size = 20_000_000

    def ask() -> None:
        database = Database(database_url, on_loop=on_loop)
        assert database.rows(Scope.user("alice"), text("SELECT length(:it) AS n"), {"it": "x" * size}) == [{"n": size}]
        database.dispose()

    asyncio.run(greenlet_spawn(ask)) if on_loop else ask()


ALICE = Caller("alice", None, None)


# An ErrorResponse (PostgreSQL's manual, "Message Formats"), and what is no message.
@pytest.mark.parametrize(
    ("last", "error"),
    [
        (b"E\0\0\0\x24SFATAL\0VFATAL\0C57P01\0Mfarewell\0\0", DatabaseUnavailable),
        (b"D\0\0\0\0", DatabaseFault),
    ],
)
@pytest.mark.parametrize("run_loop", [asyncio.run, uvloop.run])
def test_a_reset_connection_is_noticed_within_a_second_in_every_event_loop(
    relay: Relay, run_loop: Any, last: bytes, error: type[Exception]
) -> None:
    async def run() -> None:
        database = Database(relay.url, on_loop=True)
        watching = asyncio.create_task(watch(database))
        slow = asyncio.create_task(greenlet_spawn(database.rows, Scope.user("alice"), text("SELECT pg_sleep(5)"), {}))
        await asyncio.sleep(1.5)  # so that the watch looks once in vain
        await asyncio.to_thread(relay.reset, last)
        with pytest.raises(error):
            await asyncio.wait_for(slow, 3)
        watching.cancel()
        await greenlet_spawn(database.dispose)

    run_loop(run())


def test_what_is_cancelled_ends_its_statement_too(database_url: str) -> None:
    async def run() -> None:
        database = Database(database_url, on_loop=True, statement_timeout=600)
        with psycopg.connect(database_url, autocommit=True) as other:
            slow = asyncio.create_task(
                greenlet_spawn(database.rows, Scope.user("alice"), text("SELECT pg_sleep(60)"), {})
            )
            await asyncio.to_thread(await_true, lambda: other.execute(ASLEEP).fetchone() == (1,))
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            # PostgreSQL confirms that the request to cancel has come before it heeds it.
            await asyncio.to_thread(await_true, lambda: other.execute(ASLEEP).fetchone() == (0,), 5)
        await greenlet_spawn(database.dispose)

    with ThreadPoolExecutor() as threads:
        threads.submit(asyncio.run, run()).result()


def test_the_watch_goes_on_with_what_waits_and_with_nothing_else() -> None:
    async def run() -> None:
        driver, (ours, theirs) = OnLoop(), socket.socketpair()
        with ours, theirs:
            trip = Mock(socket=ours.fileno(), is_sending=False)
            trip.proceed.side_effect = [False, True]
            end = asyncio.create_task(greenlet_spawn(driver.wait, trip))
            await asyncio.sleep(0)
            driver.poll_pending()
            InThread().poll_pending()
            await asyncio.sleep(0)
            assert not end.done()
            driver.poll_pending()
            await asyncio.wait_for(end, 5)
            driver.poll_pending()
            assert trip.proceed.call_count == 2

    # In a thread of its own: where greenlets have run, coverage may have lost its trace.
    with ThreadPoolExecutor() as threads:
        threads.submit(asyncio.run, run()).result()


def test_an_answer_to_what_has_just_been_cancelled_is_dropped() -> None:
    async def run() -> None:
        driver, (ours, theirs) = OnLoop(), socket.socketpair()
        with ours, theirs:
            trip = Mock(socket=ours.fileno(), is_sending=False, connection=AsyncMock())
            trip.proceed.return_value = True
            end = asyncio.create_task(greenlet_spawn(driver.wait, trip))
            await asyncio.sleep(0)
            end.cancel()
            driver.poll_pending()
            with pytest.raises(asyncio.CancelledError):
                await end
            assert trip.proceed.called

    with ThreadPoolExecutor() as threads:
        threads.submit(asyncio.run, run()).result()


def test_a_standby_is_not_in_order(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "inspect", lambda _: Mock(is_standby=True))
    with pytest.raises(NotInOrder, match="the server is a standby"):
        schema.check(database)


@pytest.mark.parametrize("error", [DatabaseUnavailable("away"), ValueError("a fault")])
def test_what_lasts_is_logged_once(error: Exception, caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    monkeypatch.setattr("openapi.lifespan.RETRY_INTERVAL", 0)
    outcomes = [error, error, RoleUnbound("the role is a superuser")]

    async def run(*_: Any) -> None:
        raise outcomes.pop(0)

    unused: Any = None
    asyncio.run(migrate(run, unused, Mock(), asyncio.Event()))
    assert caplog.text.count("retrying") == 1
    assert "the role is a superuser" in caplog.text


class Unlucky:
    """A database in which a user is erased, or a key taken and freed, at the worst moment."""

    def __init__(self, *answers: list[dict[str, Any]] | Exception) -> None:
        self.answers = list(answers)

    def rows(self, *_: object, **__: object) -> list[dict[str, Any]]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_task_whose_user_is_erased_meanwhile_is_created_with_the_user_made_anew() -> None:
    unlucky: Any = Unlucky(ConstraintViolated(), [{"title": "x"}])
    assert create_task(unlucky, Quota(0, 0), ALICE, {"title": "x"}) == {"title": "x"}


def test_a_key_that_is_taken_and_freed_again_and_again_is_in_use() -> None:
    attempt: list[Any] = [ConstraintViolated(), [], []]
    unlucky: Any = Unlucky(*attempt * ATTEMPTS)
    with pytest.raises(KeyInUse):
        create_task_once(unlucky, Quota(0, 0), ALICE, {"title": "x"}, "key")
    assert not unlucky.answers


def test_a_fault_of_ours_is_not_taken_for_an_unavailable_database(database: Database) -> None:
    with pytest.raises(Exception, match="syntax error") as caught:
        database.rows(Scope.user("alice"), text("SELEC 1"), {})
    assert not isinstance(caught.value, DatabaseUnavailable)


def test_instants_are_in_utc_whatever_the_time_zone_of_the_session(
    database_url: str, alice: Client, make_settings: Callable[..., Settings], conformance: Conformance
) -> None:
    task = alice.create(due_date="9999-12-31T23:59:59Z")
    elsewhere = make_settings(database_url=f"{database_url} options='-c TimeZone=Pacific/Auckland'")
    with Server(elsewhere) as server, Client(server.url, conformance, token=server.token(sub=alice.user)) as client:
        assert client.get("/api/tasks").json() == [task]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO tasks (user_id, title, title_folded) VALUES ('{user}', '', '')",
        "INSERT INTO tasks (user_id, title, title_folded) VALUES ('{user}', '  ', '')",
        "INSERT INTO tasks (user_id, title, title_folded) VALUES ('{user}', repeat('x', 201), '')",
        "UPDATE tasks SET description = repeat('x', 1001)",
        "UPDATE tasks SET priority = 'urgent'",
        "UPDATE tasks SET due_date = 'infinity'",
        "UPDATE tasks SET due_date = '0002-01-01 BC'",
        "UPDATE tasks SET completed = NULL",
        "INSERT INTO users (id) VALUES ('')",
    ],
)
def test_the_database_itself_refuses_what_the_contract_refuses(
    database_url: str, alice: Client, statement: str
) -> None:
    alice.create()
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT set_config('app.user_id', %s, true)", ("" if "users" in statement else alice.user,))
        with pytest.raises((psycopg.errors.CheckViolation, psycopg.errors.NotNullViolation)):
            connection.execute(statement.format(user=alice.user))


def test_deleting_a_user_deletes_their_tasks(database_url: str, alice: Client) -> None:
    alice.create()
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT set_config('app.user_id', %s, true)", (alice.user,))
        connection.execute("DELETE FROM users")
    assert alice.titles() == []


def test_the_folder_of_the_migrations_may_have_any_name(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "it's 100% new & clean %(here)s"
    shutil.copytree(schema.MIGRATIONS, folder)
    monkeypatch.setattr("models.schema.MIGRATIONS", folder)
    database = Database(empty_database_url)
    schema.migrate(database)
    schema.check(database)
    database.dispose()


@pytest.mark.parametrize("framework", HOSTS)
def test_a_database_that_falls_silent_is_a_503_soon_after_the_time_limit_of_a_statement(
    relay: Relay,
    make_settings: Callable[..., Settings],
    conformance: Conformance,
    monkeypatch: pytest.MonkeyPatch,
    framework: str,
) -> None:
    monkeypatch.setattr("postgres.deadlines.GRACE", 0.5)
    monkeypatch.setattr("openapi.lifespan.WATCH_INTERVAL", 0.1)
    settings = make_settings(database_url=f"{relay.url}&connect_timeout=2", server_framework=framework)
    settings = replace(settings, statement_timeout=0.5)
    with (
        Server(settings) as server,
        Client(server.url, conformance, token=server.token(sub="silent")) as client,
    ):
        task = client.create()
        for method, path in (("GET", "/ready"), ("GET", "/api/tasks"), ("DELETE", f"/api/tasks/{task['id']}")):
            assert client.get("/ready").status_code == 200  # a connection is there, and none is new
            relay.hush()
            started = time.monotonic()
            assert_problem(client.request(method, path), 503, "unavailable", UNAVAILABLE)
            assert time.monotonic() - started < 10  # which the kernel alone would not notice in 30
            relay.cut()
            relay.mend()
        assert client.get(f"/api/tasks/{task['id']}").json() == task


def test_a_statement_within_its_time_limit_is_not_cut(database: Database) -> None:
    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(database.rows, Scope.user("slow"), text("SELECT pg_sleep(0.5), 1 AS one"), {})
        while not slow.done():
            database.watch()
            time.sleep(0.05)
        assert slow.result()[0]["one"] == 1


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_store_every_script_is_refused(database_url: str, encoding: str) -> None:
    name = f"encoded_{encoding.lower()}_{os.getpid()}"
    sentence = f"the database has the encoding {encoding}; make one with ENCODING 'UTF8'"
    with psycopg.connect(make_conninfo(database_url, user="postgres"), autocommit=True) as administrator:
        administrator.execute(
            f"CREATE DATABASE {name} OWNER tasks_api ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        )
        database = Database(make_conninfo(database_url, dbname=name))
        for use in (schema.check, schema.migrate, lambda it: it.rows(Scope.user("u"), text("SELECT 1"), {})):
            with pytest.raises(DatabaseUnavailable) as refused:
                use(database)
            assert str(refused.value) == sentence
        database.dispose()
        administrator.execute(f"DROP DATABASE {name}")


@pytest.mark.parametrize("framework", HOSTS)
def test_an_export_whose_database_fails_breaks_off_with_one_sentence_in_the_log(
    database_url: str, conformance: Conformance, tmp_path: Path, framework: str
) -> None:
    environment = {"DATABASE_URL": database_url, "BETTER_AUTH_SECRET": SECRET, "SERVER_FRAMEWORK": framework}
    token = sign(Settings.load(environment), sub=f"export-{framework}")
    with (  # a process, since a server that validates its answers does not stream them
        ServerProcess(directory=tmp_path, **environment) as server,
        Client(server.url, conformance, token=token) as client,
        psycopg.connect(make_conninfo(database_url, user="postgres")) as holder,
    ):
        client.create()
        holder.execute("LOCK TABLE idempotency_keys")  # which the export comes to last
        with client.stream("GET", "/api/me/export") as response, pytest.raises(httpx.RemoteProtocolError):
            response.read()
        holder.rollback()
        sentence = f"request {response.headers['x-request-id']}: the response broke off: canceling statement"
        await_true(lambda: sentence in server.log.read_text())
    assert "Traceback" not in server.log.read_text()


def test_a_client_that_leaves_is_no_fault(
    server: Server, alice: Client, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    request = f"GET /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: {alice.headers['authorization']}\r\n\r\n".encode()
    with caplog.at_level(logging.INFO), psycopg.connect(make_conninfo(database_url, user="postgres")) as holder:
        holder.execute("LOCK TABLE tasks")
        for how in (struct.pack("ii", 0, 0), struct.pack("ii", 1, 0)):  # in good order, and at once
            with connect(server) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)
                connection.sendall(request)
                time.sleep(0.2)
        holder.rollback()
        await_true(lambda: caplog.text.count(f"user={alice.user!r}") == 2)
    assert "Traceback" not in caplog.text
    assert " 500 " not in caplog.text

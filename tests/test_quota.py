"""How much a user may store: as much as the settings say, and neither less nor, however fast they are, more."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from unittest.mock import Mock

import psycopg
import pytest

from models.caller import Caller
from models.errors import Crowded
from models.quota import MAX_USERS, RESERVE, Quota
from models.task_creation import create_task
from postgres.errors import LockTimeout
from settings.settings import Settings
from tests.support.client import Client, Conformance, assert_problem
from tests.support.hosts import HOSTS
from tests.support.server import Server

MAXIMUM = 5
FULL = "You have as many tasks as you may have. Delete some first."
NO_MORE_KEYS = (
    "You have sent as many idempotency keys in 24 hours as you may send. Create the task without one, or later."
)


@pytest.fixture(params=HOSTS)
def make_client(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings], conformance: Conformance
) -> Iterator[Callable[..., Client]]:
    """Make a client of a user of a server with these limits."""
    with ExitStack() as stack:

        def make(tasks: int = 0, keys: int = 0, servers: int = 1) -> Any:
            limits = {
                "max_tasks_per_user": tasks,
                "max_keys_per_user": keys,
                "server_framework": request.param,
                "lock_timeout": 60,
                "statement_timeout": 60,
            }
            started = [stack.enter_context(Server(make_settings(**limits))) for _ in range(servers)]
            token = started[0].token(sub=(user := f"quota-{request.node.name}"))
            clients = [stack.enter_context(Client(one.url, conformance, token=token, user=user)) for one in started]
            return clients if servers > 1 else clients[0]

        yield make


TITLE: Any = {"json": {"title": "x"}}


def keyed(key: str) -> Any:
    """Return a request for a new task with a key."""
    return {**TITLE, "headers": {"Idempotency-Key": key}}


@pytest.mark.parametrize("has_key", [False, True])
def test_a_user_may_have_so_many_tasks_and_again_after_deleting_one(
    make_client: Callable[..., Client], has_key: bool
) -> None:
    client = make_client(tasks=MAXIMUM)

    def post(number: int) -> Any:
        return client.post("/api/tasks", **(keyed(f"key-{number}") if has_key else TITLE))

    created = [post(number).json() for number in range(MAXIMUM)]
    assert_problem(post(MAXIMUM), 403, "too_many_tasks", FULL)
    assert len(client.get("/api/tasks").json()) == MAXIMUM
    client.delete(f"/api/tasks/{created[0]['id']}")
    assert post(MAXIMUM).status_code == 201
    assert_problem(post(MAXIMUM + 1), 403, "too_many_tasks", FULL)


def test_a_key_that_is_sent_again_has_its_task_although_there_is_no_room_for_more(
    make_client: Callable[..., Client],
) -> None:
    client = make_client(tasks=1)
    first = client.post("/api/tasks", **keyed("first"))
    again = client.post("/api/tasks", **keyed("first"))
    assert (again.status_code, again.json()) == (201, first.json())
    assert_problem(client.post("/api/tasks", **keyed("second")), 403, "too_many_tasks", FULL)


def test_a_user_may_have_so_many_keys_and_more_tasks_without(make_client: Callable[..., Client]) -> None:
    client = make_client(keys=MAXIMUM)
    for number in range(MAXIMUM):
        assert client.post("/api/tasks", **keyed(str(number))).status_code == 201
    assert_problem(client.post("/api/tasks", **keyed("more")), 403, "too_many_idempotency_keys", NO_MORE_KEYS)
    assert client.post("/api/tasks", **keyed("0")).headers["Idempotency-Replayed"] == "true"
    assert client.post("/api/tasks", **TITLE).status_code == 201


def test_keys_of_more_than_a_day_ago_do_not_count(make_client: Callable[..., Client], database_url: str) -> None:
    client = make_client(keys=1)
    assert client.post("/api/tasks", **keyed("first")).status_code == 201
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT set_config('app.user_id', %s, true)", (client.user,))
        connection.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    assert client.post("/api/tasks", **keyed("second")).status_code == 201
    assert_problem(client.post("/api/tasks", **keyed("third")), 403, "too_many_idempotency_keys", NO_MORE_KEYS)


@pytest.mark.parametrize("has_key", [False, True])
def test_who_waits_too_long_near_the_limit_is_told_to_try_again(
    make_settings: Callable[..., Settings], conformance: Conformance, database_url: str, has_key: bool
) -> None:
    user = f"crowded-{has_key}"
    with (
        Server(make_settings(max_tasks_per_user=MAXIMUM, lock_timeout=0.1)) as server,
        Client(server.url, conformance, token=server.token(sub=user), user=user) as client,
        psycopg.connect(database_url) as other,
    ):
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (user,))
        request = keyed("key") if has_key else TITLE
        assert_problem(client.post("/api/tasks", **request), 503, "busy", "The service is busy. Try again.")
        other.rollback()
        assert client.post("/api/tasks", **request).status_code == 201


@pytest.mark.parametrize(("stored", "error"), [(0, LockTimeout), (MAXIMUM, Crowded)])
def test_a_lock_is_the_quotas_only_near_the_limit(stored: int, error: type[Exception]) -> None:
    database: Any = Mock(rows=Mock(side_effect=LockTimeout))
    quota = Quota(MAXIMUM, 0)
    if stored:
        quota.note("alice", stored, 0)
    # In a thread of its own: where greenlets have run, coverage may have lost its trace.
    with ThreadPoolExecutor() as threads, pytest.raises(error):
        threads.submit(create_task, database, quota, Caller("alice", None, None), {"title": "x"}).result()


def test_without_limits_there_are_none(make_client: Callable[..., Client]) -> None:
    client = make_client()
    for number in range(MAXIMUM + 1):
        assert client.post("/api/tasks", **keyed(str(number))).status_code == 201


@pytest.mark.parametrize("has_key", [False, True])
def test_requests_at_the_same_time_on_two_servers_do_not_pass_the_limit(
    make_client: Callable[..., Any], has_key: bool
) -> None:
    clients = make_client(tasks=MAXIMUM, servers=2)

    def post(number: int) -> int:
        request = keyed(f"key-{number}") if has_key else TITLE
        status: int = clients[number % 2].post("/api/tasks", **request).status_code
        return status

    with ThreadPoolExecutor(10) as threads:
        assert Counter(threads.map(post, range(40))) == {201: MAXIMUM, 403: 40 - MAXIMUM}
    assert len(clients[0].get("/api/tasks").json()) == MAXIMUM


def test_users_do_not_use_up_each_others_room(
    make_settings: Callable[..., Settings], conformance: Conformance, database_url: str
) -> None:
    with Server(make_settings(max_tasks_per_user=1)) as server:
        for user in ("quota-one", "quota-other"):
            with Client(server.url, conformance, token=server.token(sub=user), user=user) as client:
                assert client.post("/api/tasks", **TITLE).status_code == 201
                assert_problem(client.post("/api/tasks", **TITLE), 403, "too_many_tasks", FULL)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)


def test_a_burst_of_requests_with_room_for_all_do_not_wait_for_each_other(
    make_client: Callable[..., Client], database_url: str
) -> None:
    client = make_client(tasks=10_000)
    with psycopg.connect(database_url) as other:
        # As another process that counts this user's tasks.
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (client.user,))
        assert client.post("/api/tasks", **TITLE).status_code == 201


def test_counting_is_seldom_while_there_is_room_and_never_late() -> None:
    quota, stored, counted = Quota(10_000, 0), 0, 0
    while True:
        if quota.must_count("alice"):
            counted += 1
            quota.note("alice", stored, 0)
            if stored == quota.parameters(is_exclusive=quota.is_near("alice"))["max_tasks"]:
                break
        stored += 1
    assert stored == 10_000
    assert counted < 10 * RESERVE


def test_the_room_of_so_many_users_is_remembered_and_no_more() -> None:
    quota = Quota(1000, 0)
    for number in range(MAX_USERS + 1):
        quota.note(str(number), 0, 0)
    assert [quota.must_count(user) for user in ("0", "1", str(MAX_USERS))] == [True, False, False]

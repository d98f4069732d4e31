"""How often an operation waits for the database, counted on the wire, with row-level security on."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from openapi.contract import Contract
from postgres.driver import InThread
from postgres.round_trip import RoundTrip
from settings.settings import Settings
from tests.support.client import Client
from tests.support.hosts import HOSTS
from tests.support.relay import Relay
from tests.support.server import Server

TITLE = {"title": "A task"}
STALE = {"If-Match": '"99"'}
Request = Callable[[Client, str], httpx.Response]

# Of each operation, what it costs when it finds what it is asked for. `task` is the id of one of the caller's.
OPERATIONS: dict[str, tuple[int, int, Request]] = {
    "list_tasks": (1, 200, lambda client, _: client.get("/api/tasks")),
    "create_task": (1, 201, lambda client, _: client.post("/api/tasks", json=TITLE)),
    "get_task": (1, 200, lambda client, task: client.get(f"/api/tasks/{task}")),
    "update_task": (1, 200, lambda client, task: client.put(f"/api/tasks/{task}", json=TITLE)),
    "patch_task": (1, 200, lambda client, task: client.patch(f"/api/tasks/{task}", json=TITLE)),
    "complete_task": (1, 200, lambda client, task: client.patch(f"/api/tasks/{task}/complete")),
    "delete_task": (1, 204, lambda client, task: client.delete(f"/api/tasks/{task}")),
    "get_me": (1, 200, lambda client, _: client.get("/api/me")),
    "delete_me": (1, 204, lambda client, _: client.delete("/api/me")),
    # The user, a batch of tasks, the empty batch that ends them, and the same of keys, of which there are none.
    "export_me": (4, 200, lambda client, _: client.get("/api/me/export")),
    "health": (0, 200, lambda client, _: client.get("/health")),
    # What the role may do, what the database is like, and which revision it has.
    "ready": (3, 200, lambda client, _: client.get("/ready")),
}
# What needs a second question.
MISSES: dict[str, tuple[int, Request]] = {
    "an unknown task": (404, lambda client, _: client.get(f"/api/tasks/{uuid4()}")),
    "an unknown task to write": (404, lambda client, _: client.put(f"/api/tasks/{uuid4()}", json=TITLE)),
    "an unknown task to toggle": (404, lambda client, _: client.patch(f"/api/tasks/{uuid4()}/complete")),
    "an unknown task to delete": (404, lambda client, _: client.delete(f"/api/tasks/{uuid4()}")),
    "a stale write": (412, lambda client, task: client.put(f"/api/tasks/{task}", json=TITLE, headers=STALE)),
    "a stale deletion": (412, lambda client, task: client.delete(f"/api/tasks/{task}", headers=STALE)),
}
LISTS = ("limit=1", "status=pending&sort=title&order=desc", "sort=due_date&priority=low", "q=task&overdue=true")


@pytest.fixture(scope="module")
def relay(database_url: str) -> Iterator[Relay]:
    with Relay(database_url) as relay:
        yield relay


@pytest.fixture(scope="module", params=HOSTS)
def server(request: pytest.FixtureRequest, relay: Relay, make_settings: Callable[..., Settings]) -> Iterator[Server]:
    """A server with one connection, which each request finds open."""
    settings = make_settings(server_framework=request.param, database_url=relay.url, database_pool_size=1)
    with Server(settings) as server:
        yield server


@pytest.fixture
def caller(make_client: Callable[..., Client]) -> Client:
    return make_client()


@pytest.fixture
def count(relay: Relay, caller: Client) -> Callable[[Callable[[], httpx.Response]], tuple[int, int]]:
    """Count the round trips of a request, and return them with its status."""

    def of(request: Callable[[], httpx.Response]) -> tuple[int, int]:
        caller.get("/api/tasks")  # the connection is there
        before = relay.round_trips
        status = request().status_code
        return relay.round_trips - before, status

    return of


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_takes_its_round_trips_and_no_more(caller: Client, count: Any, operation: str) -> None:
    expected, status, request = OPERATIONS[operation]
    task = caller.create()["id"]
    assert count(lambda: request(caller, task)) == (expected, status)


def test_the_round_trips_of_every_operation_are_counted() -> None:
    document = Contract().document
    operations = {
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict) and "operationId" in operation
    }
    assert operations == set(OPERATIONS)


@pytest.mark.parametrize("query", LISTS)
def test_a_list_takes_one_round_trip_whatever_it_asks_for(caller: Client, count: Any, query: str) -> None:
    caller.create(priority="low", due_date="2020-01-01T00:00:00Z")
    assert count(lambda: caller.get(f"/api/tasks?{query}")) == (1, 200)


def test_a_later_page_takes_one_round_trip(caller: Client, count: Any) -> None:
    caller.create()
    caller.create()
    following = caller.get("/api/tasks?limit=1").links["next"]["url"]
    assert count(lambda: caller.get(following)) == (1, 200)


@pytest.mark.parametrize("miss", MISSES)
def test_a_miss_takes_two_round_trips(caller: Client, count: Any, miss: str) -> None:
    status, request = MISSES[miss]
    task = caller.create()["id"]
    assert count(lambda: request(caller, task)) == (2, status)


def test_reaching_for_another_users_task_takes_two_round_trips(caller: Client, bob: Client, count: Any) -> None:
    task = bob.create()["id"]
    assert count(lambda: caller.get(f"/api/tasks/{task}")) == (2, 403)


def test_a_new_users_first_task_takes_one_round_trip(make_client: Callable[..., Client], count: Any) -> None:
    newcomer = make_client()
    assert count(lambda: newcomer.post("/api/tasks", json=TITLE)) == (1, 201)


def test_creating_with_a_key_takes_one_round_trip_and_its_replay_two(caller: Client, count: Any) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    assert count(lambda: caller.post("/api/tasks", json=TITLE, headers=headers)) == (1, 201)
    assert count(lambda: caller.post("/api/tasks", json=TITLE, headers=headers)) == (2, 201)


def test_a_request_that_is_refused_takes_no_round_trip(caller: Client, count: Any) -> None:
    assert count(lambda: caller.post("/api/tasks", json={"title": ""})) == (0, 400)
    assert count(lambda: caller.get("/api/tasks", headers={"Authorization": "Bearer none"})) == (0, 401)


def test_a_round_trip_is_counted_where_the_client_waits(relay: Relay) -> None:
    with psycopg.connect(relay.url, autocommit=True) as connection:
        before = relay.round_trips
        connection.execute("SELECT 1")
        connection.execute("SELECT 2")
        assert relay.round_trips - before == 2
        trip = RoundTrip(connection, b"SELECT 1", [], b"SELECT 2", [])
        InThread().wait(trip)
        assert len(trip.rows()) == 1
        assert relay.round_trips - before == 3

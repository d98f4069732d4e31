"""Each wall between users holds alone: row-level security without the conditions, and pooled connections under load."""

import http.client
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from sqlalchemy import BinaryExpression, Case, Column, true
from sqlalchemy.sql.visitors import replacement_traverse

from postgres import scope
from postgres.database import Database
from postgres.scope import Scope
from settings.settings import Settings
from tests.support.client import Client, Conformance
from tests.support.server import Server
from tests.support.waiting import await_true

pytestmark = pytest.mark.unmeasured

OWNERS = {("tasks", "user_id"), ("idempotency_keys", "user_id"), ("users", "id")}
STORED = (
    "SELECT id FROM users WHERE id = %s",
    "SELECT * FROM tasks WHERE user_id = %s ORDER BY id",
    "SELECT key, task FROM idempotency_keys WHERE user_id = %s ORDER BY key",
)
MAKE_OLD = "UPDATE idempotency_keys SET created_at = created_at - interval '25 hours' WHERE user_id = ANY(%s)"


def strike(statement: Any) -> tuple[Any, int]:
    """Return the statement with every comparison of a user's id replaced by true, and how many there were."""
    found = 0

    def replace(element: Any, **_: Any) -> Any:
        nonlocal found
        if isinstance(element, Case):  # what the probe selects is no condition
            return element
        sides = (element.left, element.right) if isinstance(element, BinaryExpression) else ()
        if any(isinstance(side, Column) and (side.table.name, side.name) in OWNERS for side in sides):
            found += 1
            return true()
        return None

    return replacement_traverse(statement, {}, replace), found


class Strikes:
    """Strikes the conditions on the user from every statement before it runs, and counts them."""

    def __init__(self) -> None:
        self.count = 0
        self._rows = Database.rows

    def rows(self, database: Database, scope: Scope, statement: Any, parameters: Any, **options: Any) -> Any:
        """Stand in for Database.rows."""
        struck, count = strike(statement)
        self.count += count
        names = set(struck.compile().params) & set(parameters)
        return self._rows(database, scope, struck, {name: parameters[name] for name in names}, **options)


@pytest.fixture
def strikes(monkeypatch: pytest.MonkeyPatch) -> Strikes:
    strikes = Strikes()
    monkeypatch.setattr(Database, "rows", lambda *arguments, **options: strikes.rows(*arguments, **options))
    return strikes


class Neighbours:
    """Two users with tasks and a key of the same name; alice is about to reach for what is bob's."""

    def __init__(self, alice: Client, bob: Client, database_url: str) -> None:
        self.alice, self.bob = alice, bob
        self._administrator = make_conninfo(database_url, user="postgres")
        # Bob's rows come first, so that a statement without conditions meets them first.
        self.targets, self.own = [self._add(client) for client in (bob, alice)]

    def _add(self, client: Client) -> list[str]:
        fields = {"priority": "high", "due_date": "2020-01-01T00:00:00Z"}
        first, second = (client.create("needle", **fields)["id"] for _ in range(2))
        assert client.patch(f"/api/tasks/{first}/complete").status_code == 200
        return [first, second, self.create_keyed(client)]

    @staticmethod
    def create_keyed(client: Client) -> str:
        """Create a task with the key that both have, or get it again."""
        fields = {"title": "needle", "priority": "high", "due_date": "2020-01-01T00:00:00Z"}
        return str(client.post("/api/tasks", json=fields, headers={"Idempotency-Key": "key"}).json()["id"])

    def make_keys_old(self) -> None:
        """Make both users' keys older than a key is kept."""
        with psycopg.connect(self._administrator) as connection:
            connection.execute(MAKE_OLD, ([self.alice.user, self.bob.user],))

    def bobs(self) -> list[Any]:
        """Return all that is bob's, as it is stored."""
        with psycopg.connect(self._administrator) as connection:
            return [connection.execute(query, (self.bob.user,)).fetchall() for query in STORED]

    def lists(self) -> bool:
        """Ask for every order and filter, in one page and in pages of one; tell whether each had what is alice's."""
        filters: tuple[dict[str, str], ...] = (
            {},
            {"priority": "high"},
            {"due_from": "2019-01-01T00:00:00Z", "due_to": "2021-01-01T00:00:00Z"},
            {"q": "needle"},
        )
        expected = {"all": 3, "pending": 2, "completed": 1}
        orders = itertools.product(expected, ("created", "title", "due_date"), ("asc", "desc"), filters, ("1", "100"))
        for status, sort, order, more, limit in orders:
            query = {"status": status, "sort": sort, "order": order, "limit": limit, **more}
            found = self._pages(self.alice.get("/api/tasks", params=query))
            if len(found) != expected[status] or not set(found) <= set(self.own):
                return False
        return self._pages(self.alice.get("/api/tasks", params={"overdue": "true", "limit": "1"})) == self.own[:0:-1]

    def _pages(self, page: Any) -> list[str]:
        found = [task["id"] for task in page.json()]
        while "next" in page.links and len(found) < 10:
            page = self.alice.get(page.links["next"]["url"])
            found += [task["id"] for task in page.json()]
        return found

    def counts(self) -> bool:
        """Ask for the caller; tell whether the numbers are alice's."""
        response = self.alice.get("/api/me")
        return response.is_success and response.json()["tasks"] == {"pending": 2, "completed": 1}

    def exports(self) -> bool:
        """Export; tell whether it has what is alice's and no more."""
        export = self.alice.get("/api/me/export").json()
        tasks, keys = (
            [task["id"] for task in export["tasks"]],
            [key["task"]["id"] for key in export["idempotency_keys"]],
        )
        return (export["user"]["id"], sorted(tasks), keys) == (self.alice.user, sorted(self.own), self.own[2:])

    def repeats_the_key(self) -> bool:
        """Use the key again, then when it is too old; tell whether the first answer was alice's."""
        is_own = self.create_keyed(self.alice) == self.own[2]
        self.make_keys_old()
        return is_own and self.create_keyed(self.alice) not in self.own + self.targets

    def erases(self) -> bool:
        """Erase alice."""
        return self.alice.delete("/api/me").status_code == 204

    def reaches(self, method: str, path: str = "", **options: Any) -> bool:
        """Send a request for each task; tell whether alice's succeed and bob's are forbidden."""
        own, others = (
            {self.alice.request(method, f"/api/tasks/{task}{path}", **options).is_success for task in tasks}
            for tasks in (self.own, self.targets)
        )
        return own == {True} and others == {False}


MERGE_PATCH: dict[str, Any] = {
    "content": b'{"title": "taken"}',
    "headers": {"Content-Type": "application/merge-patch+json"},
}
OPERATIONS: dict[str, Callable[[Neighbours], bool]] = {
    "list_tasks": Neighbours.lists,
    "get_me": Neighbours.counts,
    "export_me": Neighbours.exports,
    "create_task": Neighbours.repeats_the_key,
    "get_task": lambda both: both.reaches("GET"),
    "update_task": lambda both: both.reaches("PUT", json={"title": "taken"}),
    "patch_task": lambda both: both.reaches("PATCH", **MERGE_PATCH),
    "complete_task": lambda both: both.reaches("PATCH", "/complete"),
    "delete_task": lambda both: both.reaches("DELETE"),
    "delete_me": Neighbours.erases,
}


def holds(operation: str, neighbours: Neighbours, strikes: Strikes) -> bool:
    """Tell whether the operation, with its conditions struck, gives alice what is hers and leaves bob as he was."""
    before, count = neighbours.bobs(), strikes.count
    is_own = OPERATIONS[operation](neighbours)
    assert strikes.count > count, "nothing was struck"
    return is_own and neighbours.bobs() == before


def test_all_operations_of_users_are_tried_without_conditions(conformance: Conformance) -> None:
    paths = conformance.contract.document["paths"].values()
    operations = [item for path in paths for item in path.values() if "operationId" in item]
    assert set(OPERATIONS) == {item["operationId"] for item in operations if item.get("security") != []}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_row_level_security_holds_without_any_condition_on_the_user(
    alice: Client, bob: Client, database_url: str, strikes: Strikes, operation: str
) -> None:
    assert holds(operation, Neighbours(alice, bob, database_url), strikes)


def test_without_conditions_and_row_level_security_every_operation_leaks(
    empty_database_url: str,
    make_settings: Callable[..., Settings],
    conformance: Conformance,
    strikes: Strikes,
) -> None:
    # Shows that the test above can fail: a policy of its own lets everybody do everything.
    with Server(make_settings(database_url=empty_database_url)) as server, ExitStack() as clients:

        def client(user: str) -> Client:
            return clients.enter_context(Client(server.url, conformance, token=server.token(sub=user), user=user))

        await_true(lambda: client("any").get("/ready").status_code == 200)
        with psycopg.connect(empty_database_url) as owner:
            for table in ("users", "tasks", "idempotency_keys"):
                owner.execute(f"CREATE POLICY everybody ON {table} USING (true) WITH CHECK (true)")
        for operation in OPERATIONS:
            neighbours = Neighbours(client(f"alice {operation}"), client(f"bob {operation}"), empty_database_url)
            assert not holds(operation, neighbours, strikes), operation


# Fails a statement, and so its request, on a connection that still carries the id of a user.
GUARD = b"SELECT 1 / (coalesce(current_setting('app.user_id', true), '') = '')::int, "
USERS = 8
REQUESTS = 10_000


class Visitor:
    """A user over one kept connection, who knows what the service is to answer."""

    def __init__(self, server: Server, user: str) -> None:
        self.user = user
        self.statuses: Counter[int] = Counter()
        self.completed: dict[str, bool] = {}
        self._headers = {"Authorization": f"Bearer {server.token(sub=user)}", "Content-Type": "application/json"}
        self._connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
        self.locked = self.create()

    def close(self) -> None:
        self._connection.close()

    def send(self, method: str, path: str, *expected: int, body: Any = None) -> Any:
        """Return the answer's JSON, or None for a statement or a slot that took too long."""
        self._connection.request(method, path, body and json.dumps(body), self._headers)
        response = self._connection.getresponse()
        content = response.read()
        self.statuses[response.status] += 1
        assert response.status in (*expected, 503), content
        return json.loads(content) if response.status in (200, 201) else None

    def create(self) -> str:
        task = self.send("POST", "/api/tasks", 201, body={"title": self.user})
        assert task is None or task["user_id"] == self.user
        if task:
            self.completed[task["id"]] = False
        return task["id"] if task else ""

    def visit(self, step: int, chance: random.Random, other: "Visitor") -> None:
        """Send one request and compare its answer with what is known."""
        task_id = chance.choice(list(self.completed))
        match step % 10:
            case 0:
                self.create()
            case 1 | 2 if task_id != self.locked:
                task = self.send("PATCH", f"/api/tasks/{task_id}/complete", 200)
                if task:
                    self.completed[task_id] = not self.completed[task_id]
                    assert (task["user_id"], task["completed"]) == (self.user, self.completed[task_id])
            case 3 if task_id != self.locked:
                self.delete(task_id)
            case 4:
                self.send("GET", f"/api/tasks/{other.locked}", 403)
            case 5:
                me = self.send("GET", "/api/me", 200)
                assert me is None or me["tasks"]["completed"] == sum(self.completed.values())
            case 6 if step % 200 == 6:  # waits for a lock until the statement's time is over
                assert self.send("PATCH", f"/api/tasks/{self.locked}/complete", 503) is None
            case _:
                tasks = self.send("GET", "/api/tasks", 200)
                assert tasks is None or {task["id"]: task["completed"] for task in tasks} == self.completed
                assert tasks is None or {task["title"] for task in tasks} == {self.user}

    def delete(self, task_id: str) -> None:
        before = self.statuses[204]
        self.send("DELETE", f"/api/tasks/{task_id}", 204)
        if self.statuses[204] > before:
            del self.completed[task_id]


@pytest.mark.parametrize("way", ["direct", pytest.param("pooled", marks=pytest.mark.slow)])
def test_a_pooled_connection_never_carries_one_user_to_the_next(
    way: str,
    request: pytest.FixtureRequest,
    database_url: str,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PRELUDE", "READ_PRELUDE", "EXCLUSIVE_PRELUDE"):
        monkeypatch.setattr(scope, name, getattr(scope, name).replace(b"SELECT ", GUARD, 1))
    # Behind the pooler the service has more connections than the pooler: what they carried would go to others.
    url, size = (database_url, 2) if way == "direct" else (request.getfixturevalue("pooler_url"), 4)
    settings = make_settings(database_url=url, database_pool_size=size, statement_timeout=0.25)
    with Server(settings) as server, ExitStack() as stack:
        visitors = [stack.enter_context(closing(Visitor(server, f"{way} {number}"))) for number in range(USERS)]
        holder = stack.enter_context(psycopg.connect(make_conninfo(database_url, user="postgres")))
        locked = [visitor.locked for visitor in visitors]
        holder.execute("SELECT FROM tasks WHERE id::text = ANY(%s) FOR UPDATE", (locked,))

        def work(number: int) -> Counter[int]:
            chance = random.Random(number)
            for step in range(REQUESTS // USERS):
                visitors[number].visit(step, chance, visitors[number - 1])
            return visitors[number].statuses

        with ThreadPoolExecutor(USERS) as threads:
            statuses = sum(threads.map(work, range(USERS)), Counter[int]())
    assert statuses.total() >= REQUESTS
    assert statuses[503] >= USERS  # the statements that were made to fail
    assert statuses[200] + statuses[201] + statuses[204] + statuses[403] > REQUESTS / 2
    if way == "pooled":
        with ExitStack() as stack:
            for _ in range(2):
                connection = stack.enter_context(psycopg.connect(url))
                assert connection.execute("SELECT current_setting('app.user_id', true)").fetchone() in ((None,), ("",))

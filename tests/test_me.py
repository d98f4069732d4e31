"""What the service knows about the caller: summary, export, erasure."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import text

from postgres.database import Database
from postgres.scope import Scope
from settings.settings import Settings
from tests.support.client import Client, assert_problem
from tests.support.hosts import HOSTS
from tests.support.lists import insert_many
from tests.support.server import SECRET, ServerProcess, sign


def test_a_user_who_has_not_written_anything_is_as_the_token_says(make_client: Callable[..., Client]) -> None:
    client = make_client(email="a@example.com", name="Alice")
    assert client.get("/api/me").json() == {
        "id": client.user,
        "email": "a@example.com",
        "name": "Alice",
        "tasks": {"pending": 0, "completed": 0},
    }


def test_the_summary_counts_the_callers_tasks(alice: Client, bob: Client) -> None:
    bob.create()
    for completed in (True, False, True):
        alice.create(completed=completed)
    assert alice.get("/api/me").json()["tasks"] == {"pending": 1, "completed": 2}


def test_the_token_knows_email_and_name_better_than_the_database(make_client: Callable[..., Client]) -> None:
    before = make_client(email="old@example.com", name="Old")
    before.create()
    now = make_client(before.user, email="new@example.com")
    me = now.get("/api/me").json()
    assert (me["email"], me["name"]) == ("new@example.com", "Old")


def test_the_export_has_everything_that_is_stored(make_client: Callable[..., Client], bob: Client) -> None:
    bob.create()
    client = make_client(email="a@example.com", name='Ä "quoted"')
    tasks = [client.create("one", description="x", due_date="2026-01-01T00:00:00Z"), client.create("two")]
    keyed = client.post("/api/tasks", json={"title": "three"}, headers={"Idempotency-Key": "key"}).json()
    response = client.get("/api/me/export")
    assert response.headers["content-disposition"] == 'attachment; filename="tasks-export.json"'
    export = response.json()
    user = export["user"]
    assert user.pop("created_at") == user.pop("updated_at") == tasks[0]["created_at"]
    assert user == {"id": client.user, "email": "a@example.com", "name": 'Ä "quoted"'}
    assert export["tasks"] == sorted([*tasks, keyed], key=lambda task: task["id"])
    (key,) = export["idempotency_keys"]
    assert key == {"key": "key", "task": keyed, "created_at": keyed["created_at"]}


def test_the_export_of_a_user_who_has_not_written_anything_is_empty(alice: Client) -> None:
    assert alice.get("/api/me/export").json() == {"user": None, "tasks": [], "idempotency_keys": []}


@pytest.mark.load
def test_an_export_goes_on_over_many_batches(alice: Client, database: Database) -> None:
    alice.create()
    insert_many(database, alice, 1500)
    titles = [task["title"] for task in alice.get("/api/me/export").json()["tasks"]]
    assert len(titles) == len(set(titles)) == 1501


@pytest.mark.slow
@pytest.mark.parametrize("framework", HOSTS)
def test_an_export_takes_no_more_memory_for_more_tasks(
    database: Database, database_url: str, tmp_path: Path, framework: str
) -> None:
    environment = {"DATABASE_URL": database_url, "BETTER_AUTH_SECRET": SECRET, "SERVER_FRAMEWORK": framework}
    user = f"export-{framework}"
    headers = {"Authorization": f"Bearer {sign(Settings.load(environment), sub=user)}"}
    with (
        ServerProcess(directory=tmp_path, **environment) as server,
        httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=60) as client,
    ):
        client.post("/api/tasks", json={"title": "the user is there"})
        insert_many(database, client, 60_000, user=user)

        def export() -> int:
            with client.stream("GET", "/api/me/export") as response:
                return sum(len(chunk) for chunk in response.iter_bytes())

        process = psutil.Process(server.process.pid)
        client.get("/api/tasks")
        before = process.memory_info().rss
        size = export()
        grown = process.memory_info().rss - before
    assert size > 15_000_000
    assert grown < size / 2


def test_erasure_leaves_nothing_and_a_later_token_starts_afresh(
    make_client: Callable[..., Client], bob: Client, database: Database
) -> None:
    client = make_client(email="a@example.com")
    kept = bob.create("his")
    client.create()
    keyed = {"Idempotency-Key": "key"}
    first = client.post("/api/tasks", json={"title": "x"}, headers=keyed)
    assert client.delete("/api/me").status_code == 204
    for table in ("users", "tasks", "idempotency_keys"):
        assert database.rows(Scope.user(str(client.user)), text(f"SELECT 1 FROM {table}"), {}) == []
    assert client.get("/api/me").json()["tasks"] == {"pending": 0, "completed": 0}
    gone = client.get(first.headers["location"])
    assert_problem(gone, 404, "task_not_found", "There is no task with this id.")
    again = client.post("/api/tasks", json={"title": "x"}, headers=keyed)
    assert again.json()["id"] != first.json()["id"]
    assert bob.get("/api/tasks").json() == [kept]


def test_erasure_of_nothing_is_done(alice: Client) -> None:
    assert [alice.delete("/api/me").status_code for _ in range(2)] == [204, 204]


@pytest.mark.load
def test_erasure_among_writes_leaves_whole_tasks_or_none(alice: Client) -> None:
    def write(number: int) -> int:
        if number % 10 == 5:
            return alice.delete("/api/me").status_code
        headers = {"Idempotency-Key": str(number)} if number % 2 else {}
        return alice.post("/api/tasks", json={"title": str(number)}, headers=headers).status_code

    with ThreadPoolExecutor(8) as devices:
        statuses = set(devices.map(write, range(200)))
    assert statuses == {201, 204}
    me = alice.get("/api/me").json()
    assert me["tasks"]["pending"] == len(alice.titles())


@pytest.mark.load
def test_erasure_of_many_tasks_may_take_longer_than_a_statement_usually_may(alice: Client, database: Database) -> None:
    alice.create()
    insert_many(database, alice, 100_000)
    assert alice.delete("/api/me").status_code == 204
    assert alice.titles() == []

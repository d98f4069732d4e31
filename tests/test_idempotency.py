"""Creating a task once, however often the request is sent."""

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from sqlalchemy import text

from models import idempotency
from postgres.database import Database
from postgres.errors import DatabaseUnavailable
from postgres.scope import Scope
from settings.settings import Settings
from tests.support.client import Client, Conformance, assert_problem
from tests.support.server import SECRET, Server, ServerProcess, sign

BODY = {"title": "once", "due_date": "2026-12-01T10:00:00.5+01:00"}


def post(client: httpx.Client, key: str, body: dict[str, Any] = BODY) -> httpx.Response:
    return client.post("/api/tasks", json=body, headers={"Idempotency-Key": key})


def test_the_same_key_and_body_get_the_first_answer_again(alice: Client) -> None:
    first, again = post(alice, "key"), post(alice, "key")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    for header in ("location", "etag"):
        assert first.headers[header] == again.headers[header]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert alice.titles() == ["once"]


def test_the_first_answer_stands_when_the_task_has_changed_or_gone(alice: Client) -> None:
    first = post(alice, "key")
    alice.put(first.headers["location"], json={"title": "changed"})
    assert post(alice, "key").content == first.content
    alice.delete(first.headers["location"])
    assert post(alice, "key").content == first.content
    assert alice.titles() == []


@pytest.mark.slow
def test_the_first_answer_stands_after_a_restart(
    make_settings: Callable[..., Settings], conformance: Conformance
) -> None:
    answers = []
    for _ in range(2):
        with (
            Server(make_settings()) as server,
            Client(server.url, conformance, token=server.token(sub="restart")) as client,
        ):
            answers.append(post(client, "key"))
    assert answers[0].content == answers[1].content
    assert answers[1].headers["idempotency-replayed"] == "true"


def test_a_body_that_says_the_same_in_another_order_is_the_same(alice: Client) -> None:
    headers = {"Idempotency-Key": "key", "Content-Type": "application/json"}
    contents = (b'{"title": "x", "priority": "low"}', b'{ "priority":"low","title":"\\u0078" }')
    first, again = (alice.post("/api/tasks", content=content, headers=headers) for content in contents)
    assert first.json() == again.json()


def test_the_same_key_with_another_body_is_refused(alice: Client) -> None:
    post(alice, "key")
    detail = "This Idempotency-Key was used with another body. Use a new key for a new task."
    assert_problem(post(alice, "key", {"title": "other"}), 422, "idempotency_key_reused", detail)
    assert alice.titles() == ["once"]


def test_another_key_makes_another_task(alice: Client) -> None:
    assert post(alice, "one").json()["id"] != post(alice, "two").json()["id"]


def test_users_do_not_share_keys(alice: Client, bob: Client) -> None:
    assert post(alice, "key").json()["id"] != post(bob, "key").json()["id"]


@pytest.mark.parametrize("key", ["!", "~" * 255, '"8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11"'])
def test_a_key_is_any_visible_ascii(alice: Client, key: str) -> None:
    assert post(alice, key).status_code == 201


@pytest.mark.parametrize(
    ("key", "details"),
    [
        ("", ["is shorter than 1 character", "must be 1 to 255 visible ASCII characters"]),
        ("x" * 256, ["is longer than 255 characters"]),
        ("a b", ["must be 1 to 255 visible ASCII characters"]),
        ("é", ["must be 1 to 255 visible ASCII characters"]),
    ],
)
def test_another_key_is_named(alice: Client, key: str, details: list[str]) -> None:
    response = alice.post("/api/tasks", json=BODY, headers=[(b"Idempotency-Key", key.encode("latin-1"))])
    errors = [{"in": "header", "pointer": "/Idempotency-Key", "detail": detail} for detail in details]
    assert sorted(response.json()["errors"], key=str) == errors
    assert alice.titles() == []


def test_two_keys_in_one_request_are_refused(alice: Client) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    detail = "is given more than once"
    assert_problem(
        alice.post("/api/tasks", json=BODY, headers=headers),
        400,
        "bad_request",
        f"Invalid header: /Idempotency-Key {detail}.",
        ("header", "/Idempotency-Key", detail),
    )


def test_a_refused_request_does_not_use_up_its_key(alice: Client) -> None:
    assert post(alice, "key", {"title": ""}).status_code == 400
    assert post(alice, "key").status_code == 201


@pytest.mark.slow
def test_requests_with_one_key_at_once_make_one_task(alice: Client) -> None:
    with ThreadPoolExecutor(16) as devices:
        answers = list(devices.map(lambda _: post(alice, "key"), range(16)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert alice.titles() == ["once"]


@pytest.mark.slow
def test_a_request_whose_twin_does_not_end_is_told_to_try_again(alice: Client, database_url: str) -> None:
    alice.create("the user is there")
    with psycopg.connect(database_url) as twin:
        twin.execute("SELECT set_config('app.user_id', %s, true)", (alice.user,))
        twin.execute(
            "INSERT INTO idempotency_keys (user_id, key, fingerprint, task) VALUES (%s, 'key', '', '{}')", (alice.user,)
        )
        response = post(alice, "key")
        twin.rollback()
    detail = "Another request with this Idempotency-Key is under way. Try again."
    assert_problem(response, 409, "idempotency_key_in_use", detail)
    assert response.headers["retry-after"] == "2"
    assert post(alice, "key").status_code == 201


def age(database_url: str, user: str | None, hours: float) -> None:
    """Make a user's keys older."""
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT set_config('app.user_id', %s, true)", (user,))
        connection.execute("UPDATE idempotency_keys SET created_at = created_at - %s * interval '1 hour'", (hours,))


def test_a_key_is_kept_for_24_hours(alice: Client, database_url: str) -> None:
    first = post(alice, "key")
    age(database_url, alice.user, 23.9)
    assert post(alice, "key").content == first.content
    age(database_url, alice.user, 0.2)
    assert post(alice, "key", {"title": "new"}).json()["title"] == "new"


def test_expired_keys_of_all_users_are_swept_and_no_others(
    alice: Client, bob: Client, database: Database, database_url: str
) -> None:
    for client in (alice, bob):
        post(client, "old")
        age(database_url, client.user, 25)
        post(client, "new")
    assert idempotency.sweep(database) >= 2
    keys = text("SELECT key FROM idempotency_keys")
    for client in (alice, bob):
        assert database.rows(Scope.user(str(client.user)), keys, {}) == [{"key": "new"}]
        assert client.titles() == ["once", "once"]


def test_the_sweep_shows_nothing_but_expired_keys(alice: Client, database: Database) -> None:
    post(alice, "key")
    for statement in ("SELECT 1 FROM idempotency_keys", "SELECT 1 FROM tasks", "SELECT 1 FROM users"):
        assert database.rows(Scope.sweep(), text(statement), {}) == []


@pytest.mark.slow
def test_a_server_sweeps_by_itself(
    alice: Client,
    database: Database,
    database_url: str,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    post(alice, "key")
    age(database_url, alice.user, 25)
    monkeypatch.setattr("openapi.lifespan.SWEEP_INTERVAL", 0.05)
    deadline = time.monotonic() + 10
    with Server(make_settings()):
        while database.rows(Scope.user(str(alice.user)), text("SELECT 1 FROM idempotency_keys"), {}):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_sweep_goes_on_while_there_is_more_and_after_a_failure(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found: list[int | Exception] = [idempotency.SWEEP_SIZE, 0, DatabaseUnavailable("away"), idempotency.SWEEP_SIZE, 0]
    done = threading.Event()

    def sweep(_database: Database) -> int:
        one = found.pop(0) if found else 0
        if not found:
            done.set()
        if isinstance(one, Exception):
            raise one
        return one

    monkeypatch.setattr("models.idempotency.sweep", sweep)
    monkeypatch.setattr("openapi.lifespan.SWEEP_INTERVAL", 0.01)
    with Server(make_settings()):
        assert done.wait(10)
    assert "expired idempotency keys were not erased, retrying later: away" in caplog.text


@pytest.mark.load
def test_a_server_killed_among_retried_requests_doubles_and_loses_nothing(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    # Many clients create tasks and retry until they get an answer, while the server is killed and starts again.
    environment = {"DATABASE_URL": database_url, "BETTER_AUTH_SECRET": SECRET}
    token = sign(Settings.load(environment), sub="killed")
    number, kills = 300, 3
    server = ServerProcess(directory=tmp_path, **environment)
    with server:
        port = server.url.rpartition(":")[2]
        url = server.url

        def create(n: int) -> str:
            key = str(uuid4())
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
            while True:
                try:
                    answer = httpx.post(f"{url}/api/tasks", json={"title": str(n)}, headers=headers, trust_env=False)
                except httpx.TransportError:
                    time.sleep(0.02)
                    continue
                if answer.status_code == 201:
                    return str(answer.json()["id"])
                assert answer.status_code in (409, 503), answer.text

        with ThreadPoolExecutor(8) as clients:
            acknowledged = clients.map(create, range(number))
            for _ in range(kills):
                threading.Event().wait(0.4)
                server.process.send_signal(signal.SIGKILL)
                server.process.wait()
                server.restart(port)
            identifiers = list(acknowledged)
    stored = database.rows(Scope.user("killed"), text("SELECT id::text, title FROM tasks"), {})
    assert sorted(row["id"] for row in stored) == sorted(identifiers)
    assert sorted(int(row["title"]) for row in stored) == list(range(number))

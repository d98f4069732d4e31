"""Cursors are sealed with a random key that the service makes once and keeps in the database."""

import base64
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from handlers.pages import Cursors, InvalidCursor
from models import schema
from models.service_key import KEY_SIZE, service_key
from models.task_list import Query, parse_position, select_tasks
from postgres.database import Database
from postgres.scope import Scope
from settings.settings import Settings
from tests.support.client import Client, Conformance, assert_problem
from tests.support.hosts import HOSTS
from tests.support.lists import fill
from tests.support.problems import UNAVAILABLE
from tests.support.relay import Relay
from tests.support.server import Server
from tests.support.waiting import await_true

ORDERS = itertools.product(("created", "title", "due_date"), ("asc", "desc"))
QUERIES = [Query.of(status="all", sort=sort, order=order) for sort, order in ORDERS]
ID = "8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11"
KEYS = st.one_of(
    st.none(),
    st.text(),
    st.datetimes().map(lambda one: one.isoformat()),
    st.datetimes(timezones=st.timezones()).map(lambda one: one.isoformat()),
    st.sampled_from(
        ["infinity", "2026-W01-1", "2026-01-01", "20260101T000000", "2026-01-01T00:00:00Z", "\0", "\ud800"]
    ),
)
IDS = st.one_of(st.uuids().map(str), st.text(), st.sampled_from([ID.upper(), f"{{{ID}}}", f"urn:uuid:{ID}", ID[:-1]]))
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
)
CONTENTS = st.one_of(st.tuples(KEYS, IDS).map(list), JSON, st.lists(KEYS, max_size=3))


@given(query=st.sampled_from(QUERIES), content=CONTENTS)
def test_what_is_in_a_cursor_is_a_position_that_postgresql_can_compare_or_none(
    database: Database, query: Query, content: Any
) -> None:
    try:
        after = parse_position(query, content)
    except ValueError:
        return
    assert [after.key, after.id] == content
    assert database.rows(Scope.user("nobody"), *select_tasks("nobody", query, 1, after)) == []


@given(query=st.sampled_from(QUERIES), content=CONTENTS)
def test_a_cursor_with_a_proper_seal_and_nonsense_in_it_is_an_invalid_cursor(query: Query, content: Any) -> None:
    cursors = Cursors(lambda: bytes(KEY_SIZE))
    try:
        sealed = cursors.seal("alice", query, content)
    except UnicodeEncodeError:  # half a character
        return
    try:
        position = cursors.open("alice", query, sealed)
    except InvalidCursor:
        return
    assert list(position) == content


def test_deeply_nested_nonsense_is_an_invalid_cursor() -> None:
    cursors = Cursors(lambda: bytes(KEY_SIZE))
    content: Any = []
    for _ in range(600):
        content = [content]
    with pytest.raises(InvalidCursor):
        cursors.open("alice", QUERIES[0], cursors.seal("alice", QUERIES[0], content))


def next_page(client: Client) -> str:
    """Return the target of the second page of a list."""
    fill(client, 3, "cursor")
    return str(client.get("/api/tasks?limit=1").links["next"]["url"])


@pytest.mark.parametrize("host", HOSTS)
def test_servers_of_one_database_share_cursors_whatever_their_secrets(
    make_settings: Callable[..., Settings], conformance: Conformance, database_url: str, host: str
) -> None:
    other_url = f"{database_url} application_name=other"
    one = make_settings(server_framework=host)
    two = make_settings(database_url=other_url, better_auth_secret="another-secret-that-is-long-enough")
    user = f"shared-{host}"
    with (
        Server(one) as first,
        Server(two) as second,
        Client(first.url, conformance, token=first.token(sub=user)) as here,
        Client(second.url, conformance, token=second.token(sub=user)) as there,
    ):
        assert there.get(next_page(here)).status_code == 200


def test_the_key_is_random_and_nothing_that_is_configured(database: Database, empty_database_url: str) -> None:
    other = Database(empty_database_url)
    schema.migrate(other)
    keys = [service_key(one, "cursors") for one in (database, other, database, other)]
    other.dispose()
    assert [len(key) for key in keys] == [KEY_SIZE] * 4
    assert (keys[0], keys[1]) == (keys[2], keys[3])
    assert keys[0] != keys[1]


def test_many_processes_that_ask_at_once_get_one_key(database: Database) -> None:
    with ThreadPoolExecutor(8) as threads:
        keys = list(threads.map(lambda _: service_key(database, "a purpose of this test"), range(16)))
    assert len(set(keys)) == 1


def test_a_key_that_another_process_makes_at_the_same_moment_is_taken() -> None:
    answers: list[list[dict[str, bytes]]] = [[], [], [], [], [{"key": b"theirs"}]]

    class Unlucky:
        def rows(self, *_: object) -> list[dict[str, bytes]]:
            return answers.pop(0)

    unlucky: Any = Unlucky()
    assert service_key(unlucky, "cursors") == b"theirs"


def test_no_user_sees_a_key(database: Database, database_url: str) -> None:
    service_key(database, "cursors")
    seen = text("SELECT count(*) AS n FROM service_keys")
    for scope in (Scope.user("alice"), Scope.user("service-keys"), Scope.sweep()):
        assert database.rows(scope, seen, {}) == [{"n": 0}]
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM service_keys").fetchone() == (0,)
    assert database.rows(Scope.service_keys(), text("SELECT count(*) AS n FROM tasks"), {}) == [{"n": 0}]


@pytest.mark.parametrize("host", HOSTS)
def test_a_database_that_is_away_at_the_start_gives_cursors_as_soon_as_it_comes(
    database_url: str, make_settings: Callable[..., Settings], conformance: Conformance, host: str
) -> None:
    with Relay(database_url) as relay:
        relay.cut()
        with (
            Server(make_settings(database_url=relay.url, server_framework=host)) as server,
            Client(server.url, conformance, token=server.token(sub=f"late-{host}")) as client,
        ):
            cursor = base64.urlsafe_b64encode(b"x" * 40).decode().rstrip("=")
            assert_problem(client.get(f"/api/tasks?cursor={cursor}"), 503, "unavailable", UNAVAILABLE)
            relay.mend()
            await_true(lambda: client.get("/ready").status_code == 200)
            assert client.get(next_page(client)).status_code == 200
            assert client.get(f"/api/tasks?cursor={cursor}").status_code == 400


def test_a_key_that_was_deleted_is_made_anew_at_the_next_start(
    empty_database_url: str, make_settings: Callable[..., Settings], conformance: Conformance
) -> None:
    settings = make_settings(database_url=empty_database_url)
    links = []
    for _ in range(2):
        with Server(settings) as server, Client(server.url, conformance, token=server.token(sub="rotated")) as client:
            await_true(lambda client=client: client.get("/ready").status_code == 200)  # type: ignore[misc]
            links.append(next_page(client))
            assert [client.get(link).status_code for link in links] == [400] * (len(links) - 1) + [200]
        with psycopg.connect(empty_database_url) as owner:
            owner.execute("SELECT set_config('app.probe', 'service-keys', true)")
            assert owner.execute("DELETE FROM service_keys WHERE purpose = 'cursors'").rowcount == 1

"""Users are walled off from each other, by the statements and by row-level security (FR-009, FR-010, FR-016)."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Select, UpdateBase, delete, func, insert, select, text, update

from models import idempotency, me, service_key, task_list, task_operations
from models.task import Task
from models.task_operations import PROBE
from models.user import User
from postgres.database import Database
from postgres.errors import DatabaseFault
from postgres.scope import Scope
from postgres.statement import compiled, read
from tests.support.client import Client
from tools.policies import FILE, policies


def test_a_statement_without_a_user_condition_sees_only_the_callers_rows(
    alice: Client, bob: Client, database: Database
) -> None:
    alice.create("hers")
    bob.create("his")
    assert database.rows(Scope.user(str(alice.user)), select(Task.title), {}) == [{"title": "hers"}]
    assert database.rows(Scope.user(str(alice.user)), select(User.id), {}) == [{"id": alice.user}]


TABLES = ("users", "tasks", "idempotency_keys", "service_keys")
POLICIES = """
    SELECT relname, relrowsecurity AND relforcerowsecurity AS is_forced, array_agg(DISTINCT polcmd::text) AS commands
    FROM pg_catalog.pg_class LEFT JOIN pg_catalog.pg_policy ON polrelid = pg_class.oid
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname <> 'tasks_api_version'
    GROUP BY relname, is_forced
"""


def test_every_table_forces_row_level_security_with_policies_for_all_four_commands(database: Database) -> None:
    with database.engine.connect() as connection:
        found = {name: (is_forced, set(commands)) for name, is_forced, commands in connection.execute(text(POLICIES))}
    assert found == {table: (True, {"r", "a", "w", "d"}) for table in TABLES}  # select, insert, update, delete


@pytest.fixture(params=[None, ""], ids=["unset", "empty"])
def nobody(request: pytest.FixtureRequest, database_url: str) -> Iterator[psycopg.Connection]:
    """A connection without a user, as it is when new, and as a transaction with a user leaves it."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        if request.param is not None:
            connection.execute("SELECT set_config('app.user_id', %s, false)", (request.param,))
        yield connection


def create_with_key(client: Client) -> None:
    headers = {"Idempotency-Key": "key"}
    assert client.post("/api/tasks", json={"title": "x"}, headers=headers).status_code == 201


@pytest.mark.parametrize("table", TABLES)
def test_without_a_user_nothing_is_seen_changed_or_deleted(
    alice: Client, nobody: psycopg.Connection, table: str
) -> None:
    create_with_key(alice)
    for statement in (
        f"SELECT FROM {table}",
        f"UPDATE {table} SET created_at = now()",
        f"DELETE FROM {table}",
    ):
        assert nobody.execute(statement).rowcount == 0
    assert alice.titles() == ["x"]


@pytest.mark.parametrize("user_id", [None, ""], ids=["alice", "empty"])
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO users (id) VALUES (%s)",
        "INSERT INTO tasks (user_id, title, title_folded) VALUES (%s, 'x', 'x')",
        "INSERT INTO idempotency_keys (user_id, key, fingerprint, task) VALUES (%s, 'x', '', '{}')",
    ],
)
def test_without_a_user_nothing_is_stored(
    alice: Client, nobody: psycopg.Connection, statement: str, user_id: str | None
) -> None:
    create_with_key(alice)
    with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.IntegrityError)) as refusal:
        nobody.execute(statement, (alice.user if user_id is None else user_id,))
    if user_id is None:
        assert "row-level security" in str(refusal.value)


def test_a_write_without_a_user_condition_reaches_only_the_callers_rows(
    alice: Client, bob: Client, database: Database
) -> None:
    alice.create("hers")
    bob.create("his")
    database.rows(Scope.user(str(alice.user)), update(Task).values(description="touched").returning(Task.id), {})
    assert alice.get("/api/tasks").json()[0]["description"] == "touched"
    assert bob.get("/api/tasks").json()[0]["description"] is None


def test_a_row_cannot_be_written_for_another_user(alice: Client, bob: Client, database: Database) -> None:
    bob.create()
    statement = insert(Task).values(user_id=bob.user, title="x", title_folded="x").returning(Task.id)
    with pytest.raises(Exception, match="row-level security"):
        database.rows(Scope.user(str(alice.user)), statement, {})


def test_a_task_cannot_be_given_to_another_user(alice: Client, bob: Client, database: Database) -> None:
    alice.create()
    bob.create()
    with pytest.raises(Exception, match="row-level security"):
        database.rows(Scope.user(str(alice.user)), update(Task).values(user_id=bob.user).returning(Task.id), {})


def test_the_probe_sees_one_task_and_no_other(alice: Client, bob: Client, database: Database) -> None:
    task = alice.create()
    the_task = UUID(task["id"])
    alice.create()
    bob.create()
    count = select(func.count().label("n")).select_from(Task)
    assert database.rows(Scope.probe("", the_task), count, {}) == [{"n": 1}]
    assert database.rows(Scope.probe(str(bob.user), the_task), PROBE, {"the_task": the_task}) == [{"version": None}]


def test_the_probe_does_not_let_write(alice: Client, bob: Client, database: Database) -> None:
    task = alice.create("hers")
    for statement in (
        update(Task).values(title="taken").where(Task.id == UUID(task["id"])).returning(Task.id),
        delete(Task).where(Task.id == UUID(task["id"])).returning(Task.id),
    ):
        assert database.rows(Scope.probe(str(bob.user), UUID(task["id"])), statement, {}) == []
    assert alice.titles() == ["hers"]


def test_the_scope_does_not_outlive_its_statement(alice: Client, database_url: str) -> None:
    alice.create()
    single = Database(database_url, pool_size=1)
    scope = text("SELECT current_setting('app.user_id', true) AS user_id, pg_backend_pid() AS process")
    (inside,) = single.rows(Scope.user(str(alice.user)), scope, {})
    with single.engine.connect() as connection:
        after = connection.execute(scope).mappings().one()
    single.dispose()
    assert (inside["user_id"], after["user_id"]) == (alice.user, "")
    assert inside["process"] == after["process"]


def test_the_application_connects_as_a_role_that_row_level_security_binds(database: Database) -> None:
    query = text("SELECT rolsuper OR rolbypassrls AS free FROM pg_roles WHERE rolname = current_user")
    with database.engine.connect() as connection:
        assert connection.execute(query).scalar() is False


def test_the_policies_are_those_of_the_file_that_shows_them_whole(database: Database) -> None:
    stale = (
        "models/policies.sql is not the row-level security of the schema: run make policies, and read the difference"
    )
    assert policies(database) == FILE.read_text(encoding="utf-8"), stale


def test_a_statement_that_is_marked_as_a_read_cannot_write(alice: Client, database: Database) -> None:
    alice.create("hers")
    scope = Scope.user(str(alice.user))
    for statement in (
        insert(Task).values(user_id=alice.user, title="x", title_folded="x").returning(Task.id),
        update(Task).values(title="x").returning(Task.id),
        delete(Task).returning(Task.id),
        text("WITH written AS (UPDATE tasks SET title = 'x' RETURNING id) SELECT id FROM written"),
    ):
        with pytest.raises(DatabaseFault):
            database.rows(scope, read(statement), {})
    assert alice.titles() == ["hers"]


def test_a_read_leaves_nothing_behind_that_keeps_the_next_statement_from_writing(
    alice: Client, database_url: str
) -> None:
    single, scope = Database(database_url, pool_size=1), Scope.user(str(alice.user))
    task = alice.create()
    read_only = read(text("SELECT current_setting('transaction_read_only') AS is_on, pg_backend_pid() AS process"))
    (inside,) = single.rows(scope, read_only, {})
    (after,) = single.rows(scope, text("UPDATE tasks SET title = 'x' RETURNING id, pg_backend_pid() AS process"), {})
    single.dispose()
    assert (inside["is_on"], str(after["id"])) == ("on", task["id"])
    assert inside["process"] == after["process"]


@pytest.mark.parametrize("module", [idempotency, me, service_key, task_list, task_operations])
def test_every_statement_that_selects_is_marked_as_a_read_and_no_other(module: Any) -> None:
    statements = [one for one in vars(module).values() if isinstance(one, Select | UpdateBase)]
    if module is task_list:
        query = task_list.Query.of(status="all", sort="title", order=None)
        statements.append(task_list.select_tasks("someone", query, 1, None)[0])
    assert statements
    for statement in statements:
        assert compiled(statement).is_read == isinstance(statement, Select), str(statement)

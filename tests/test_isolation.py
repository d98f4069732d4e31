"""Users are walled off from each other, by the statements and by row-level security (FR-009, FR-010, FR-016)."""

from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import delete, func, insert, select, text, update

from models.task import PROBE, Task
from models.user import User
from postgres.database import Database
from tests.support.client import Client


def test_a_statement_without_a_user_condition_sees_only_the_callers_rows(
    alice: Client, bob: Client, database: Database
) -> None:
    alice.create("hers")
    bob.create("his")
    assert database.rows(str(alice.user), select(Task.title), {}) == [{"title": "hers"}]
    assert database.rows(str(alice.user), select(User.id), {}) == [{"id": alice.user}]


TABLES = ("users", "tasks", "idempotency_keys")
POLICIES = """
    SELECT relname, relrowsecurity AND relforcerowsecurity AS is_forced, array_agg(DISTINCT polcmd::text) AS commands
    FROM pg_catalog.pg_class LEFT JOIN pg_catalog.pg_policy ON polrelid = pg_class.oid
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname <> 'alembic_version'
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
    database.rows(str(alice.user), update(Task).values(description="touched").returning(Task.id), {})
    assert alice.get("/api/tasks").json()[0]["description"] == "touched"
    assert bob.get("/api/tasks").json()[0]["description"] is None


def test_a_row_cannot_be_written_for_another_user(alice: Client, bob: Client, database: Database) -> None:
    bob.create()
    statement = insert(Task).values(user_id=bob.user, title="x", title_folded="x").returning(Task.id)
    with pytest.raises(Exception, match="row-level security"):
        database.rows(str(alice.user), statement, {})


def test_a_task_cannot_be_given_to_another_user(alice: Client, bob: Client, database: Database) -> None:
    alice.create()
    bob.create()
    with pytest.raises(Exception, match="row-level security"):
        database.rows(str(alice.user), update(Task).values(user_id=bob.user).returning(Task.id), {})


def test_the_probe_sees_one_task_and_no_other(alice: Client, bob: Client, database: Database) -> None:
    task = alice.create()
    alice.create()
    bob.create()
    count = select(func.count().label("n")).select_from(Task)
    assert database.rows("", count, {}, probe=task["id"]) == [{"n": 1}]
    assert database.rows(str(bob.user), PROBE, {"the_task": UUID(task["id"])}, probe=task["id"]) == [{"version": None}]


def test_the_probe_does_not_let_write(alice: Client, bob: Client, database: Database) -> None:
    task = alice.create("hers")
    for statement in (
        update(Task).values(title="taken").where(Task.id == UUID(task["id"])).returning(Task.id),
        delete(Task).where(Task.id == UUID(task["id"])).returning(Task.id),
    ):
        assert database.rows(str(bob.user), statement, {}, probe=task["id"]) == []
    assert alice.titles() == ["hers"]


def test_the_scope_does_not_outlive_its_statement(alice: Client, database_url: str) -> None:
    alice.create()
    single = Database(database_url, pool_size=1)
    scope = text("SELECT current_setting('app.user_id', true) AS user_id, pg_backend_pid() AS process")
    (inside,) = single.rows(str(alice.user), scope, {})
    with single.engine.connect() as connection:
        after = connection.execute(scope).mappings().one()
    single.dispose()
    assert (inside["user_id"], after["user_id"]) == (alice.user, "")
    assert inside["process"] == after["process"]


def test_the_application_connects_as_a_role_that_row_level_security_binds(database: Database) -> None:
    query = text("SELECT rolsuper OR rolbypassrls AS free FROM pg_roles WHERE rolname = current_user")
    with database.engine.connect() as connection:
        assert connection.execute(query).scalar() is False

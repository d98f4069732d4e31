"""Users are walled off from each other, by the statements and by row-level security (FR-009, FR-010, FR-016)."""

from uuid import UUID

import pytest
from sqlalchemy import delete, func, insert, select, text, update

from models.database import Database
from models.task import PROBE, Task
from models.user import User
from tests.client import Client


def test_a_statement_without_a_user_condition_sees_only_the_callers_rows(
    alice: Client, bob: Client, database: Database
) -> None:
    alice.create("hers")
    bob.create("his")
    assert database.rows(str(alice.user), select(Task.title), {}) == [{"title": "hers"}]
    assert database.rows(str(alice.user), select(User.id), {}) == [{"id": alice.user}]


def test_a_statement_without_a_user_sees_nothing(alice: Client, database: Database) -> None:
    alice.create()
    with database.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(Task)).scalar() == 0
        assert connection.execute(select(func.count()).select_from(User)).scalar() == 0


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

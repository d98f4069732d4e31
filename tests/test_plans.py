"""PostgreSQL reads each page of a list from an index, in order, from where the page begins."""

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from models import task_list
from models.database import Database
from tests.conftest import another_database
from tests.test_lists import insert_many

# Somewhere in the middle of the tasks.
KEYS = {"created": datetime.now(UTC), "title": "task 5", "due_date": datetime(2026, 1, 7, tzinfo=UTC)}
SPREAD = "UPDATE tasks SET completed = random() < 0.5, created_at = created_at + (random() - 0.5) * interval '9 days'"


@pytest.fixture(scope="module")
def explain(database_url: str) -> Iterator[Callable[..., str]]:
    """Return the plan of a statement for a user with many tasks beside another one."""
    with another_database(database_url) as url:
        database = Database(url)
        database.migrate()
        with psycopg.connect(url, autocommit=True) as connection:
            for user in ("plan", "other"):
                connection.execute("SELECT set_config('app.user_id', %s, false)", (user,))
                connection.execute("INSERT INTO users (id) VALUES (%s)", (user,))
                insert_many(database, None, 20_000, user=user)
                connection.execute(SPREAD)
            connection.execute("ANALYZE tasks")

        def explain(statement: Any, parameters: dict[str, Any]) -> str:
            compiled = statement.compile(dialect=database.engine.dialect)
            with psycopg.connect(url) as connection:
                connection.execute("SELECT set_config('app.user_id', 'plan', true)")
                plan = connection.execute(f"EXPLAIN {compiled}", compiled.construct_params(parameters)).fetchall()
            return "\n".join(row[0] for row in plan)

        yield explain
        database.dispose()


@pytest.mark.parametrize(
    ("status", "sort", "order"),
    list(itertools.product(("all", "pending", "completed"), ("created", "title", "due_date"), ("asc", "desc"))),
)
def test_a_page_is_read_in_order_from_an_index(explain: Callable[..., str], status: str, sort: str, order: str) -> None:
    statement = task_list._statement(status, sort, order, frozenset(), True)
    plan = explain(statement, {"the_user": "plan", "limit": 101, "key": KEYS[sort], "id": uuid4()})
    assert "Sort" not in plan, plan
    (condition,) = (line for line in plan.splitlines() if "Index Cond" in line)
    assert "user_id" in condition, plan
    assert "ROW" in condition, plan

"""PostgreSQL reads each page of a list from an index, in order, from where the page begins, and little else."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.dialects import postgresql

from models import schema
from models.task_list import Position, Query, select_tasks
from postgres.database import Database
from tests.support.postgres import another_database

pytestmark = pytest.mark.unmeasured

LIMIT = 21
# One task in ten is pending, one in five has no due date, and nothing depends on anything else.
SEED = """
    INSERT INTO tasks (user_id, title, title_folded, completed, priority, created_at, due_date)
    SELECT owner, 'task ' || n, 'task ' || md5(n::text), random() < 0.9,
        (ARRAY['low', 'medium', 'high', NULL])[1 + floor(random() * 4)],
        timestamptz '2026-01-01Z' + random() * interval '100 days',
        CASE WHEN random() < 0.8 THEN timestamptz '2026-01-01Z' + random() * interval '100 days' END
    FROM (
        VALUES ('many', 30000), ('few', 1000)
        UNION ALL SELECT 'user ' || n, 100 FROM generate_series(1, 300) AS n
    ) AS owners (owner, tasks), generate_series(1, tasks) AS n
"""
MIDDLE = "2026-02-20T00:00:00+00:00"
KEYS = {"created": MIDDLE, "title": "task 8", "due_date": MIDDLE}  # somewhere in the middle of the tasks
DUE = {"due_from": "2026-01-20T00:00:00Z", "due_to": "2026-03-20T00:00:00Z"}
FILTERS: dict[str, dict[str, Any]] = {
    "no filter": {},
    "due": DUE,
    "due from": {"due_from": DUE["due_from"]},
    "due to": {"due_to": DUE["due_to"]},
    "priority": {"priority": ["low"]},
    "priorities": {"priority": ["low", "high"]},
    "due and priority": {**DUE, "priority": ["low"]},
    "overdue": {"overdue": True},
}
LISTS = [
    pytest.param(*query, id="-".join(query))
    for query in itertools.product(
        ("all", "pending", "completed"), ("created", "title", "due_date"), ("asc", "desc"), FILTERS, ("first", "deep")
    )
    if not {"completed", "overdue"} <= set(query)  # there are none
]
lists = pytest.mark.parametrize(("status", "sort", "order", "filters", "page"), LISTS)

Plan = dict[str, Any]
Explain = Callable[..., Plan]


@pytest.fixture(scope="module")
def explain(database_url: str) -> Iterator[Explain]:
    """Run a list query of a user with 30,000 tasks or of one with 1,000, beside 300 others, and return its plan."""
    with another_database(database_url) as url:
        database = Database(url)
        schema.migrate(database)
        database.dispose()
        with psycopg.connect(url.replace("user=tasks_api", "user=postgres"), autocommit=True) as superuser:
            superuser.execute("SET session_replication_role = replica")  # no foreign key: there are no users
            superuser.execute("SELECT setseed(0)")  # the same tasks in each run
            superuser.execute(SEED)
            superuser.execute("VACUUM ANALYZE tasks")
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:

            def explain(user: str, status: str, sort: str, order: str, filters: str, page: str) -> Plan:
                query = Query.of(status=status, sort=sort, order=order, **FILTERS[filters])
                after = Position(KEYS[sort], str(UUID(int=0))) if page == "deep" else None
                statement, parameters = select_tasks(user, query, LIMIT, after)
                compiled = statement.compile(dialect=postgresql.psycopg.dialect())
                connection.execute("SELECT set_config('app.user_id', %s, false)", (user,))
                for _ in range(2):  # the first may read the catalogue besides
                    ((explained,),) = connection.execute(
                        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {compiled}", compiled.construct_params(parameters)
                    ).fetchall()
                plan: Plan = explained[0]["Plan"]
                return plan

            yield explain


@pytest.fixture
def in_rows(database_url: str, filters: str) -> bool:
    """Whether PostgreSQL checks a filter in the rows: before version 17 one of several values."""
    if filters != "priorities":
        return False
    with psycopg.connect(database_url) as connection:
        return connection.info.server_version < 170_000


@lists
def test_a_page_is_read_in_order_from_an_index_that_checks_the_filters(
    explain: Explain, in_rows: bool, status: str, sort: str, order: str, filters: str, page: str
) -> None:
    plan = explain("many", status, sort, order, filters, page)
    assert plan["Node Type"] == "Limit", plan
    (scan,) = plan["Plans"]
    assert scan["Node Type"] == "Index Scan", plan
    assert "Plans" not in scan, plan
    assert "user_id = 'many'" in scan["Index Cond"], plan
    assert ("ROW(" in scan["Index Cond"]) == (page == "deep"), plan
    # Only the policies of row-level security are left to check in the row.
    checked = [column for column in ("completed", "priority", "due_date") if column in scan["Filter"]]
    assert checked == (["priority"] if in_rows else []), plan
    assert in_rows or scan.get("Rows Removed by Filter", 0) == 0, plan


@pytest.mark.parametrize("user", ["few", "many"])
@lists
def test_a_page_is_filled_from_little_more_than_its_own_rows(
    explain: Explain, in_rows: bool, user: str, status: str, sort: str, order: str, filters: str, page: str
) -> None:
    plan = explain(user, status, sort, order, filters, page)
    # Each row may lie in another page of the table; the rest is of the index.
    rows = LIMIT * 5 if in_rows else LIMIT  # one in two is shown
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] <= rows + 15, plan


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_range_of_due_dates_in_their_order_is_where_the_index_is_read(explain: Explain, order: str) -> None:
    for page in ("first", "deep"):
        (scan,) = explain("many", "all", "due_date", order, "due", page)["Plans"]
        bounds = scan["Index Cond"].count("2026-01-20"), scan["Index Cond"].count("2026-03-20")
        # Where a page begins behind a task, that task is the bound, and the other one is where the list ends.
        assert bounds == {"first": (1, 1), "deep": (0, 1) if order == "asc" else (1, 0)}[page], scan


def test_the_planner_knows_that_row_level_security_hides_none_of_a_users_own_tasks(explain: Explain) -> None:
    (scan,) = explain("few", "all", "title", "asc", "no filter", "first")["Plans"]
    assert scan["Plan Rows"] > 300, scan  # of 1,000

"""Whether a page of a list takes longer for a user with more tasks: from 1,000 to 1,000,000, beside 10,000 other users.

Run it with `make bench-scale`. It starts a PostgreSQL of its own, needs about 2 GB in the temporary directory, and
writes a table and a plot to `bench/results` and all figures to `build/bench/scale.json`.
"""

import argparse
import itertools
import os
import platform
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import psycopg
from sqlalchemy import func, select

from bench.report import keep
from models import schema, task_list
from models.caller import Caller
from models.task_list import Position, Query
from postgres.database import Database
from postgres.scope import Scope
from tests.support.postgres import Postgres

RESULTS = Path(__file__).parent / "results"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
OTHERS = 10_000  # users with 100 tasks each
DEEP = 100_000  # tasks before page 5,000 of 20
# One task in ten is pending, one in five has no due date, and nothing depends on anything else.
SEED = """
    INSERT INTO tasks (user_id, title, title_folded, description, completed, priority, created_at, due_date)
    SELECT owner, 'Task ' || n, 'task ' || md5(n::text), repeat('x', 80), random() < 0.9,
        (ARRAY['low', 'medium', 'high', NULL])[1 + floor(random() * 4)],
        timestamptz '2025-01-01Z' + random() * interval '365 days',
        CASE WHEN random() < 0.8 THEN timestamptz '2025-01-01Z' + random() * interval '365 days' END
    FROM ({owners}) AS owners (owner, tasks), generate_series(1, tasks) AS n
"""
DUE = {"due_from": "2025-04-01T00:00:00Z", "due_to": "2025-10-01T00:00:00Z"}
FILTERS: dict[str, dict[str, Any]] = {
    "": {},
    "due": DUE,
    "priority": {"priority": ["high"]},
    "due, priority": {**DUE, "priority": ["high"]},
}


class List(NamedTuple):
    """A list query, and which of its pages."""

    status: str
    sort: str
    order: str
    filters: str
    page: str
    limit: int

    def query(self) -> Query:
        filters = {"q": "nothing has this"} if self.filters == "q" else FILTERS[self.filters]
        return Query.of(status=self.status, sort=self.sort, order=self.order, **filters)


LISTS = [
    *(
        List(*parts, 20)
        for parts in itertools.product(
            task_list.STATUSES, task_list.SORTS, ("asc", "desc"), FILTERS, ("first", "page 5,000")
        )
    ),
    *(List("all", sort, order, "", "first", 1000) for sort in task_list.SORTS for order in ("asc", "desc")),
    List("all", "created", "desc", "q", "first", 20),
]


def seed(postgres: Postgres, sizes: Iterable[int], others: int) -> None:
    """Store the tasks of all users; the indexes are made afterwards, which is faster."""
    url = postgres.superuser_url.replace("dbname=postgres", "dbname=tasks_api")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # no foreign key: there are no users
        connection.execute("SET maintenance_work_mem = '512MB'")
        indexes = connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'tasks' AND indexname LIKE 'ix_%'"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        for owners in (
            *(f"VALUES ('user-{size}', {size})" for size in sizes),
            f"SELECT 'other-' || n, 100 FROM generate_series(1, {others}) AS n",
        ):
            connection.execute(SEED.format(owners=owners))
        for _, definition in indexes:
            connection.execute(definition)
        connection.execute("VACUUM ANALYZE tasks")


def position(database: Database, user: str, one: List) -> Position | None:
    """Return where the page begins: page 5,000, or the middle of a list that is not as long."""
    if one.page == "first":
        return None
    query = one.query()
    statement, parameters = task_list.select_tasks(user, query, 1, None)
    scope = Scope.user(user)
    (total,) = database.rows(
        scope, select(func.count().label("n")).select_from(statement.limit(None).subquery()), parameters
    )
    (row,) = database.rows(scope, statement.offset(min(DEEP, total["n"] // 2)), parameters)
    return task_list.position(query, row)


def measure(database: Database, sizes: Iterable[int], rounds: int) -> dict[List, dict[int, float]]:
    """Return the median of each list in milliseconds; the sizes take turns, so that the machine's mood meets all."""
    figures = {}
    for one in LISTS:
        query = one.query()
        starts = {size: position(database, f"user-{size}", one) for size in sizes}
        times: dict[int, list[float]] = defaultdict(list)
        for _ in range(3 if one.filters == "q" else rounds):
            for size, start in starts.items():
                started = time.perf_counter()
                task_list.list_tasks(database, Caller(f"user-{size}", None, None), query, one.limit, start)
                times[size].append((time.perf_counter() - started) * 1000)
        figures[one] = {size: statistics.median(values) for size, values in times.items()}
    return figures


def groups(figures: dict[List, dict[int, float]]) -> dict[tuple[Any, ...], dict[int, float]]:
    """Return the mean of both directions of each list."""
    pairs = defaultdict(list)
    for one, times in figures.items():
        pairs[one.sort, one.status, one.filters, one.page, one.limit].append(times)
    return {
        group: {size: statistics.mean(times[size] for times in both) for size in both[0]}
        for group, both in pairs.items()
    }


def table(figures: dict[List, dict[int, float]]) -> str:
    """Return the table of the report."""
    sizes = list(next(iter(figures.values())))
    titles = ["sort", "status", "filters", "page", "limit", *(f"{size:,} tasks" for size in sizes), "growth"]
    lines = [titles, ["---"] * 5 + ["---:"] * (len(sizes) + 1)]
    for group, times in groups(figures).items():
        growth = times[sizes[-1]] / times[sizes[0]]
        lines.append([*map(str, group), *(f"{times[size]:.2f}" for size in sizes), f"{growth:.2f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(figures: dict[List, dict[int, float]], path: Path) -> None:
    """Draw the time of each list over the number of tasks."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    columns = [("first", 20), ("page 5,000", 20), ("first", 1000)]
    grid, axes = plt.subplots(3, 3, figsize=(12, 9), sharex=True, layout="constrained")
    for (row, sort), (column, (page, limit)) in itertools.product(enumerate(task_list.SORTS), enumerate(columns)):
        axis = axes[row][column]
        for (a_sort, status, filters, a_page, a_limit), times in groups(figures).items():
            if (a_sort, a_page, a_limit) == (sort, page, limit) and filters != "q":
                axis.plot(list(times), list(times.values()), marker=".", label=f"{status} {filters}".strip())
        axis.set(
            xscale="log", title=f"sort={sort}, {page} page, limit={limit}".replace("page 5,000 page", "page 5,000")
        )
        axis.set_ylim(bottom=0)
        axis.set_ylabel("milliseconds")
        axis.set_xlabel("tasks of the user")
    axes[0][0].legend(fontsize=6, ncols=2)
    for suffix in (".png", ".svg"):
        grid.savefig(path.with_suffix(suffix), metadata={"Date": None} if suffix == ".svg" else None)


def circumstances(database: Database, rounds: int) -> dict[str, Any]:
    """Return what the figures depend on."""
    with database.engine.connect() as connection:
        version = connection.exec_driver_sql("SHOW server_version").scalar()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit.stdout.strip(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "postgresql": version,
        "psycopg": psycopg.__version__,
        "rounds": rounds,
    }


def main() -> None:
    """Seed, measure, print and write."""
    parser = argparse.ArgumentParser(description="Whether a page takes longer for a user with more tasks.")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="how many tasks the users have")
    parser.add_argument("--others", type=int, default=OTHERS, help="other users, with 100 tasks each")
    parser.add_argument("--rounds", type=int, default=31, help="how often each list is read")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the directory for the report")
    arguments = parser.parse_args()
    with Postgres(max_wal_size="4GB", checkpoint_timeout="30min") as postgres:
        database = Database(postgres.url, statement_timeout=120)
        schema.migrate(database)
        seed(postgres, arguments.sizes, arguments.others)
        figures = measure(database, arguments.sizes, arguments.rounds)
        about = circumstances(database, arguments.rounds)
        database.dispose()
    report = "\n".join(f"- {name}: {value}" for name, value in about.items())
    text = f"# A page of a list, in milliseconds\n\n{report}\n\n{table(figures)}\n"
    print(text)
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "scale"
    path.with_suffix(".md").write_text(text)
    lists = [{**one._asdict(), "milliseconds": times} for one, times in figures.items()]
    keep({**about, "lists": lists}, "scale")
    plot(figures, path)


if __name__ == "__main__":
    main()

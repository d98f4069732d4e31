"""The list of a user's tasks: filters, orders and pages, in one statement."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from models.base import CodePoints, Instant
from models.caller import Caller
from models.errors import SearchTooSlow
from models.task import TASK_COLUMNS, Task, fold, instant
from models.task_operations import THE_USER
from postgres.database import Database
from postgres.errors import StatementTimeout
from postgres.round_trip import Row
from postgres.scope import Scope
from postgres.statement import read

# Seconds. No index bounds a search: pg_trgm is an extension, which not every PostgreSQL has, and row-level security
# keeps operators that may leak out of an index. 20,000 tasks with the longest descriptions take a quarter of it.
SEARCH_TIMEOUT = 1.0

Statement = sa.Select[*tuple[Any, ...]]


class Sort(NamedTuple):
    """An order of the list: the key of each direction, and the default direction."""

    asc: sa.ColumnElement[Any]
    desc: sa.ColumnElement[Any]
    own: str


# Tasks without a due date come last: each direction sorts them as its own last instant. It is CASE, because PostgreSQL
# considers coalesce() leaky and keeps it out of index conditions under row-level security.
LATEST = sa.literal_column("'infinity'", Instant)
EARLIEST = sa.literal_column("'-infinity'", Instant)
DUE_FIRST = sa.case((Task.due_date.is_(None), LATEST), else_=Task.due_date)
DUE_LAST = sa.case((Task.due_date.is_(None), EARLIEST), else_=Task.due_date)
CREATED = Task.created_at.expression
TITLE = Task.title_folded.expression

SORTS = {
    "created": Sort(CREATED, CREATED, "desc"),
    "title": Sort(TITLE, TITLE, "asc"),
    "due_date": Sort(DUE_FIRST, DUE_LAST, "asc"),
}
IS_PENDING = sa.not_(Task.completed)
STATUSES: dict[str, tuple[sa.ColumnExpressionArgument[bool], ...]] = {
    "all": (),
    "pending": (IS_PENDING,),
    "completed": (Task.completed,),
}


def _contains(column: sa.orm.InstrumentedAttribute[Any]) -> sa.ColumnElement[bool]:
    """Search in a text's UTF-8, which finds the same as in the text.

    In text PostgreSQL compares backwards from every place where the last character fits, so a long text of one letter
    takes it thirty times as long.
    """
    searched = sa.bindparam("q", type_=sa.LargeBinary)
    found: sa.ColumnElement[int] = sa.func.pg_catalog.position(
        sa.func.convert_to(column, sa.literal_column("'UTF8'")), searched, type_=sa.Integer
    )
    return found > 0


FILTERS: dict[str, tuple[sa.ColumnExpressionArgument[bool], ...]] = {
    # Before version 17 PostgreSQL checks a single value in the index, but several only in the row.
    "the_priority": (Task.priority == sa.bindparam("the_priority", type_=CodePoints),),
    "priority": (Task.priority == sa.func.any(sa.bindparam("priority", type_=postgresql.ARRAY(CodePoints))),),
    "due_from": (Task.due_date >= sa.bindparam("due_from", type_=Instant),),
    "due_to": (Task.due_date < sa.bindparam("due_to", type_=Instant),),
    "overdue": (Task.due_date < sa.func.now(), IS_PENDING),
    "q": (sa.or_(_contains(Task.title_folded), _contains(Task.description_folded)),),
}


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a list shows, and in which order; `filters` has a value for each filter that applies."""

    status: str
    sort: str
    order: str
    filters: Mapping[str, Any]

    @classmethod
    def of(cls, *, status: str, sort: str, order: str | None, **filters: Any) -> "Query":
        """Make a query from a request's parameters; those that are None or false do not filter."""
        given = {name: value for name, value in filters.items() if value}
        return cls(status=status, sort=sort, order=order or SORTS[sort].own, filters=given)


class Position(NamedTuple):
    """The sort key and the id of a page's last task, after which the next page begins, as text."""

    key: str | None
    id: str


def list_tasks(
    database: Database, caller: Caller, query: Query, limit: int, after: Position | None
) -> tuple[list[Row], Position | None]:
    """Return at most `limit` of the caller's tasks after a position, and where to continue if there are more.

    Raises SearchTooSlow.
    """
    timeout = SEARCH_TIMEOUT if "q" in query.filters else None
    try:
        rows = database.rows(Scope.user(caller.id), *select_tasks(caller.id, query, limit + 1, after), timeout=timeout)
    except StatementTimeout as error:
        if timeout:
            raise SearchTooSlow from error
        raise
    return rows[:limit], position(query, rows[limit - 1]) if len(rows) > limit else None


def select_tasks(user_id: str, query: Query, limit: int, after: Position | None) -> tuple[Statement, dict[str, Any]]:
    """Return the statement for at most `limit` of these tasks, and its parameters."""
    values = _values(query)
    parameters = {"the_user": user_id, "limit": limit, **values}
    if after:
        parameters |= {"key": _key(query, after.key), "id": UUID(after.id)}
    return _statement(query.status, query.sort, query.order, frozenset(values), after is not None), parameters


@cache
def _statement(status: str, sort: str, order: str, filters: frozenset[str], is_continued: bool) -> Statement:
    key: sa.ColumnElement[Any] = getattr(SORTS[sort], order)
    conditions = FILTERS | (_due_bounds(order, is_continued) if sort == "due_date" else {})
    asked = (*STATUSES[status], *(condition for name in sorted(filters) for condition in conditions[name]))
    statement = (
        sa.select(*TASK_COLUMNS)
        .where(THE_USER, *dict.fromkeys(asked))  # no duplicates, for which PostgreSQL would expect too few rows
        .order_by(getattr(key, order)(), getattr(Task.id, order)())
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )
    if is_continued:
        here = sa.tuple_(key, Task.id)
        end = sa.tuple_(sa.bindparam("key", type_=key.type), sa.bindparam("id", type_=Task.id.type))
        statement = statement.where(here > end if order == "asc" else here < end)
    return read(statement)


def _due_bounds(order: str, is_continued: bool) -> dict[str, tuple[sa.ColumnExpressionArgument[bool], ...]]:
    """Return the filters by due date as bounds of the sort key, because the index has the key.

    A continued page has no other bound at its start: of two, PostgreSQL might begin at the more distant one.
    """
    key, is_due = (DUE_FIRST, DUE_FIRST < LATEST) if order == "asc" else (DUE_LAST, DUE_LAST > EARLIEST)
    lower = () if is_continued and order == "asc" else (key >= sa.bindparam("due_from", type_=Instant),)
    upper = () if is_continued and order == "desc" else (key < sa.bindparam("due_to", type_=Instant),)
    past = () if is_continued and order == "desc" else (key < sa.func.now(),)
    return {"due_from": (is_due, *lower), "due_to": (is_due, *upper), "overdue": (is_due, *past, IS_PENDING)}


def _values(query: Query) -> dict[str, Any]:
    """Return the value of each filter that applies, by its name in FILTERS."""
    values = dict(query.filters)
    if len(values.get("priority", ())) == 1:
        (values["the_priority"],) = values.pop("priority")
    for name in values.keys() & {"due_from", "due_to"}:
        values[name] = instant(values[name])
    if "q" in values:
        values["q"] = fold(values["q"]).encode()
    return values


def position(query: Query, row: Row) -> Position:
    """Return the position of a page's last row."""
    if query.sort == "title":
        key: str | None = fold(row["title"])
    else:
        value: datetime | None = row["created_at" if query.sort == "created" else "due_date"]
        key = value.isoformat() if value else None
    return Position(key, str(row["id"]))


def parse_position(query: Query, content: Any) -> Position:
    """Return the position of this list that JSON stands for. Raises ValueError if there is none."""
    match content:
        case [str() | None as key, str() as id] if str(UUID(id)) == id and _is_key(query, key):
            return Position(key, id)
    raise ValueError("it is no position")


def _is_key(query: Query, key: str | None) -> bool:
    """Tell whether `position` may have returned this key. Raises ValueError for what is no instant, or no text."""
    if key is None:
        return query.sort == "due_date"
    if query.sort == "title":
        return bool(key.encode()) and "\0" not in key  # which PostgreSQL can store
    return datetime.fromisoformat(key).isoformat() == key and len(key) <= len("0001-01-01T00:00:00.000000")


def _key(query: Query, key: str | None) -> Any:
    """Return the value to compare the sort key with."""
    if query.sort == "title":
        return key
    if key is None:
        return "infinity" if query.order == "asc" else "-infinity"
    return datetime.fromisoformat(key).replace(tzinfo=UTC)

"""Tasks to list, a plain model of what the contract answers to a query, and a walk over the pages of its answer."""

import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from models.task import fold
from postgres.scope import Scope
from tests.support.client import Client

WORDS = (
    "apple",
    "Apple",
    "APPLE",
    "banana",
    "Straße",
    "STRASSE",
    "äpfel",
    "Äpfel",
    "zebra",
    "_x",
    "1",
    "😀",
    " a",
    "5%",
)
DESCRIPTIONS = (None, "", "An Apple a day", "100% sure", "under_score", "back\\slash", "STRAßE")
NOW = datetime.now(UTC)
DATES = (
    None,
    "2020-01-01T00:00:00Z",
    "2026-06-01T00:00:00Z",
    "2026-06-01T00:00:00.000001Z",
    "9999-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00Z",
    (NOW + timedelta(days=1)).isoformat(),
    (NOW - timedelta(days=1)).isoformat(),
)
SORT_KEYS = {
    "created": lambda task: task["created_at"],
    "title": lambda task: task["title"].casefold(),
    "due_date": lambda task: task["due_date"] and instant(task["due_date"]),
}
OWN_DIRECTION = {"created": "desc", "title": "asc", "due_date": "asc"}
FILTERS: dict[str, list[Any]] = {
    "status": ["pending", "completed"],
    "priority": [["low"], ["high", "low"]],
    "due_from": ["2026-06-01T00:00:00Z", "2026-06-01T02:00:00+02:00"],
    "due_to": ["2026-06-01T00:00:00.000001Z"],
    "overdue": ["true"],
    "q": ["apple", "%", "_", "\\", "strasse", "ÄPFEL", "😀"],
}
ORDERS = [(sort, order) for sort in SORT_KEYS for order in (None, "asc", "desc")]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def is_shown(task: dict[str, Any], query: dict[str, Any]) -> bool:
    """Tell whether the contract shows the task to the query."""
    due = task["due_date"] and instant(task["due_date"])
    text = (task["title"].casefold(), (task["description"] or "").casefold())
    return all(
        (
            query.get("status", "all") in ("all", "completed" if task["completed"] else "pending"),
            "priority" not in query or task["priority"] in query["priority"],
            "due_from" not in query or (due and due >= instant(query["due_from"])),
            "due_to" not in query or (due and due < instant(query["due_to"])),
            query.get("overdue") != "true" or (due and due < datetime.now(UTC) and not task["completed"]),
            "q" not in query or any(query["q"].casefold() in one for one in text),
        )
    )


def expected(tasks: list[dict[str, Any]], query: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the contract answers to a query, without pages."""
    sort = query.get("sort", "created")
    is_descending = query.get("order", OWN_DIRECTION[sort]) == "desc"
    key = SORT_KEYS[sort]
    shown = [task for task in tasks if is_shown(task, query)]
    keyed = sorted((t for t in shown if key(t) is not None), key=lambda t: (key(t), t["id"]), reverse=is_descending)
    return keyed + sorted((t for t in shown if key(t) is None), key=lambda t: t["id"], reverse=is_descending)


def fill(client: Client, number: int, seed: object) -> list[dict[str, Any]]:
    """Create random tasks."""
    generator = random.Random(str(seed))
    return [
        client.create(
            generator.choice(WORDS),
            description=generator.choice(DESCRIPTIONS),
            completed=generator.random() < 0.4,
            priority=generator.choice((None, "low", "medium", "high")),
            due_date=generator.choice(DATES),
        )
        for _ in range(number)
    ]


def walk(client: Client, query: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Follow the links from page to page."""
    response = client.get("/api/tasks", params=query)
    while True:
        assert response.status_code == 200, response.text
        yield response.json()
        if "link" not in response.headers:
            return
        found = re.fullmatch(r'<(.+)>; rel="next"', response.headers["link"])
        assert found
        response = client.get(found[1])


def insert_many(
    database: Any, client: Any, number: int, user: str | None = None, description: str | None = None
) -> None:
    """Store many tasks without going through the service."""
    statement = """
        INSERT INTO tasks (user_id, title, title_folded, description, description_folded, due_date)
        SELECT :user, 'task ' || n, 'task ' || n, :description, :folded,
               timestamptz '2026-01-01Z' + n * interval '1 minute'
        FROM generate_series(1, :number) AS n RETURNING 1 AS one
    """
    user = user or client.user
    values = {"user": user, "number": number, "description": description, "folded": description and fold(description)}
    database.rows(Scope.user(user), text(statement), values, timeout=60)

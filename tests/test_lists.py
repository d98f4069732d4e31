"""Filters, orders and pages of the list, against a plain model of them (FR-011, FR-012)."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from postgres.database import Database
from tests.support.client import Client, assert_problem
from tests.support.lists import FILTERS, ORDERS, expected, fill, insert_many, walk
from tests.support.problems import DATE_RULE


@pytest.mark.load
@pytest.mark.parametrize(("sort", "order"), ORDERS)
def test_every_pair_of_filters_in_every_order_and_in_pages_agrees_with_a_plain_model(
    alice: Client, bob: Client, sort: str, order: str | None
) -> None:
    tasks = fill(alice, 60, (sort, order))
    fill(bob, 3, "bob")
    in_order = {"sort": sort} | ({"order": order} if order else {})
    pairs = [{}, *({one: value} for one in FILTERS for value in FILTERS[one])]
    pairs += [
        {one: FILTERS[one][0], other: value}
        for one, other in itertools.permutations(FILTERS, 2)
        for value in FILTERS[other]
    ]
    for filters in pairs:
        query = in_order | filters
        wanted = expected(tasks, query)
        assert alice.get("/api/tasks", params=query).json() == wanted, query
        pages = list(walk(alice, query | {"limit": 7}))
        assert [len(page) for page in pages[:-1]] == [7] * (len(pages) - 1), query
        assert list(itertools.chain(*pages)) == wanted, query


def test_without_parameters_all_tasks_are_listed_newest_first(alice: Client) -> None:
    for title in ("first", "second", "third"):
        alice.create(title, completed=title == "second")
    assert alice.titles() == ["third", "second", "first"]


def test_titles_are_ordered_without_regard_to_case(alice: Client) -> None:
    for title in ("b", "A", "C", "a"):
        alice.create(title)
    assert [title.lower() for title in alice.titles(sort="title")] == ["a", "a", "b", "c"]


def test_tasks_without_a_due_date_come_last_in_both_directions(alice: Client) -> None:
    alice.create("none")
    alice.create("late", due_date="2027-01-01T00:00:00Z")
    alice.create("early", due_date="2026-01-01T00:00:00Z")
    assert alice.titles(sort="due_date") == ["early", "late", "none"]
    assert alice.titles(sort="due_date", order="desc") == ["late", "early", "none"]


def test_a_renamed_task_moves_in_the_order_and_in_the_search(alice: Client) -> None:
    task = alice.create("a", description="old")
    alice.create("b")
    alice.put(f"/api/tasks/{task['id']}", json={"title": "C", "description": "new"})
    assert alice.titles(sort="title") == ["b", "C"]
    assert (alice.titles(q="OLD"), alice.titles(q="NEW"), alice.titles(q="c")) == ([], ["C"], ["C"])


def test_overdue_false_does_not_filter(alice: Client) -> None:
    fill(alice, 10, "overdue")
    assert alice.titles(overdue="false") == alice.titles()


# Pages


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_go_on_where_no_task_has_a_due_date(alice: Client, order: str) -> None:
    made = {alice.create()["id"] for _ in range(3)}
    path: str | None = f"/api/tasks?sort=due_date&order={order}&limit=1"
    seen = []
    while path:
        page = alice.get(path)
        seen += [task["id"] for task in page.json()]
        path = page.links.get("next", {}).get("url")
    assert len(seen) == 3
    assert set(seen) == made


def test_there_is_no_link_where_everything_is_on_the_page(alice: Client) -> None:
    fill(alice, 3, "page")
    for limit in ("3", "4", "1000"):
        assert "link" not in alice.get("/api/tasks", params={"limit": limit}).headers


def test_a_page_has_at_most_1000_tasks_and_says_that_there_are_more(alice: Client, database: Any) -> None:
    alice.create("the user is there")
    insert_many(database, alice, 1000)
    response = alice.get("/api/tasks")
    assert len(response.json()) == 1000
    assert sum(len(page) for page in walk(alice, {})) == 1001


@pytest.mark.load
@pytest.mark.parametrize(("sort", "order"), ORDERS)
def test_a_walk_among_writes_shows_every_task_that_stood_still_exactly_once(
    alice: Client, sort: str, order: str | None
) -> None:
    query = {"sort": sort, "limit": 5} | ({"order": order} if order else {})
    still = fill(alice, 40, "still")
    moving = fill(alice, 40, "moving")
    seen = []
    with ThreadPoolExecutor(4) as writers:
        for page in walk(alice, query):
            seen += [task["id"] for task in page]
            for task in moving[:4]:
                writers.submit(alice.delete, f"/api/tasks/{task['id']}")
            del moving[:4]
            writers.submit(fill, alice, 2, len(seen))
    counts = [seen.count(task["id"]) for task in still]
    assert counts == [1] * 40


def test_a_cursor_fits_no_other_query_and_no_other_user(alice: Client, bob: Client) -> None:
    fill(alice, 5, "cursor")
    fill(bob, 5, "cursor")
    query = {"sort": "title", "limit": "2", "q": "a"}
    link = alice.get("/api/tasks", params=query | {"q": " "}).headers.get("link")
    link = alice.get("/api/tasks", params={"sort": "title", "limit": "2"}).headers["link"]
    cursor = str(link).partition("cursor=")[2].partition(">")[0]
    good = {"sort": "title", "cursor": cursor}
    assert alice.get("/api/tasks", params=good).status_code == 200
    changed = [
        good | change
        for change in (
            {"sort": "created"},
            {"order": "desc"},
            {"status": "pending"},
            {"q": "a"},
            {"priority": "low"},
            {"overdue": "true"},
            {"due_from": "2026-01-01T00:00:00Z"},
            {"cursor": cursor[:-1]},
            {"cursor": cursor[:10]},
            {"cursor": "A" + cursor[1:] if cursor[0] != "A" else "B" + cursor[1:]},
            {"cursor": "x"},
            {"cursor": "WyJhIiwiYiJd"},
        )
    ]
    for client, parameters in [(bob, good), *((alice, one) for one in changed)]:
        detail = "is no cursor of this list"
        assert_problem(
            client.get("/api/tasks", params=parameters),
            400,
            "bad_request",
            f"Invalid query: /cursor {detail}.",
            ("query", "/cursor", detail),
        )


def test_the_page_size_may_change_on_the_way(alice: Client) -> None:
    tasks = fill(alice, 9, "size")
    first = alice.get("/api/tasks", params={"limit": 2})
    rest = alice.get(str(first.headers["link"])[1:].partition(">")[0].replace("limit=2", "limit=1000"))
    assert first.json() + rest.json() == expected(tasks, {})


# Bad parameters

ONE_OF = "must be one of:"


@pytest.mark.parametrize(
    ("query", "pointer", "detail"),
    [
        ("status=done", "/status", f"{ONE_OF} all, pending, completed"),
        ("status=", "/status", f"{ONE_OF} all, pending, completed"),
        ("status=ALL", "/status", f"{ONE_OF} all, pending, completed"),
        ("status=all%0A", "/status", f"{ONE_OF} all, pending, completed"),
        ("sort=due", "/sort", f"{ONE_OF} created, title, due_date"),
        ("status=all&status=all", "/status", "is given more than once"),
        ("sort=title&sort=title", "/sort", "is given more than once"),
        ("order=asc&order=asc", "/order", "is given more than once"),
        ("overdue=true&overdue=true", "/overdue", "is given more than once"),
        ("q=a&q=a", "/q", "is given more than once"),
        ("cursor=a&cursor=a", "/cursor", "is given more than once"),
        (f"{'&'.join(['due_to=2026-01-01T00:00:00Z'] * 2)}", "/due_to", "is given more than once"),
        (f"{'&'.join(['due_from=2026-01-01T00:00:00Z'] * 2)}", "/due_from", "is given more than once"),
        ("order=up", "/order", f"{ONE_OF} asc, desc"),
        ("limit=0", "/limit", "is less than the minimum of 1"),
        ("limit=1001", "/limit", "is greater than the maximum of 1000"),
        ("limit=-1", "/limit", "is less than the minimum of 1"),
        ("limit=%2B5", "/limit", "must be integer"),
        ("limit=1_0", "/limit", "must be integer"),
        ("limit=05", "/limit", "must be integer"),
        ("limit=5.0", "/limit", "must be integer"),
        ("limit=１", "/limit", "must be integer"),
        ("limit=", "/limit", "must be integer"),
        (f"limit={'9' * 5000}", "/limit", "must be integer"),
        ("limit=1&limit=2", "/limit", "is given more than once"),
        ("priority=urgent", "/priority/0", f"{ONE_OF} low, medium, high"),
        ("priority=low&priority=", "/priority/1", f"{ONE_OF} low, medium, high"),
        ("priority=low,high", "/priority/0", f"{ONE_OF} low, medium, high"),
        ("priority=low&priority=low", "/priority", "has non-unique elements"),
        ("due_from=2026-01-01", "/due_from", DATE_RULE),
        ("due_from=2026-01-01T00:00:00+01:00", "/due_from", DATE_RULE),
        ("due_to=tomorrow", "/due_to", DATE_RULE),
        ("overdue=yes", "/overdue", "must be boolean"),
        ("overdue=True", "/overdue", "must be boolean"),
        ("overdue=1", "/overdue", "must be boolean"),
        ("q=", "/q", "is shorter than 1 character"),
        (f"q={'x' * 201}", "/q", "is longer than 200 characters"),
        ("q=%00", "/q", "must be text without a NUL character"),
        ("cursor=%3D", "/cursor", "must be a cursor from a Link header"),
        ("cursor=a%3D", "/cursor", "must be a cursor from a Link header"),
        ("cursor=%3Da", "/cursor", "must be a cursor from a Link header"),
        (f"cursor={'a' * 1681}", "/cursor", "is longer than 1680 characters"),
        ("page=1", "/page", "is not known here"),
        ("Limit=1", "/Limit", "is not known here"),
        ("a%2Fb~c=1", "/a~1b~0c", "is not known here"),
        (f"{'x' * 300}=1", f"/{'x' * 100}", "is not known here"),
    ],
)
def test_a_bad_parameter_is_named(alice: Client, query: str, pointer: str, detail: str) -> None:
    assert_problem(
        alice.get(f"/api/tasks?{query}"),
        400,
        "bad_request",
        f"Invalid query: {pointer} {detail}.",
        ("query", pointer, detail),
    )


@pytest.mark.parametrize(
    ("query", "pointer", "details"),
    [
        ("cursor=", "/cursor", ["is shorter than 1 character", "must be a cursor from a Link header"]),
        ("&".join(["priority=low"] * 4), "/priority", ["has more than 3 items", "has non-unique elements"]),
    ],
)
def test_everything_that_is_bad_about_a_parameter_is_named(
    alice: Client, query: str, pointer: str, details: list[str]
) -> None:
    errors = alice.get(f"/api/tasks?{query}").json()["errors"]
    assert sorted(errors, key=str) == [{"in": "query", "pointer": pointer, "detail": detail} for detail in details]


@pytest.mark.parametrize("query", ["%FF=1", "status=%C3%28"])
def test_a_query_that_is_not_utf_8_is_refused(alice: Client, query: str) -> None:
    detail = "is not percent-encoded UTF-8"
    assert_problem(
        alice.get(f"/api/tasks?{query}"), 400, "bad_request", f"Invalid query: it {detail}.", ("query", "", detail)
    )


def test_every_bad_parameter_is_reported_at_once(alice: Client) -> None:
    errors = alice.get("/api/tasks?status=x&sort=y&z=1").json()["errors"]
    assert [error["pointer"] for error in errors] == ["/status", "/sort", "/z"]


@pytest.mark.load
def test_a_walk_over_100_000_tasks_among_writes_shows_every_task_that_stood_still_once(
    make_client: Any, database: Any
) -> None:
    client = make_client()
    client.create("the user is there")
    insert_many(database, client, 100_000)
    is_over = False

    def write() -> None:
        while not is_over:
            path = f"/api/tasks/{client.create('moving')['id']}"
            client.put(path, json={"title": "also moving"})
            client.delete(path)

    with ThreadPoolExecutor(2) as writers:
        for _ in range(2):
            writers.submit(write)
        try:
            seen = [task["title"] for page in walk(client, {"sort": "title"}) for task in page]
        finally:
            is_over = True
    still = [title for title in seen if title.startswith("task ")]
    assert len(still) == len(set(still)) == 100_000


# Texts and what is searched in them, which one way of searching or another takes the product of both lengths for.
LONG_SEARCHES = [
    ("ß", "x" + 199 * "ß"),
    ("ß", 199 * "ß" + "x"),
    ("ß", 99 * "ß" + "x" + 99 * "ß"),
    ("\u0390", 199 * "\u0390" + "x"),
]


@pytest.mark.parametrize(("letter", "q"), LONG_SEARCHES)
def test_a_search_that_compares_as_much_as_it_can_is_answered(
    database: Database, alice: Client, letter: str, q: str
) -> None:
    alice.create()
    insert_many(database, alice, 5_000, description=letter * 1000)
    assert alice.get("/api/tasks", params={"q": q}).json() == []
    assert len(alice.get("/api/tasks", params={"q": q.replace("x", letter), "limit": "1"}).json()) == 1


def test_a_search_has_a_time_limit_of_its_own(
    database: Database, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.create()
    insert_many(database, alice, 5_000, description="ß" * 1000)
    monkeypatch.setattr("models.task_list.SEARCH_TIMEOUT", 0.001)
    detail = "The search took too long. Search fewer tasks, for example only those that are pending, or try again."
    assert_problem(alice.get("/api/tasks", params={"q": "x"}), 503, "search_too_slow", detail)

"""What the contract says of a value, code and database say too: a bound that is changed in one alone is found."""

import sys
from collections.abc import Callable
from functools import reduce
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Boolean, DateTime, Integer, Uuid, text

from handlers.conditions import MAX_VERSION
from handlers.me import ATTACHMENT
from models import idempotency_key
from models.base import Base
from models.idempotency_key import IdempotencyKey
from models.task import Task
from models.user import User
from openapi.contract import Contract
from openapi.middleware import header_limits, request_body
from openapi.middleware.request_context import SANE_REQUEST_ID
from openapi.problems import MAX_ECHO, MAX_ERRORS
from openapi.rate_limiter import WINDOW
from openapi.schemas import CompiledSchema
from postgres.database import Database
from postgres.scope import Scope
from settings.settings import Settings
from tests.support.client import Client, Conformance
from tests.support.server import Server
from tokens.verifier import MAX_CLAIM_LENGTH, MAX_SUBJECT_LENGTH

MAX_INTEGER = 2**31 - 1  # of PostgreSQL's type integer, and of what every client can count with


def at(contract: Contract, place: str) -> Any:
    """Return what stands at a place in the components, with its steps separated by spaces."""
    return reduce(lambda node, step: node[step], place.split(), contract.document["components"])


@pytest.mark.parametrize(
    ("place", "bound"),
    [
        ("schemas Task properties version minimum", 1),
        ("schemas Task properties version maximum", MAX_VERSION),
        ("schemas Me properties tasks properties pending minimum", 0),
        ("schemas Me properties tasks properties pending maximum", MAX_INTEGER),
        ("schemas Me properties tasks properties completed minimum", 0),
        ("schemas Me properties tasks properties completed maximum", MAX_INTEGER),
        ("schemas Me properties id maxLength", MAX_SUBJECT_LENGTH),
        ("schemas Me properties email maxLength", MAX_CLAIM_LENGTH),
        ("schemas Me properties name maxLength", MAX_CLAIM_LENGTH),
        ("schemas Export properties user properties email maxLength", MAX_CLAIM_LENGTH),
        ("schemas Export properties user properties name maxLength", MAX_CLAIM_LENGTH),
        ("schemas Problem properties status minimum", 400),
        ("schemas Problem properties status maximum", 599),
        ("schemas Problem properties errors minItems", 1),
        ("schemas Problem properties errors maxItems", MAX_ERRORS),
        ("schemas InputError properties pointer maxLength", len("/") + MAX_ECHO),
        ("headers Retry-After schema minimum", 1),
        ("headers Retry-After schema maximum", WINDOW),
        ("headers ETag schema maxLength", len(f'"{MAX_VERSION}"')),
        ("headers RateLimit schema maxLength", len('"default";r=999999;t=60')),
        ("headers RateLimit-Policy schema maxLength", len('"default";q=1000000;w=60')),
    ],
)
def test_a_bound_of_an_answer_is_the_codes(contract: Contract, place: str, bound: int) -> None:
    assert at(contract, place) == bound


def test_the_limits_that_the_description_names_are_the_codes(contract: Contract) -> None:
    description = " ".join(contract.document["info"]["description"].split())
    assert (
        f"The target is limited to {header_limits.MAX_TARGET // 1024} KiB, the headers to "
        f"{header_limits.MAX_HEADERS // 1024} KiB and {header_limits.MAX_HEADER_COUNT} in number, and the body to "
        f"{request_body.MAX_BODY // 1024} KiB. Headers and body must each arrive within "
        f"{request_body.BODY_TIMEOUT} seconds."
    ) in description
    assert f"for {idempotency_key.LIFETIME.total_seconds() / 3600:.0f} hours you get the first response" in description


def test_a_page_has_at_most_as_many_tasks_as_can_be_asked_for(contract: Contract) -> None:
    page = contract.document["paths"]["/api/tasks"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert page["maxItems"] == at(contract, "parameters Limit schema maximum")


@pytest.mark.parametrize(
    ("place", "like"),
    [
        ("schemas Task properties title", "schemas Title"),
        ("schemas Task properties description", "schemas Description"),
        ("schemas Task properties priority", "schemas Priority"),
        ("schemas Task properties due_date", "schemas DueDate"),
        ("schemas Task properties user_id", "schemas Me properties id"),
        ("schemas Export properties user properties id", "schemas Me properties id"),
        ("schemas Export properties idempotency_keys items properties key", "parameters IdempotencyKey schema"),
        ("schemas Problem properties request_id", "headers X-Request-Id schema"),
    ],
)
def test_what_is_answered_has_the_bounds_of_what_is_taken(contract: Contract, place: str, like: str) -> None:
    apart = {"description"} | ({"pattern"} if like in ("schemas Title", "schemas Description") else set())
    answered, taken = ({k: v for k, v in at(contract, one).items() if k not in apart} for one in (place, like))
    assert answered == taken


@pytest.mark.parametrize(
    ("place", "values"),
    [
        ("schemas Priority", ["low", "medium", "high", None]),
        ("schemas Health properties status", ["ok"]),
        ("schemas Problem properties type", ["about:blank"]),
        ("schemas InputError properties in", ["body", "query", "path", "header"]),
    ],
)
def test_an_enumeration_has_what_the_service_says_and_no_more(
    contract: Contract, place: str, values: list[str | None]
) -> None:
    assert at(contract, place)["enum"] == values


def test_the_headers_of_one_answer_alone_have_the_one_value_that_the_service_gives(contract: Contract) -> None:
    created = contract.document["paths"]["/api/tasks"]["post"]["responses"]["201"]["headers"]
    export = contract.document["paths"]["/api/me/export"]["get"]["responses"]["200"]["headers"]
    assert created["Idempotency-Replayed"]["schema"]["enum"] == ["true"]
    assert created["Location"]["schema"]["maxLength"] == len(f"/api/tasks/{uuid4()}")
    assert export["Content-Disposition"]["schema"]["enum"] == list(ATTACHMENT.values())


# The database


@pytest.fixture
def stores(alice: Client, database_url: str) -> Callable[..., bool]:
    """Try to store a row with a value, and tell whether the database takes it; nothing stays."""
    alice.create()

    def store(column: Any, value: Any) -> bool:
        texts = {"tasks": {"title": "x", "title_folded": "x"}, "users": {}}
        texts["idempotency_keys"] = {"key": "x", "fingerprint": "", "task": "{}"}
        table = column.class_.__tablename__
        owner = {} if table == "users" else {"user_id": alice.user}
        row = owner | texts[table] | {column.key: value}
        with psycopg.connect(database_url) as connection:
            user = value if table == "users" else alice.user
            connection.execute("SELECT set_config('app.user_id', %s, true)", (user,))
            try:
                connection.execute(
                    f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})",
                    list(row.values()),
                )
            except psycopg.errors.UniqueViolation:  # another test's user
                return True
            except psycopg.errors.CheckViolation:
                return False
            finally:
                connection.rollback()
        return True

    return store


@pytest.mark.parametrize(
    ("place", "column"),
    [
        ("schemas Title", Task.title),
        ("schemas Description", Task.description),
        ("schemas Me properties id", User.id),
        ("parameters IdempotencyKey schema", IdempotencyKey.key),
    ],
)
def test_the_database_takes_as_long_a_text_as_the_contract_and_no_longer(
    contract: Contract, stores: Callable[..., bool], place: str, column: Any
) -> None:
    schema = at(contract, place)
    shortest, longest = schema.get("minLength", 0), schema["maxLength"]
    assert (stores(column, "x" * shortest), stores(column, "x" * longest)) == (True, True)
    assert not stores(column, "x" * (longest + 1))
    assert not (shortest and stores(column, "x" * (shortest - 1)))


def test_the_database_takes_the_priorities_of_the_contract_and_no_other(
    contract: Contract, stores: Callable[..., bool]
) -> None:
    values = at(contract, "schemas Priority enum")
    assert {stores(Task.priority, one) for one in values} == {True}
    assert not stores(Task.priority, "urgent")
    assert at(contract, "parameters Priorities schema items enum") == [one for one in values if one]
    assert at(contract, "parameters Priorities schema maxItems") == len(values) - 1


@pytest.mark.parametrize(
    ("column", "taken", "refused"),
    [
        (Task.due_date, "0001-01-01T00:00:00Z", "0001-12-31T23:59:59Z BC"),
        (Task.due_date, "9999-12-31T23:59:59.999999Z", "10000-01-01T00:00:00Z"),
        (Task.title, " x ", "   "),
    ],
)
def test_the_database_takes_what_the_contract_says_in_words(
    stores: Callable[..., bool], column: Any, taken: str, refused: str
) -> None:
    assert (stores(column, taken), stores(column, refused)) == (True, False)


# Tables

MADE_BY_THE_SERVICE = {"id", "version", "user_id", "created_at", "updated_at"}


def described(column: Any) -> dict[str, Any]:
    """Return what a schema has to say of a column."""
    kinds = {Uuid: ("string", "uuid"), DateTime: ("string", "date-time"), Integer: ("integer", None)}
    kind, name = next((v for k, v in kinds.items() if isinstance(column.type, k)), ("string", None))
    if isinstance(column.type, Boolean):
        kind = "boolean"
    return {"type": kind, "format": name, "nullable": bool(column.nullable)}


@pytest.mark.parametrize(
    ("place", "table", "hidden"),
    [
        ("schemas Task", Task, {"title_folded", "description_folded"}),
        ("schemas Export properties user", User, set()),
        ("schemas Export properties idempotency_keys items", IdempotencyKey, {"fingerprint", "user_id", "task"}),
    ],
)
def test_a_stored_row_is_answered_whole_as_its_columns_are(
    contract: Contract, place: str, table: type[Base], hidden: set[str]
) -> None:
    properties = {name: one for name, one in at(contract, place)["properties"].items() if "$ref" not in one}
    columns = {column.key: column for column in table.__table__.columns if column.key not in hidden}
    assert {
        name: {key: one.get(key, False if key == "nullable" else None) for key in ("type", "format", "nullable")}
        for name, one in properties.items()
    } == {name: described(column) for name, column in columns.items()}


@pytest.mark.parametrize("name", ["TaskCreate", "TaskUpdate", "TaskPatch"])
def test_every_field_that_the_service_does_not_make_can_be_written(contract: Contract, name: str) -> None:
    properties = contract.resolve(at(contract, f"schemas {name}")["properties"])
    assert set(properties) == set(at(contract, "schemas Task")["properties"]) - MADE_BY_THE_SERVICE
    for key, schema in properties.items():
        column = Task.__table__.columns[key]
        assert schema.get("nullable", False) == column.nullable, key
        if name == "TaskCreate":
            has_value = column.nullable or column.server_default is not None
            assert (key in at(contract, "schemas TaskCreate")["required"]) == (not has_value), key


def test_completion_has_the_one_field_that_it_sets(contract: Contract) -> None:
    assert at(contract, "schemas TaskCompletion properties") == {"completed": {"type": "boolean"}}


def test_a_default_that_the_contract_names_is_the_one_that_a_task_gets(contract: Contract, alice: Client) -> None:
    task = alice.create()
    properties = at(contract, "schemas TaskCreate properties")
    defaults = {name: one["default"] for name, one in properties.items() if "default" in one}
    assert defaults == {"completed": False}
    assert {name: task[name] for name in defaults} == defaults


# Headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ETag", '"0"'),
        ("ETag", '"01"'),
        ("ETag", "1"),
        ("ETag", 'W/"1"'),
        ("ETag", '"1" '),
        ("ETag", '"1x"'),
        ("ETag", '""'),
        ("ETag", '"12345678901"'),
        ("RateLimit", '"default";r=;t=1'),
        ("RateLimit", '"default";r=1;t='),
        ("RateLimit", '"default";r=x;t=1'),
        ("RateLimit", '"default";r=1;t=x'),
        ("RateLimit", '"default";r=1000000;t=1'),
        ("RateLimit", '"default";r=1;t=100'),
        ("RateLimit", ' "default";r=1;t=1'),
        ("RateLimit", '"default";r=1;t=1 '),
        ("RateLimit-Policy", '"default";q=;w=60'),
        ("RateLimit-Policy", '"default";q=1;w='),
        ("RateLimit-Policy", '"default";q=x;w=60'),
        ("RateLimit-Policy", '"default";q=1;w=x'),
        ("RateLimit-Policy", '"default";q=10000000;w=1'),
        ("RateLimit-Policy", '"default";q=1;w=100'),
        ("RateLimit-Policy", ' "default";q=1;w=60'),
        ("RateLimit-Policy", '"default";q=1;w=60 '),
        ("Retry-After", "1"),
        ("WWW-Authenticate", "Basic"),
        ("WWW-Authenticate", ' Bearer realm="tasks-api"'),
        ("Location", "/api/tasks/"),
        ("Location", "x/api/tasks/8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11"),
        ("Location", "/api/tasks/8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11/"),
        ("Location", "/api/tasks/8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a1g"),
        ("Location", "/api/tasks/ge4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11"),
        ("Location", "/api/tasks/8e4c9a0e-3fgb-4c86-9d0f-0a4b5f2f7a11"),
        ("Link", ' </api/tasks?cursor=x>; rel="next"'),
        ("Link", '</api/tasks?cursor=x>; rel="next" '),
        ("Link", '</api/tasks?>; rel="next"'),
        ("Link", '</api/tasks?x>y>; rel="next"'),
    ],
)
def test_a_header_that_is_wrong_would_be_found(
    contract: Contract, conformance: Conformance, name: str, value: str
) -> None:
    paths = contract.document["paths"]["/api/tasks"]
    headers = contract.document["components"]["headers"] | paths["get"]["responses"]["200"]["headers"]
    headers |= paths["post"]["responses"]["201"]["headers"]
    headers |= contract.document["components"]["responses"]["Unauthorized"]["headers"]
    schema = {"description": name} | conformance.contract.resolve(headers[name])["schema"]
    schema.pop("maxLength", None)  # the pattern has to find it
    assert CompiledSchema(schema).errors("header", value, name)


def test_the_request_ids_that_are_kept_are_those_of_the_contract(contract: Contract) -> None:
    assert at(contract, "headers X-Request-Id schema pattern") == f"^{SANE_REQUEST_ID.pattern}$"


@pytest.mark.parametrize("request_id", ["x", "x" * 64, "AZaz09._-"])
def test_a_sane_request_id_is_kept(alice: Client, request_id: str) -> None:
    assert alice.get("/api/me", headers={"X-Request-Id": request_id}).headers["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", ["", "x" * 65, "a b", "a/b"])
def test_another_request_id_is_replaced(alice: Client, request_id: str) -> None:
    assert alice.get("/api/me", headers={"X-Request-Id": request_id}).headers["x-request-id"] != request_id


@pytest.mark.parametrize(
    ("name", "value"), [("RateLimit", '"default";r=0;t=1'), ("RateLimit-Policy", '"default";q=1;w=1')]
)
def test_the_least_share_fits_its_headers(contract: Contract, name: str, value: str) -> None:
    assert not CompiledSchema(at(contract, f"headers {name} schema")).errors("header", value)


def test_the_largest_share_fits_its_headers(make_settings: Callable[..., Settings], conformance: Conformance) -> None:
    with (
        Server(make_settings(rate_limit=1_000_000)) as server,
        Client(server.url, conformance, token=server.token(sub="rich")) as client,
    ):
        headers = client.get("/api/me").headers
    assert (headers["ratelimit-policy"], headers["ratelimit"]) == (
        '"default";q=1000000;w=60',
        '"default";r=999999;t=60',
    )


def test_the_largest_version_fits_its_header(alice: Client, database: Database) -> None:
    task = alice.create()
    database.rows(Scope.user(str(alice.user)), text(f"UPDATE tasks SET version = {MAX_VERSION} RETURNING 1 AS one"), {})
    assert alice.get(f"/api/tasks/{task['id']}").headers["etag"] == f'"{MAX_VERSION}"'


def test_a_problem_names_at_most_twenty_errors(alice: Client) -> None:
    for number in (MAX_ERRORS, MAX_ERRORS + 1):
        response = alice.post("/api/tasks", json={"title": "x"} | {f"x{one}": 1 for one in range(number)})
        assert len(response.json()["errors"]) == MAX_ERRORS


def test_a_pointer_is_cut_to_its_bound(alice: Client) -> None:
    (error,) = alice.post("/api/tasks", json={"title": "x", "x" * 200: 1}).json()["errors"]
    assert error["pointer"] == "/" + "x" * MAX_ECHO


# Cursors and links


def test_the_longest_cursor_and_the_longest_link_are_as_long_as_the_contract_says(
    contract: Contract, alice: Client, database: Database
) -> None:
    # A cursor has the title, folded, in JSON: no character becomes longer there than this one, of six bytes.
    worst = "\u0390"
    assert max(len(chr(one).casefold().encode()) for one in range(sys.maxunicode) if not 0xD800 <= one < 0xE000) == 6
    q = "😀" * 200  # each is twelve characters in a URL
    task = {"description": q, "priority": "medium", "due_date": "2021-01-01T00:00:00Z"}
    alice.create(worst * 200, **task)
    insert = """
        INSERT INTO tasks (user_id, title, title_folded, description, description_folded, priority, due_date)
        SELECT user_id, title, title_folded, description, description_folded, priority, due_date
        FROM tasks, generate_series(1, 1000) RETURNING 1 AS one
    """
    database.rows(Scope.user(str(alice.user)), text(insert), {})
    instants = {"due_from": "2020-01-01T00:00:00.000000000+00:00", "due_to": "2022-01-01T00:00:00.000000000+00:00"}
    query = {"status": "pending", "overdue": "true", "sort": "title", "order": "desc", "limit": "1000"}
    response = alice.get("/api/tasks", params=query | instants | {"priority": ["low", "medium", "high"], "q": q})
    link = response.headers["link"]
    header = contract.document["paths"]["/api/tasks"]["get"]["responses"]["200"]["headers"]["Link"]
    cursor = link.partition("cursor=")[2].partition(">")[0]
    assert len(cursor) == at(contract, "parameters Cursor schema maxLength")
    assert len(link) == header["schema"]["maxLength"]
    assert len(alice.get(link[1:].partition(">")[0]).json()) == 1

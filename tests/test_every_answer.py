"""Every operation gives every answer that the contract declares for it, with every header, and no other."""

import http.client
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psycopg
import pytest

from models.quota import RESERVE
from openapi.contract import Contract
from openapi.middleware import header_limits, request_body
from postgres.database import Database
from settings.settings import Settings
from tests.support.client import GENERAL_HEADERS, Client, Conformance
from tests.support.hosts import HOSTS
from tests.support.relay import Relay
from tests.support.server import Server

LIMIT = 5  # requests a minute of each user
MAX_TASKS = 2 * RESERVE  # of each user
TITLE = {"json": {"title": "x"}}
# A request of each operation that succeeds.
REQUESTS: dict[tuple[str, str], dict[str, Any]] = {
    ("GET", "/api/tasks"): {},
    ("POST", "/api/tasks"): TITLE,
    ("GET", "/api/tasks/{id}"): {},
    ("PUT", "/api/tasks/{id}"): TITLE,
    ("PATCH", "/api/tasks/{id}"): TITLE,
    ("DELETE", "/api/tasks/{id}"): {},
    ("PATCH", "/api/tasks/{id}/complete"): {"json": {"completed": True}},
    ("GET", "/api/me"): {},
    ("DELETE", "/api/me"): {},
    ("GET", "/api/me/export"): {},
    ("GET", "/health"): {},
    ("GET", "/ready"): {},
}


@dataclass
class Stage:
    """One operation on one server, and what it takes to make it fail."""

    method: str
    template: str
    server: Server
    relay: Relay
    conformance: Conformance
    database_url: str
    clients: ExitStack
    is_limited: bool

    @property
    def options(self) -> dict[str, Any]:
        """The request that succeeds."""
        return REQUESTS[self.method, self.template]

    @property
    def is_open(self) -> bool:
        """Whether the operation needs no token."""
        return not self.template.startswith("/api/")

    @property
    def has_id(self) -> bool:
        """Whether the operation is on one task."""
        return "{id}" in self.template

    def client(self, *, has_token: bool = True) -> Client:
        """Make a client of a new user; one without a token where none is needed."""
        user = f"user-{secrets.token_hex(6)}"
        token = self.server.token(sub=user) if has_token and not self.is_open else None
        return self.clients.enter_context(Client(self.server.url, self.conformance, token=token, user=user))

    def send(self, client: Client | None = None, task: str | None = None, **changes: Any) -> httpx.Response:
        """Send the request that succeeds, with changes; on a task of the client's own unless one's id is given."""
        client = client or self.client()
        if self.has_id and task is None:
            task = client.create()["id"]
        return client.request(self.method, self.template.format(id=task), **self.options | changes)


def success(stage: Stage) -> Iterator[httpx.Response]:
    client = stage.client()
    yield stage.send(client)
    if stage.template == "/api/tasks" and stage.method == "GET":
        client.create()
        client.create()
        yield stage.send(client, params={"limit": "1"})
    elif stage.template == "/api/tasks":
        for _ in range(2):
            yield stage.send(client, headers={"Idempotency-Key": "key"})


def not_modified(stage: Stage) -> Iterator[httpx.Response]:
    if stage.has_id and stage.method == "GET":
        yield stage.send(headers={"If-None-Match": "*"})


def bad_request(stage: Stage) -> Iterator[httpx.Response]:
    yield stage.send(params={"unknown": "x"})


def unauthorized(stage: Stage) -> Iterator[httpx.Response]:
    if not stage.is_open:
        yield stage.send(stage.client(has_token=False), task=str(uuid4()))
        yield stage.send(stage.client(has_token=False), task=str(uuid4()), headers={"Authorization": "Bearer x"})


def forbidden(stage: Stage) -> Iterator[httpx.Response]:
    if stage.has_id:
        yield stage.send(task=stage.client().create()["id"])
    elif (stage.method, stage.template) == ("POST", "/api/tasks"):
        client = stage.client()
        with psycopg.connect(stage.database_url) as connection:
            connection.execute("SELECT set_config('app.user_id', %s, true)", (client.user,))
            connection.execute("INSERT INTO users (id) VALUES (%s)", (client.user,))
            connection.execute(
                "INSERT INTO tasks (user_id, title, title_folded) SELECT %s, 'x', 'x' FROM generate_series(1, %s)",
                (client.user, MAX_TASKS),
            )
        yield stage.send(client)


def not_found(stage: Stage) -> Iterator[httpx.Response]:
    if stage.has_id:
        yield stage.send(task=str(uuid4()))


def timeout(stage: Stage) -> Iterator[httpx.Response]:
    client = stage.client()
    path = stage.template.format(id=uuid4())
    connection = http.client.HTTPConnection(urlsplit(stage.server.url).netloc, timeout=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_body, "BODY_TIMEOUT", 0.02)
        connection.request(stage.method, path, headers={**client.headers, "Content-Length": "1"})
        answer = connection.getresponse()
        request = httpx.Request(stage.method, client.base_url.join(path))
        response = httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read(), request=request)
    connection.close()
    stage.conformance.check(response)
    yield response


def key_in_use(stage: Stage) -> Iterator[httpx.Response]:
    if (stage.method, stage.template) != ("POST", "/api/tasks"):
        return
    client = stage.client()
    client.create()
    with psycopg.connect(stage.database_url) as twin:
        twin.execute("SELECT set_config('app.user_id', %s, true)", (client.user,))
        twin.execute(
            "INSERT INTO idempotency_keys (user_id, key, fingerprint, task) VALUES (%s, 'key', '', '{}')",
            (client.user,),
        )
        yield stage.send(client, headers={"Idempotency-Key": "key"})
        twin.rollback()


def stale(stage: Stage) -> Iterator[httpx.Response]:
    if stage.has_id and stage.method != "GET":
        yield stage.send(headers={"If-Match": '"9"'})


def too_large(stage: Stage) -> Iterator[httpx.Response]:
    headers = {"Content-Type": "application/json"}
    yield stage.send(task=str(uuid4()), json=None, content=b" " * (request_body.MAX_BODY + 1), headers=headers)


def too_long(stage: Stage) -> Iterator[httpx.Response]:
    yield stage.send(task=str(uuid4()), params={"q": "x" * header_limits.MAX_TARGET})


def unsupported(stage: Stage) -> Iterator[httpx.Response]:
    if stage.options:
        yield stage.send(task=str(uuid4()), json=None, content=b"x", headers={"Content-Type": "text/plain"})


def key_reused(stage: Stage) -> Iterator[httpx.Response]:
    if (stage.method, stage.template) == ("POST", "/api/tasks"):
        client = stage.client()
        stage.send(client, headers={"Idempotency-Key": "key"})
        yield stage.send(client, json={"title": "other"}, headers={"Idempotency-Key": "key"})


def over_the_limit(stage: Stage) -> Iterator[httpx.Response]:
    if stage.is_limited and not stage.is_open:
        client = stage.client()
        for _ in range(LIMIT):
            client.get("/api/me")
        yield stage.send(client, task=str(uuid4()))


def headers_too_large(stage: Stage) -> Iterator[httpx.Response]:
    yield stage.send(task=str(uuid4()), headers={"X-Large": "x" * header_limits.MAX_HEADERS})


def broken(stage: Stage) -> Iterator[httpx.Response]:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "rows", fail)
        patch.setattr("models.schema.check", fail)
        patch.setattr("openapi.connexion_adapter.to_json", fail)  # /health has nothing else that could fail
        yield stage.send(task=str(uuid4()))


def away(stage: Stage) -> Iterator[httpx.Response]:
    if stage.template != "/health":
        stage.relay.cut()
        yield stage.send(task=str(uuid4()))
        stage.relay.mend()


PRODUCERS: dict[int, Callable[[Stage], Iterator[httpx.Response]]] = {
    200: success,
    304: not_modified,
    400: bad_request,
    401: unauthorized,
    403: forbidden,
    404: not_found,
    408: timeout,
    409: key_in_use,
    412: stale,
    413: too_large,
    414: too_long,
    415: unsupported,
    422: key_reused,
    429: over_the_limit,
    431: headers_too_large,
    500: broken,
    503: away,
}


@pytest.fixture(scope="module")
def relay(database: Database, database_url: str) -> Iterator[Relay]:  # noqa: ARG001  the schema is in place
    with Relay(database_url) as relay:
        yield relay


@pytest.fixture(scope="module", params=HOSTS)
def servers(
    request: pytest.FixtureRequest, relay: Relay, make_settings: Callable[..., Settings]
) -> Iterator[list[Server]]:
    """A server that limits requests, and one that does not."""
    options = {
        "database_url": relay.url,
        "server_framework": request.param,
        "lock_timeout": 0.1,
        "max_tasks_per_user": MAX_TASKS,
    }
    with Server(make_settings(**options, rate_limit=LIMIT)) as limited, Server(make_settings(**options)) as unlimited:
        yield [limited, unlimited]


@pytest.fixture
def stages(
    servers: list[Server], relay: Relay, conformance: Conformance, database_url: str
) -> Iterator[Callable[[str, str], list[Stage]]]:
    """Set the stage for one operation, on each server."""
    with ExitStack() as clients:
        yield lambda method, template: [
            Stage(method, template, server, relay, conformance, database_url, clients, server is servers[0])
            for server in servers
        ]


def test_every_operation_is_asked(contract: Contract) -> None:
    declared = [(method, endpoint.template) for endpoint in contract.path_items for method in endpoint.operations]
    assert list(REQUESTS) == declared


@pytest.mark.parametrize(("method", "template"), REQUESTS)
def test_an_operation_gives_every_answer_that_is_declared_with_every_header_and_no_other(
    stages: Callable[[str, str], list[Stage]],
    contract: Contract,
    conformance: Conformance,
    method: str,
    template: str,
) -> None:
    answers: dict[str, list[httpx.Response]] = {}
    for stage in stages(method, template):
        for expected, produce in PRODUCERS.items():
            for answer in produce(stage):
                assert answer.status_code == expected or (expected == 200 and answer.is_success), answer.text
                answers.setdefault(str(answer.status_code), []).append(answer)
    declared = contract.document["paths"][template][method.lower()]["responses"]
    assert set(answers) == set(declared)
    for status, given in answers.items():
        promised = conformance.contract.resolve(declared[status])
        media_types = {one.headers.get("content-type") for one in given}
        assert media_types == set(promised.get("content", [None])), status
        assert media_types <= {None, "application/json" if status < "400" else "application/problem+json"}
        if status >= "400":  # the example is of an error of this operation
            example = promised["content"]["application/problem+json"]["example"]
            assert example["code"] in {one.json()["code"] for one in given}
        headers = {name.lower(): conformance.contract.resolve(one) for name, one in promised["headers"].items()}
        assert set().union(*(one.headers for one in given)) - GENERAL_HEADERS == set(headers), status
        for name, header in headers.items():
            always = all(name in one.headers for one in given)
            # A server that does not limit never answers 429, so that what is left is always said there.
            assert always == header.get("required", False) or status == "429", (status, name)

"""What the service uses of the inside of its dependencies, each of which has one room that knows it.

When one of these tests fails, a new version has moved its inside: read its source, then mend the room that is named.
"""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import uvicorn
from connexion.apps.asynchronous import AsyncApp
from connexion.apps.flask import FlaskApp
from connexion.lifecycle import ConnexionRequest
from connexion.middleware.abstract import ROUTING_CONTEXT
from connexion.middleware.routing import RoutingMiddleware
from connexion.resolver import Resolver
from connexion.security import BearerSecurityHandler
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.storage.redis.bridge import RedisBridge
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, ExecStatus
from sqlalchemy import Text, bindparam, column, select, table
from sqlalchemy.util import await_, greenlet_spawn
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from postgres.round_trip import is_active, is_idle, server_encoding
from postgres.statement import DIALECT
from tests.support.hosts import HOSTS


def takes(function: Callable[..., Any], *names: str) -> bool:
    """Tell whether a function has these arguments first, in this order."""
    return tuple(inspect.signature(function).parameters)[: len(names)] == names


def lacking(owner: object, *names: str) -> list[str]:
    """Return which of these names an object does not have."""
    return [name for name in names if not hasattr(owner, name)]


def test_psycopg_drives_a_pipeline_as_the_round_trip_does(database_url: str) -> None:
    moved = "psycopg's pipeline or adaptation has moved: mend postgres/round_trip.py"
    with psycopg.connect(database_url, autocommit=True) as connection:
        pgconn, transformer = connection.pgconn, Transformer(connection)
        values = transformer.dump_sequence([1, "two", None], [PyFormat.AUTO] * 3)
        assert values == [b"\0\1", b"two", None], moved
        assert (len(transformer.types or ()), len(transformer.formats or ())) == (3, 3), moved
        pgconn.enter_pipeline_mode()
        pgconn.send_query_params(b"SELECT $1 AS one", [b"1"])
        pgconn.pipeline_sync()
        statuses = []
        while ExecStatus.PIPELINE_SYNC not in statuses:
            pgconn.flush()
            pgconn.consume_input()
            while not pgconn.is_busy() and ExecStatus.PIPELINE_SYNC not in statuses:
                result = pgconn.get_result()
                if result is not None:
                    statuses.append(result.status)
                    if result.status == ExecStatus.TUPLES_OK:
                        transformer.set_pgresult(result, set_loaders=True)
                        rows = transformer.load_rows(0, result.ntuples, list)
        pgconn.exit_pipeline_mode()
        assert (statuses, rows) == ([ExecStatus.TUPLES_OK, ExecStatus.PIPELINE_SYNC], [["1"]]), moved
        assert pgconn.status == ConnStatus.OK, moved
        assert (is_idle(connection), is_active(connection), server_encoding(connection)) == (True, False, "UTF8"), moved


def test_sqlalchemy_lets_a_plain_function_wait_for_a_coroutine() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    moved = "SQLAlchemy's greenlets have moved: mend postgres/greenlets.py"
    assert asyncio.run(greenlet_spawn(lambda: await_(answer()))) == 42, moved


def test_sqlalchemy_tells_what_a_statement_compiles_to() -> None:
    moved = "SQLAlchemy's compiled statements have moved: mend postgres/statement.py"
    title = table("tasks", column("title", Text)).c.title
    statement = select(title).where(title == bindparam("asked"), title != "fixed")
    form: Any = statement.compile(dialect=DIALECT)
    assert str(form).endswith("WHERE tasks.title = $1::VARCHAR AND tasks.title != $2::VARCHAR"), moved
    fixed = {bind.effective_value for bind in form.bind_names if not bind.required}
    assert (form.positiontup[0], fixed) == ("asked", {"fixed"}), moved
    marked = statement.execution_options(is_read=True)
    assert marked.get_execution_options()["is_read"] is True, moved


def test_connexion_routes_by_a_place_in_the_scope_and_finds_handlers_by_a_resolver() -> None:
    moved = "Connexion's inside has moved: mend openapi/connexion_adapter.py"
    assert ROUTING_CONTEXT == "connexion_routing", moved
    assert takes(RoutingMiddleware.__call__, "self", "scope", "receive", "send"), moved
    assert takes(Resolver, "function_resolver"), moved
    for app in (AsyncApp, FlaskApp):
        assert {"middlewares", "lifespan", "resolver"} <= set(inspect.signature(app).parameters), moved
    assert isinstance(AsyncApp("test"), AsyncApp), moved


def test_connexion_puts_what_the_token_function_returned_into_the_context() -> None:
    moved = "Connexion's security has moved: mend Identification in openapi/connexion_adapter.py"

    async def info(token: str) -> dict[str, str]:
        return {"sub": token}

    async def verify() -> dict[str, Any]:
        from connexion.security import SecurityHandlerFactory

        scope = {"type": "http", "headers": [(b"authorization", b"Bearer alice")]}
        request = ConnexionRequest(scope)
        check = BearerSecurityHandler()._get_verify_func(info)
        await SecurityHandlerFactory().verify_security([check])(request)
        return dict(scope["extensions"]["connexion_context"])  # type: ignore[call-overload]

    assert asyncio.run(verify()) == {"user": "alice", "token_info": {"sub": "alice"}}, moved


@pytest.mark.parametrize("host", HOSTS)
def test_connexion_reaches_a_handler_through_the_binding_alone(host: str) -> None:
    from openapi import connexion_adapter

    found = connexion_adapter.HOSTS[host].resolver.resolve_function_from_operation_id("handlers.health.health")
    is_bound = inspect.getmodule(found).__name__ == "openapi.connexion_adapter"  # type: ignore[union-attr]
    assert is_bound == (host == "flask"), "mend HOSTS in openapi/connexion_adapter.py"


def test_uvicorns_protocol_is_the_one_that_the_http_protocol_extends() -> None:
    moved = "uvicorn's protocol has moved: mend server/http_protocol.py and its neighbours"
    expected = {
        "connection_made": ("self", "transport"),
        "connection_lost": ("self", "exc"),
        "_start_asgi_task": ("self", "cycle", "app"),
        "on_body": ("self", "body"),
        "on_response_complete": ("self",),
        "data_received": ("self", "data"),
        "on_message_begin": ("self",),
        "on_header": ("self", "name", "value"),
        "on_headers_complete": ("self",),
        "on_message_complete": ("self",),
    }
    for name, arguments in expected.items():
        assert takes(getattr(HttpToolsProtocol, name), *arguments), f"{moved} ({name})"
    source = inspect.getsource(HttpToolsProtocol)
    for name in ("self.parser", "self.pipeline", "self.cycle", "self.transport", "self.loop", "self.headers"):
        assert name in source, f"{moved} ({name})"
    cycle = inspect.getsource(RequestResponseCycle)
    names = ("disconnected", "message_event", "more_body", "response_started", "response_complete", "keep_alive")
    assert [name for name in names if f"self.{name}" not in cycle] == [], moved
    parser = vars(httptools_impl)["httptools"].HttpRequestParser(object())
    assert lacking(parser, "get_http_version", "should_upgrade") == [], moved


def test_uvicorns_supervisor_hands_its_sockets_to_the_workers_by_pickling() -> None:
    moved = "uvicorn's supervisor has moved: mend server/processes.py"
    assert takes(Multiprocess, "config", "sockets"), moved
    assert lacking(Multiprocess, "run", "init_processes", "keep_subprocess_alive") == [], moved
    assert takes(Process, "config", "sockets"), moved
    assert lacking(Process, "start", "is_ready", "exitcode") == [], moved
    assert takes(uvicorn.Server.startup, "self", "sockets"), moved


def test_limits_counts_in_the_places_that_its_memory_is_replaced_in() -> None:
    moved = "the storage of limits has moved: mend openapi/rate_limit_storage.py"
    assert takes(MemoryStorage.incr, "self", "key", "expiry", "amount"), moved
    assert lacking(MemoryStorage(), "storage", "expirations") == [], moved
    assert {"uri", "implementation", "key_prefix", "options"} <= set(inspect.signature(RedisStorage).parameters), moved
    assert lacking(RedisBridge, "prefixed_key") == [], moved


def test_starlettes_preflight_is_the_one_that_cors_corrects() -> None:
    moved = "Starlette's CORS has moved: mend openapi/middleware/cors.py"
    assert takes(CORSMiddleware.preflight_response, "self", "request_headers"), moved
    middleware = CORSMiddleware(lambda *_: None, allow_origins=["https://a.example"], allow_headers=["X-One"])  # type: ignore[arg-type]
    asked = {"Origin": "https://b.example", "Access-Control-Request-Method": "GET"}
    refused = middleware.preflight_response(Headers(asked))
    assert refused.status_code == 400, moved
    asked["Origin"] = "https://a.example"
    assert middleware.preflight_response(Headers(asked)).headers["access-control-allow-origin"], moved

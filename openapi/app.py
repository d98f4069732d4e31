"""The application: the contract, its handlers and their surroundings put together."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import anyio.to_thread
import flask
from connexion.apps.abstract import AbstractApp
from connexion.apps.flask import FlaskApp
from connexion.exceptions import ProblemException
from connexion.jsonifier import Jsonifier
from connexion.middleware.context import ContextMiddleware
from connexion.middleware.exceptions import ExceptionMiddleware
from connexion.middleware.lifespan import LifespanMiddleware
from connexion.middleware.response_validation import ResponseValidationMiddleware
from connexion.middleware.security import SecurityMiddleware
from sqlalchemy.util import greenlet_spawn
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from handlers.encoding import to_json
from handlers.me import Stream
from handlers.pages import Cursors
from models import idempotency
from models.errors import DatabaseUnavailable, RoleUnbound
from openapi.contract import Contract
from openapi.documentation import Documentation
from openapi.middleware import Compression, Cors, Guard, HeadGuard, Queue, RequestContext
from openapi.operation import OnLoopApp, Routing
from openapi.problems import answer
from openapi.rate_limit import RateLimit, RateLimiter
from openapi.validation import VALIDATORS, RequestValidation, check_supported
from postgres import embedded
from postgres.database import Database
from settings.settings import Settings
from tokens.key_set import KeySet
from tokens.verifier import TokenVerifier

logger = logging.getLogger(__name__)


class Host(NamedTuple):
    """What the handlers run under: Connexion's application, and the streamed answer that it takes.

    `run` runs a function that waits for the database. `threads` is how many a host has of its own, each taken until its
    answer is sent; None for a host whose handlers wait in the event loop.
    """

    app: type[AbstractApp]
    stream: Stream
    run: Callable[..., Awaitable[Any]]
    threads: int | None = None


def _asgi_stream(content: Iterator[bytes], headers: dict[str, str]) -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        while chunk := await greenlet_spawn(next, content, b""):
            yield chunk

    return StreamingResponse(chunks(), media_type="application/json", headers=headers)


def _flask_stream(content: Iterator[bytes], headers: dict[str, str]) -> flask.Response:
    return flask.Response(content, mimetype="application/json", headers=headers)


HOSTS = {
    "asgi": Host(OnLoopApp, _asgi_stream, greenlet_spawn),
    "flask": Host(FlaskApp, _flask_stream, anyio.to_thread.run_sync, threads=10),
}
SWEEP_INTERVAL = 600  # seconds
WATCH_INTERVAL = 1  # seconds
START_TIMEOUT = 5  # seconds that the start waits for the schema at the most
RETRY_INTERVAL = 1  # seconds between attempts to reach a database that was away at the start


class OrjsonJsonifier(Jsonifier):
    """Writes answers with orjson."""

    def dumps(self, data: Any, **_options: Any) -> bytes:
        """Return the data as JSON in UTF-8."""
        return to_json(data)


def create_app(
    settings: Settings | None = None, *, validate_responses: bool = False, is_alone: bool = False
) -> AbstractApp:
    """Return the application for an ASGI server such as uvicorn.

    `validate_responses` holds every answer of a handler to the contract; that is for tests, since the handler has
    already stored what it stores. `is_alone` tells that the process does nothing else: what the start has made is then
    left out of garbage collection, which would look through all of it now and then in the middle of a request.

    Raises InvalidSettings.
    """
    settings = settings or Settings.load()
    contract = Contract()
    check_supported(contract.document)
    host = HOSTS[settings.server_framework]
    database = Database(
        settings.external_database_url or embedded.start(settings.data_dir / "postgres"),
        pool_size=settings.database_pool_size,
        statement_timeout=settings.statement_timeout,
        lock_timeout=settings.lock_timeout,
        on_loop=host.threads is None,
    )
    tokens = token_verifier(settings)
    limit = settings.requests_per_minute
    limiter = RateLimiter(limit, settings.rate_limit_storage) if limit else None
    context = {
        "database": database,
        "tokens": tokens,
        "cursors": Cursors(settings.cursor_secret()),
        "stream": host.stream,
    }
    app = host.app(
        __name__,
        middlewares=[  # from the outside in
            LifespanMiddleware,
            partial(RequestContext, contract=contract, context=context),
            partial(Cors, contract=contract, origins=settings.origins),
            Compression,
            ExceptionMiddleware,
            HeadGuard,
            partial(Documentation, contract=contract),
            Guard,
            Routing,
            SecurityMiddleware,
            partial(RateLimit, limiter=limiter),
            RequestValidation,
            *([ResponseValidationMiddleware] if validate_responses else []),
            partial(Queue, turns=_turns(host, settings), until_sent=host.threads is not None),
            ContextMiddleware,
        ],
        lifespan=_lifespan(host, database, tokens, limiter, is_alone=is_alone),
        jsonifier=OrjsonJsonifier(),
        validator_map=VALIDATORS,
        validate_responses=validate_responses,
    )
    app.add_api(contract.routed)
    for error in (ProblemException, HTTPException, Exception):
        app.add_error_handler(error, answer)
    return app


def application() -> AbstractApp:
    """Return the application for a process of its own, as uvicorn starts it."""
    return create_app(is_alone=True)


def _turns(host: Host, settings: Settings) -> int:
    """Return how many handlers may run at once; one of the host's own threads stays free for /health."""
    return min(settings.database_pool_size, host.threads - 1 if host.threads else settings.database_pool_size)


def token_verifier(settings: Settings) -> TokenVerifier:
    """Return the verifier that the settings ask for."""
    return TokenVerifier(
        secret=settings.secret(),
        key_set=KeySet(settings.key_set_url) if settings.key_set_url else None,
        origin=settings.origin,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
    )


def _lifespan(
    host: Host, database: Database, tokens: TokenVerifier, limiter: RateLimiter | None, *, is_alone: bool
) -> Callable[[Any], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        attempted = asyncio.Event()
        migration = asyncio.create_task(_migrate(host, database, attempted))
        sweep = asyncio.create_task(_sweep(host, database))
        watch = asyncio.create_task(_watch(database))
        if tokens.key_set:
            await tokens.key_set.refresh()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(attempted.wait(), START_TIMEOUT)
        if is_alone:
            gc.freeze()
            gc.enable()
        yield
        migration.cancel()
        sweep.cancel()
        watch.cancel()
        if limiter:
            await limiter.close()
        await host.run(database.dispose)

    return lifespan


async def _migrate(host: Host, database: Database, attempted: asyncio.Event) -> None:
    """Bring the schema up to date, as soon as the database can be reached; tell when that has been tried once."""
    while True:
        try:
            await host.run(database.migrate)
            await host.run(database.check)
            return
        except RoleUnbound as error:
            logger.error("no task is served: %s", error)
            return
        except DatabaseUnavailable as error:
            logger.warning("the database is not in order, trying again: %s", error)
        except Exception:
            logger.exception("the migration failed, trying again")
        finally:
            attempted.set()
        await asyncio.sleep(RETRY_INTERVAL)


async def _watch(database: Database) -> None:
    """Give up statements that a silent database does not answer."""
    while True:
        await asyncio.sleep(WATCH_INTERVAL)
        database.cut_silent()


async def _sweep(host: Host, database: Database) -> None:
    """Erase expired idempotency keys from time to time."""
    while True:
        await asyncio.sleep(SWEEP_INTERVAL)
        try:
            while await host.run(idempotency.sweep, database) == idempotency.SWEEP_SIZE:
                pass
        except Exception as error:
            logger.warning("expired idempotency keys were not erased, trying again later: %s", error)

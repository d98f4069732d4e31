"""Connexion's border: the only place that knows its classes, and its untyped dictionary of a request's context.

Connexion finds the handlers, asks for the token and catches errors. What it learns of a request is put into the typed
`Request` at once; what it is told is read from there.
"""

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import anyio.to_thread
import flask
from connexion import context
from connexion.apps.abstract import AbstractApp
from connexion.apps.asynchronous import AsyncApp
from connexion.apps.flask import FlaskApp
from connexion.lifecycle import ConnexionRequest, ConnexionResponse
from connexion.middleware.abstract import ROUTING_CONTEXT
from connexion.middleware.context import ContextMiddleware
from connexion.middleware.routing import RoutingMiddleware
from connexion.resolver import Resolver
from connexion.utils import get_function_from_name
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.encoding import to_json
from handlers.me import Stream
from models.caller import Caller
from openapi.binding import Binding
from openapi.contract import Contract
from openapi.problems import MEDIA_TYPE, problem_for
from openapi.request import Request
from postgres.greenlets import run_in_greenlet
from tokens.verifier import Claims

JSON: Final = "application/json"
logger = logging.getLogger(__name__)
find_handler: Final[Callable[[str], Callable[..., Any]]] = get_function_from_name


async def bearer_info(token: str, request: ConnexionRequest) -> Claims:
    """Return who the token is from; the contract's `x-bearerInfoFunc`.

    Raises InvalidToken, KeysUnavailable.
    """
    return await Request.of(request.scope).services.tokens.verify(token)


# Connexion asks for it twice with every request, and it takes time to find out.
bearer_info.__signature__ = inspect.signature(bearer_info)  # type: ignore[attr-defined]


class Routing(RoutingMiddleware):
    """Hands the operation that `PathAndMethod` has found to Connexion, which would search for it once more."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route one request."""
        request = Request.of(scope)
        scope["path_params"] = request.match.parameters if request.match else {}
        routing = {"api_base_path": "", "operation_id": request.operation.handler}
        scope.setdefault("extensions", {})[ROUTING_CONTEXT] = routing
        await self.app(scope, receive, send)


class Identification:
    """Takes the caller out of Connexion's context, right behind the check of the token, before anything is added."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Identify the caller of one request, if there is one."""
        claims: Claims | None = ConnexionRequest(scope).context.get("token_info")
        if claims:
            Request.of(scope).caller = Caller(claims["sub"], claims["email"], claims["name"])
        await self.app(scope, receive, send)


async def answer_error(request: ConnexionRequest, error: Exception) -> ConnexionResponse:
    """Return the response to an error; the one error handler of the application."""
    problem, request_id = problem_for(error), Request.of(request.scope).id
    if problem.status == 500:
        logger.error("request %s failed", request_id, exc_info=error)
    elif problem.status == 503:
        logger.warning("request %s: %s", request_id, error)
    body, headers = problem.body(request_id), dict(problem.headers)
    return ConnexionResponse(problem.status, content_type=MEDIA_TYPE, mimetype=MEDIA_TYPE, body=body, headers=headers)


class CallHandler:
    """Calls the handlers in the event loop, in the place of Connexion's, which looks for their arguments each time."""

    def __init__(self, _app: ASGIApp, *, contract: Contract) -> None:
        self.bindings = {one.id: Binding(find_handler(one.handler)) for one in contract.operations}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request.of(scope)
        # A handler is a plain function; in a greenlet it can wait for the database without holding the loop.
        answer = await run_in_greenlet(self.bindings[request.operation.id].call, request)
        if not isinstance(answer, Response):
            content, status, headers = answer_parts(answer)
            answer = Response(content, status, headers, None if content is None else JSON)
        await answer(scope, receive, send)


def _find_view(name: str) -> Callable[..., flask.Response]:
    """Return the handler with a dotted name as a view of Flask's."""
    binding = Binding(find_handler(name))

    def view(**_arguments: Any) -> flask.Response:  # which are Connexion's; the binding has its own
        request: Request = context.scope[Request.KEY]
        answer = binding.call(request)
        if isinstance(answer, flask.Response):
            return answer
        content, status, headers = answer_parts(answer)
        return flask.Response(content, status, headers, content_type=JSON)

    return view


def answer_parts(answer: Any) -> tuple[bytes | None, int, dict[str, str]]:
    """Return body, status and headers of what a handler returned."""
    content, status, headers = (*answer, {})[:3] if isinstance(answer, tuple) else (answer, 200, {})
    return None if content is None else to_json(content), status, headers


def _asgi_stream(content: Iterator[bytes], headers: dict[str, str]) -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        while chunk := await run_in_greenlet(next, content, b""):
            yield chunk

    return StreamingResponse(chunks(), media_type=JSON, headers=headers)


def _wsgi_stream(content: Iterator[bytes], headers: dict[str, str]) -> flask.Response:
    return flask.Response(content, mimetype=JSON, headers=headers)


class Host(NamedTuple):
    """What the handlers run under: the makings of Connexion's application, and the streamed response that it takes.

    `run` runs a function that waits for the database. `threads` is how many a host has of its own, each taken until its
    response is sent; None for a host whose handlers wait in the event loop.
    """

    app: type[AbstractApp]
    resolver: Resolver
    innermost: Callable[[Contract], Callable[[ASGIApp], ASGIApp]]  # the middleware that leads to the handlers
    stream: Stream
    run: Callable[..., Awaitable[Any]]
    threads: int | None = None


HOSTS: Final = {
    "asgi": Host(
        AsyncApp, Resolver(), lambda contract: partial(CallHandler, contract=contract), _asgi_stream, run_in_greenlet
    ),
    "flask": Host(
        FlaskApp,
        Resolver(_find_view),
        lambda _contract: ContextMiddleware,
        _wsgi_stream,
        anyio.to_thread.run_sync,
        threads=10,
    ),
}

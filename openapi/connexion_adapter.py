"""Connexion's border: the only module that knows its classes and the untyped dictionary of its request context.

Connexion finds the handlers, asks for the token and catches errors. Everything it learns about a request goes into the
typed `Request` at once.
"""

import inspect
import logging
import re
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
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.encoding import to_json
from handlers.me import Stream
from models.caller import Caller
from openapi.binding import Binding
from openapi.contract import Contract
from openapi.problems import MEDIA_TYPE, problem_for
from openapi.request import Request
from postgres.greenlets import run_in_greenlet
from tokens.verifier import NOT_READABLE, Claims, InvalidToken

JSON: Final = "application/json"
CREDENTIALS: Final = re.compile("[A-Za-z]+ +[!-~]")  # RFC 9110, section 11.4
logger = logging.getLogger(__name__)
find_handler: Final[Callable[[str], Callable[..., Any]]] = get_function_from_name


async def bearer_info(token: str, request: ConnexionRequest) -> Claims:
    """Return the claims of a token; the contract's `x-bearerInfoFunc`. Raises InvalidToken, KeysUnavailable.

    Connexion separates scheme and token at any blank that Unicode knows.
    """
    if not CREDENTIALS.match(request.headers["authorization"]):
        raise InvalidToken(NOT_READABLE)
    return await Request.of(request.scope).services.tokens.verify(token)


# Connexion reads the signature twice in every request, and computing it takes time.
bearer_info.__signature__ = inspect.signature(bearer_info)  # type: ignore[attr-defined]


class Routing(RoutingMiddleware):
    """Hands Connexion the operation that `PathAndMethod` has found, so that it does not search again."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route a request."""
        request = Request.of(scope)
        scope["path_params"] = request.match.parameters if request.match else {}
        routing = {"api_base_path": "", "operation_id": request.operation.handler}
        scope.setdefault("extensions", {})[ROUTING_CONTEXT] = routing
        await self.app(scope, receive, send)


class Identification:
    """Takes the caller out of Connexion's context right after the token is verified, before anything is added to it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set the caller of a request, if there is one."""
        claims: Claims | None = ConnexionRequest(scope).context.get("token_info")
        if claims:
            Request.of(scope).caller = Caller(claims["sub"], claims["email"], claims["name"])
        await self.app(scope, receive, send)


async def answer_error(request: ConnexionRequest, error: Exception) -> ConnexionResponse:
    """Return the response to an error; the application's only error handler."""
    problem, request_id = problem_for(error), Request.of(request.scope).id
    if problem.status == 500:
        logger.error("request %s failed", request_id, exc_info=error)
    elif problem.status == 503:
        logger.warning("request %s: %s", request_id, error)
    body, headers = problem.body(request_id), dict(problem.headers)
    return ConnexionResponse(problem.status, content_type=MEDIA_TYPE, mimetype=MEDIA_TYPE, body=body, headers=headers)


class CallHandler:
    """Calls the handlers in the event loop; Connexion would look up their arguments in every request."""

    def __init__(self, _app: ASGIApp, *, contract: Contract) -> None:
        self.bindings = {one.id: Binding(find_handler(one.handler)) for one in contract.operations}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the handler of a request, and send the response."""
        request = Request.of(scope)
        # In a greenlet a plain function can wait for the database without blocking the event loop.
        result = await run_in_greenlet(self.bindings[request.operation.id].call, request)
        if not isinstance(result, Response):
            content, status, headers = _response_parts(result)
            result = Response(content, status, headers, None if content is None else JSON)
        await result(scope, receive, send)


class WholeAnswers(ContextMiddleware):
    """Joins the end of an answer to its last part, so that a client that does not read it holds nothing of the host.

    a2wsgi sends the end by itself, and would wait until everything before it is taken.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        held: Message | None = None

        async def send_joined(message: Message) -> None:
            nonlocal held
            is_part = message["type"] == "http.response.body"
            if held and is_part and not message.get("body") and not message.get("more_body"):
                held["more_body"] = False
                message, held = held, None
            elif held:
                part, held = held, None
                await send(part)
            if is_part and message.get("more_body"):
                held = message
            else:
                await send(message)

        await super().__call__(scope, receive, send_joined)


class CallPublicHandler(WholeAnswers):
    """Calls in the event loop what anybody may call, so that it waits for no thread; Flask calls the rest."""

    def __init__(self, app: ASGIApp, *, contract: Contract) -> None:
        super().__init__(app)
        self.public = CallHandler(app, contract=contract)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the handler of a request, or let Flask do so."""
        call = self.public if Request.of(scope).caller is None else super().__call__
        await call(scope, receive, send)


def _find_view(name: str) -> Callable[..., flask.Response]:
    """Return the handler with a dotted name as a Flask view."""
    binding = Binding(find_handler(name))

    def view(**_arguments: Any) -> flask.Response:  # Connexion's arguments; the binding finds its own
        request: Request = context.scope[Request.KEY]
        result = binding.call(request)
        if isinstance(result, flask.Response):
            return result
        content, status, headers = _response_parts(result)
        return flask.Response(content, status, headers, content_type=JSON)

    return view


def _response_parts(result: Any) -> tuple[bytes | None, int, dict[str, str]]:
    """Return body, status and headers for a handler's result."""
    content, status, headers = (*result, {})[:3] if isinstance(result, tuple) else (result, 200, {})
    return None if content is None else to_json(content), status, headers


def _asgi_stream(content: Iterator[bytes], headers: dict[str, str]) -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        while chunk := await run_in_greenlet(next, content, b""):
            yield chunk

    return StreamingResponse(chunks(), media_type=JSON, headers=headers)


def _wsgi_stream(content: Iterator[bytes], headers: dict[str, str]) -> flask.Response:
    return flask.Response(content, mimetype=JSON, headers=headers)


class Host(NamedTuple):
    """What the handlers run under: the parts of a Connexion application, and its kind of streamed response.

    `run` runs a function that waits for the database. `threads` counts the host's own threads, each held until its
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
        lambda contract: partial(CallPublicHandler, contract=contract),
        _wsgi_stream,
        anyio.to_thread.run_sync,
        threads=10,
    ),
}

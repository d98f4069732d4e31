"""What every request passes on its way in and every answer on its way out, whatever the operation."""

import asyncio
import logging
import re
import secrets
import time
from typing import Any, Final

from connexion.lifecycle import ConnexionRequest
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import DatabaseUnavailable
from openapi.contract import Contract, Endpoint, Route
from openapi.problems import NO_PATH, InputError, Problem, bad_input

logger = logging.getLogger(__name__)
access_log = logging.getLogger("tasks_api.access")

QUEUE_TIMEOUT: Final = 2  # seconds
MAX_TARGET: Final = 8 * 1024  # bytes of path and query
MAX_HEADERS: Final = 32 * 1024  # bytes of all names and values
MAX_HEADER_COUNT: Final = 100
MAX_BODY: Final = 64 * 1024  # bytes
BODY_TIMEOUT = 30  # seconds
COMPRESSED_SIZE: Final = 1024  # bytes
COMPRESSION_LEVEL: Final = 4  # more takes twice the time for a few percent
HSTS: Final = "max-age=31536000"  # a year; subdomains are not this service's to decide on
CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f]")
# A second one would have two readers of a request see two requests.
SINGLE_HEADERS: Final = ("Host", "Authorization", "Content-Type")
SANE_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestContext:
    """Gives the request its id and its context, and logs one line when it is answered.

    What stands in `context` reaches each handler that names it as an argument. What the middlewares put into its
    `answer_headers` is set on the answer, an error's too.
    """

    def __init__(self, app: ASGIApp, *, contract: Contract, context: dict[str, Any]) -> None:
        self.app = app
        self.contract = contract
        self.context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":  # a WebSocket; uvicorn is told to know none
            await send({"type": "websocket.close"})
            return
        started = time.perf_counter()
        request_id = Headers(scope=scope).get("x-request-id", "")
        if not SANE_REQUEST_ID.fullmatch(request_id):
            request_id = secrets.token_hex(8)
        context = ConnexionRequest(scope).context
        route = self.contract.route(scope["path"])
        answer_headers = _security_headers(scope)
        context.update(self.context, request_id=request_id, route=route, answer_headers=answer_headers)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers.update(answer_headers)
                if status in (204, 304):
                    del headers["Content-Type"]  # Flask gives one to what has no content
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            if not status:
                raise
            # The answer has begun, so that it can only break off; the server does that for want of its end.
            _log_break(request_id, error)
        finally:
            access_log.info(
                "%s %s %s %.1fms user=%r request=%s",
                scope["method"],
                route.endpoint.template if route else "-",
                status,
                (time.perf_counter() - started) * 1000,
                context.get("user"),
                request_id,
            )


def _log_break(request_id: str, error: Exception) -> None:
    cause = error.__cause__ or error  # Starlette wraps what comes too late for an answer of its own
    is_fault = not isinstance(cause, DatabaseUnavailable)
    logger.error("request %s: the answer broke off: %s", request_id, cause, exc_info=cause if is_fault else None)


def _security_headers(scope: Scope) -> dict[str, str]:
    headers = {"X-Content-Type-Options": "nosniff"}
    if scope["path"].startswith("/api/"):
        headers["Cache-Control"] = "no-store"
    if scope.get("scheme") == "https":  # of the client's connection to the proxy (FORWARDED_ALLOW_IPS)
        headers["Strict-Transport-Security"] = HSTS
    return headers


class Cors(CORSMiddleware):
    """Cross-origin rules for the frontends (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

    def __init__(self, app: ASGIApp, *, contract: Contract, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_credentials=True,
            allow_methods=sorted({method for endpoint in contract.endpoints for method in endpoint.operations}),
            allow_headers=contract.request_headers,
            expose_headers=contract.response_headers,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer 204 with what is allowed; the browser draws the conclusion."""
        response = super().preflight_response(request_headers)
        if response.status_code != 200 and "Access-Control-Allow-Origin" in response.headers:
            del response.headers["Access-Control-Allow-Origin"]
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return Response(status_code=204, headers=headers)


class Compression(GZipMiddleware):
    """Compresses what is larger than COMPRESSED_SIZE, for clients that ask for it.

    Answers with an entity tag are left as they are: a compressed one would need a tag of its own (RFC 9110, section
    8.8.3.3), and it is the version of a task, which is small.
    """

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, minimum_size=COMPRESSED_SIZE, compresslevel=COMPRESSION_LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if _is_compressible(scope):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _is_compressible(scope: Scope) -> bool:
    route: Route | None = ConnexionRequest(scope).context["route"]
    if route is None:
        return bool(scope["path"].startswith("/openapi."))
    answers = route.endpoint.operations.get(scope["method"], {}).get("responses", {})
    return "ETag" not in answers.get("200", answers.get("201", {})).get("headers", {})


class HeadGuard:
    """Refuses a head that is too large or ambiguous, before anything else looks at it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check target and headers of one request.

        Raises Problem (400, 414, 431).
        """
        if len(scope.get("raw_path", b"")) + len(scope.get("query_string", b"")) > MAX_TARGET:
            raise Problem(414, "target_too_long", f"Path and query are longer than {MAX_TARGET} bytes.")
        if len(scope["headers"]) > MAX_HEADER_COUNT:
            raise Problem(431, "headers_too_large", f"There are more than {MAX_HEADER_COUNT} headers.")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADERS:
            raise Problem(431, "headers_too_large", f"The headers are larger than {MAX_HEADERS} bytes.")
        _check_single_headers(scope)
        await self.app(scope, receive, send)


def _check_single_headers(scope: Scope) -> None:
    names = [name for name, _ in scope["headers"]]
    for name in SINGLE_HEADERS:
        if names.count(name.lower().encode()) > 1:
            raise bad_input(InputError("header", f"/{name}", "is given more than once"))
    if scope.get("http_version") == "1.1" and b"host" not in names:  # RFC 9112, section 3.2
        raise bad_input(InputError("header", "/Host", "is missing"))


class Guard:
    """Refuses what the contract has no place for, before Connexion routes it: one rule for both hosts."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check path, method, headers and size of one request.

        Raises Problem (400, 404, 405, 408, 413, 415).
        """
        route: Route | None = ConnexionRequest(scope).context["route"]
        if route is None:
            raise NO_PATH
        endpoint = route.endpoint
        if scope["method"] == "OPTIONS":
            await Response(status_code=204, headers={"Allow": endpoint.allow})(scope, receive, send)
            return
        if scope["method"] not in endpoint.operations:
            detail = f"This path allows {endpoint.allow}."
            raise Problem(405, "method_not_allowed", detail, {"Allow": endpoint.allow})
        if CONTROL_CHARACTER.search(scope["path"]):  # the routers disagree on where a line ends
            raise bad_input(InputError("path", "", "has a control character"))
        headers = MutableHeaders(scope=scope)
        # With these Flask's router would look for a WebSocket, and fail; a proxy names the scheme.
        del headers["upgrade"]
        scope["scheme"] = scope["scheme"].replace("ws", "http")
        whole = await _limited(scope, receive, headers)
        if whole is None:
            return
        _check_media_type(endpoint, scope)
        await self.app(scope, whole, send)


async def _limited(scope: Scope, receive: Receive, headers: Headers) -> Receive | None:
    """Read the body, so that nothing behind waits for the client; None if the client left before it was whole.

    A chunked body, which Connexion takes for none, gets its length.
    """
    context = ConnexionRequest(scope).context
    context["content"] = b""
    too_large = Problem(413, "content_too_large", f"The request body is larger than {MAX_BODY} bytes.")
    is_chunked = "transfer-encoding" in headers
    if headers.get("transfer-encoding", "chunked").lower() != "chunked":
        raise bad_input(InputError("header", "/Transfer-Encoding", "must be chunked"))
    length = int(headers.get("content-length", 0))
    if length > MAX_BODY:
        raise too_large
    if not length and not is_chunked:
        return receive
    body = b""
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > MAX_BODY:
                    raise too_large
    except TimeoutError:
        detail = f"The request body was not there after {BODY_TIMEOUT} seconds."
        raise Problem(408, "request_timeout", detail, {"Connection": "close"}) from None
    if is_chunked:
        scope["headers"] = [
            *((name, value) for name, value in scope["headers"] if name != b"transfer-encoding"),
            (b"content-length", str(len(body)).encode()),
        ]
    context["content"] = body
    whole: Message = {"type": "http.request", "body": body, "more_body": False}
    is_read = False

    async def receive_whole() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return whole

    return receive_whole


def _check_media_type(endpoint: Endpoint, scope: Scope) -> None:
    """Hold a body to the media types of the contract, in whatever case, and hand on the contract's spelling."""
    headers = MutableHeaders(scope=scope)
    accepted = endpoint.operations[scope["method"]].get("requestBody", {}).get("content", {})
    if not accepted:
        del headers["content-type"]  # or Connexion would read a form
        return
    if not int(headers.get("content-length", 0)):
        headers["content-type"] = next(iter(accepted))
        return
    media_type, _, parameters = headers.get("content-type", "").partition(";")
    charset = re.fullmatch(r'\s*charset\s*=\s*"?utf-?8"?\s*', parameters, re.IGNORECASE)
    if media_type.strip().lower() not in accepted or (parameters.strip() and not charset):
        raise Problem(415, "unsupported_media_type", f"Send the body as {' or '.join(accepted)} in UTF-8.")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported_media_type", "Send the body as it is, without a content encoding.")
    headers["content-type"] = media_type.strip().lower()


class Queue:
    """Lets `turns` requests at once to the handlers; the others wait, in order, for QUEUE_TIMEOUT at the most.

    A turn lasts until the answer begins, so that a slow reader holds none; with `until_sent`, for a host whose threads
    send the answer, until it has ended. /health needs no turn.
    """

    def __init__(self, app: ASGIApp, *, turns: int, until_sent: bool) -> None:
        self.app = app
        self.turns = asyncio.Semaphore(turns)
        self.until_sent = until_sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request in its turn.

        Raises DatabaseUnavailable.
        """
        if scope["path"] == "/health":
            await self.app(scope, receive, send)
            return
        await self._wait()
        has_begun = False

        async def send_and_pass_on(message: Message) -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                if not self.until_sent:
                    self.turns.release()
            await send(message)

        try:
            await self.app(scope, receive, send_and_pass_on)
        except asyncio.CancelledError:  # the server ends and has waited long enough
            if has_begun:
                raise
            raise DatabaseUnavailable("the server ended before the answer") from None
        finally:
            if self.until_sent or not has_begun:
                self.turns.release()

    async def _wait(self) -> None:
        if not self.turns.locked():
            await self.turns.acquire()
            return
        try:
            async with asyncio.timeout(QUEUE_TIMEOUT):
                await self.turns.acquire()
        except TimeoutError:
            raise DatabaseUnavailable(f"no turn came within {QUEUE_TIMEOUT} s") from None

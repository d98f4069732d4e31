"""The body of a request: read whole, within its limits, and of a media type that the operation accepts."""

import asyncio
import re
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openapi.problems import Code, InputError, Problem, ProblemError, bad_input
from openapi.request import Request

MAX_BODY: Final = 64 * 1024  # bytes
BODY_TIMEOUT = 30  # seconds
UTF_8: Final = re.compile(r'\s*charset\s*=\s*"?utf-?8"?\s*', re.IGNORECASE)


class RequestBody:
    """Reads the whole body first, so that a slow client holds no slot and no connection."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body of a request. Raises ProblemError (400, 408, 413, 415)."""
        request, headers = Request.of(scope), MutableHeaders(scope=scope)
        is_chunked = "transfer-encoding" in headers
        if headers.get("transfer-encoding", "chunked").lower() != "chunked":
            raise bad_input(InputError("header", "/Transfer-Encoding", "must be chunked"))
        length = int(headers.get("content-length", 0))
        if length > MAX_BODY:
            raise _too_large()
        if length or is_chunked:
            body = await read_body(receive)
            if body is None:
                return  # the client has left
            request.content = body
            receive = _replay(body, receive)
        if is_chunked:  # Connexion would see no body
            del headers["transfer-encoding"]
            headers["content-length"] = str(len(request.content))
        _check_media_type(list(request.operation.bodies), headers, request.content)
        await self.app(scope, receive, send)


async def read_body(receive: Receive) -> bytes | None:
    """Return the whole body; None if the client disconnects first. Raises ProblemError (408, 413)."""
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
                    raise _too_large()
    except TimeoutError:
        detail = f"The request body was not there after {BODY_TIMEOUT} seconds."
        raise ProblemError(Problem(408, Code.REQUEST_TIMEOUT, detail, {"Connection": "close"})) from None
    return body


def _too_large() -> ProblemError:
    return ProblemError(Problem(413, Code.CONTENT_TOO_LARGE, f"The request body is larger than {MAX_BODY} bytes."))


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that starts with the body."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _check_media_type(accepted: list[str], headers: MutableHeaders, content: bytes) -> None:
    """Check the media type of a body, whatever its case, and pass it on in the contract's spelling."""
    if not accepted:
        del headers["content-type"]  # or Connexion would parse a form
        return
    if not content:
        headers["content-type"] = accepted[0]
        return
    media_type, _, parameters = headers.get("content-type", "").partition(";")
    if media_type.strip().lower() not in accepted or (parameters.strip() and not UTF_8.fullmatch(parameters)):
        raise _unsupported(f"Send the body as {' or '.join(accepted)} in UTF-8.")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise _unsupported("Send the body as it is, without a content encoding.")
    headers["content-type"] = media_type.strip().lower()


def _unsupported(detail: str) -> ProblemError:
    return ProblemError(Problem(415, Code.UNSUPPORTED_MEDIA_TYPE, detail))

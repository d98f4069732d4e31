"""The id and the typed state of a request."""

import re
import secrets
from typing import Final
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openapi.contract import Contract, canonical_path
from openapi.request import Request, Services

ASCII: Final = "/:@!$&'()*+,;="  # of a path, besides what `quote` never encodes (RFC 3986, section 3.3)
SANE_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestContext:
    """Puts a `Request` into the scope, and its `response_headers` on the response.

    From here on the scope's path is the canonical one, so that everything that looks at it sees the same, and nothing
    that is encoded in it is taken for a part of a fixed path.
    """

    def __init__(self, app: ASGIApp, *, contract: Contract, services: Services) -> None:
        self.app = app
        self.contract = contract
        self.services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":  # a WebSocket; our uvicorn accepts none
            await send({"type": "websocket.close"})
            return
        request_id = Headers(scope=scope).get("x-request-id", "")
        if not SANE_REQUEST_ID.fullmatch(request_id):
            request_id = secrets.token_hex(8)
        scope["path"] = _path(scope)
        request = Request(request_id, self.contract.match(scope["path"]), self.services)
        request.response_headers["X-Request-Id"] = request_id
        scope[Request.KEY] = request

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(request.response_headers)
                if request.status in (204, 304):
                    del headers["Content-Type"]  # Flask sets one even without content
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _path(scope: Scope) -> str:
    raw_path: bytes | None = scope.get("raw_path")  # which a server may leave out
    return canonical_path(quote(scope["path"], ASCII) if raw_path is None else raw_path.decode("latin-1"))

"""Compression of large responses, for clients that ask for it."""

from typing import Final

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from openapi.request import Request

MINIMUM_SIZE: Final = 1024  # bytes
LEVEL: Final = 4  # more takes twice the time for a few percent


class Compression(GZipMiddleware):
    """Compresses what is larger than MINIMUM_SIZE.

    Responses with an entity tag are left as they are: a compressed one would need a tag of its own (RFC 9110, section
    8.8.3.3), and it is the version of a task, which is small.
    """

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, minimum_size=MINIMUM_SIZE, compresslevel=LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if _is_compressible(scope):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _is_compressible(scope: Scope) -> bool:
    match = Request.of(scope).match
    if match is None:
        return bool(scope["path"].startswith("/openapi."))
    operation = match.path_item.operations.get(scope["method"])
    return operation is None or not operation.has_entity_tag

"""Compression of large responses for clients that accept it."""

from typing import Final

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from openapi.request import Request

MINIMUM_SIZE: Final = 1024  # bytes
LEVEL: Final = 4  # a higher level takes twice the time for a few percent


class Compression(GZipMiddleware):
    """Compresses responses of at least MINIMUM_SIZE.

    Those with an entity tag stay as they are: compressed, they would need a tag of their own (RFC 9110, section
    8.8.3.3), and each is a single task, which is small.
    """

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, minimum_size=MINIMUM_SIZE, compresslevel=LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        serve = super().__call__ if _is_compressible(scope) else self.app
        await serve(scope, receive, send)


def _is_compressible(scope: Scope) -> bool:
    match = Request.of(scope).match
    if match is None:
        return bool(scope["path"].startswith("/openapi."))
    operation = match.path_item.operations.get(scope["method"])
    return operation is None or not operation.has_entity_tag

"""Compression of large responses for clients that accept it."""

from functools import lru_cache
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipResponder, IdentityResponder
from starlette.types import ASGIApp, Receive, Scope, Send
from werkzeug.datastructures import Accept
from werkzeug.http import parse_accept_header

from openapi.request import Request

MINIMUM_SIZE: Final = 1024  # bytes
ALIASES: Final = ("gzip", "x-gzip")  # the same (RFC 9110, section 8.4.1.3)
LEVEL: Final = 4  # a higher level takes twice the time for a few percent


class Compression:
    """Compresses responses of at least MINIMUM_SIZE.

    Those with an entity tag stay as they are: compressed, they would need a tag of their own (RFC 9110, section
    8.8.3.3), and each is a single task, which is small.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if not _is_compressible(scope):
            await self.app(scope, receive, send)
        elif accepts_gzip(",".join(Headers(scope=scope).getlist("Accept-Encoding"))):
            await GZipResponder(self.app, MINIMUM_SIZE, LEVEL)(scope, receive, send)
        else:
            await IdentityResponder(self.app, MINIMUM_SIZE)(scope, receive, send)


@lru_cache(maxsize=64)
def accepts_gzip(accept_encoding: str) -> bool:
    """Tell whether a client takes gzip, and not rather an answer as it is (RFC 9110, section 12.5.3)."""
    accepted = parse_accept_header(accept_encoding, Accept)
    named = {name.lower() for name in accepted.values()}
    quality = max(accepted.quality(name) for name in named.intersection(ALIASES) or ALIASES)
    return quality > 0 and ("identity" not in named or quality >= accepted.quality("identity"))


def _is_compressible(scope: Scope) -> bool:
    match = Request.of(scope).match
    if match is None:
        return bool(scope["path"].startswith("/openapi."))
    operation = match.path_item.operations.get(scope["method"])
    return operation is None or not operation.has_entity_tag

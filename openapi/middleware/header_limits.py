"""Limits of a request's target and headers, and headers that are ambiguous."""

import re
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from openapi.problems import Code, InputError, Problem, ProblemError, bad_input

MAX_TARGET: Final = 8 * 1024  # bytes of path and query
MAX_HEADERS: Final = 32 * 1024  # bytes of all names and values
MAX_HEADER_COUNT: Final = 100
# Repeated, these could mean one request to a proxy and another to this service.
SINGLE_HEADERS: Final = ("Host", "Authorization", "Content-Type")
# RFC 3986, section 3.2.2. A comma is refused: it would be a list to others, and no name has one.
HOST: Final = re.compile(
    rb"(\[(?P<address>[0-9A-Fa-f:.]+)\]|([A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+)(:[0-9]{0,5})?|"
)


class HeaderLimits:
    """Refuses targets and headers that are too large, and ambiguous headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the target and headers of a request. Raises ProblemError (400, 414, 431)."""
        if len(scope.get("raw_path", b"")) + len(scope.get("query_string", b"")) > MAX_TARGET:
            detail = f"Path and query are longer than {MAX_TARGET} bytes."
            raise ProblemError(Problem(414, Code.TARGET_TOO_LONG, detail))
        if len(scope["headers"]) > MAX_HEADER_COUNT:
            raise _too_large(f"There are more than {MAX_HEADER_COUNT} headers.")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADERS:
            raise _too_large(f"The headers are larger than {MAX_HEADERS} bytes.")
        names = [name for name, _ in scope["headers"]]
        for name in SINGLE_HEADERS:
            if names.count(name.lower().encode()) > 1:
                raise bad_input(InputError("header", f"/{name}", "is given more than once"))
        _check_host(scope)
        await self.app(scope, receive, send)


def _check_host(scope: Scope) -> None:
    """Check the Host header (RFC 9112, section 3.2). Raises ProblemError (400)."""
    host = next((value for name, value in scope["headers"] if name == b"host"), None)
    if host is None:
        if scope.get("http_version") == "1.1":
            raise bad_input(InputError("header", "/Host", "is missing"))
    elif not is_host(host):
        raise bad_input(InputError("header", "/Host", "is not a host with an optional port"))


@lru_cache(maxsize=64)
def is_host(value: bytes) -> bool:
    """Tell whether a value of `Host` is a host with an optional port (RFC 9110, section 7.2)."""
    found = HOST.fullmatch(value)
    if not found or not found["address"]:
        return found is not None
    try:
        IPv6Address(found["address"].decode())
    except ValueError:
        return False
    return True


def _too_large(detail: str) -> ProblemError:
    return ProblemError(Problem(431, Code.HEADERS_TOO_LARGE, detail))

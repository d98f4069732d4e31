"""Limits of a request's target and headers."""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from openapi.problems import Code, InputError, Problem, ProblemError, bad_input

MAX_TARGET: Final = 8 * 1024  # bytes of path and query
MAX_HEADERS: Final = 32 * 1024  # bytes of all names and values
MAX_HEADER_COUNT: Final = 100
# Repeated, these could mean one request to a proxy and another to this service.
SINGLE_HEADERS: Final = ("Host", "Authorization", "Content-Type")


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
        if scope.get("http_version") == "1.1" and b"host" not in names:  # RFC 9112, section 3.2
            raise bad_input(InputError("header", "/Host", "is missing"))
        await self.app(scope, receive, send)


def _too_large(detail: str) -> ProblemError:
    return ProblemError(Problem(431, Code.HEADERS_TOO_LARGE, detail))

"""Refusal of paths and methods that are not in the contract: one rule for both hosts, before Connexion routes."""

import re
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from openapi.problems import NO_PATH, Code, InputError, Problem, ProblemError, bad_input
from openapi.request import Request

CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f]")
NO_ESCAPE: Final = re.compile("%(?![0-9A-F]{2})")
LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class PathAndMethod:
    """Finds the operation of a request, answers OPTIONS, and refuses everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the path and method of a request. Raises ProblemError (400, 404, 405)."""
        request = Request.of(scope)
        match = request.match
        if match is None:
            raise ProblemError(NO_PATH)
        allow = {"Allow": match.path_item.allow}
        if scope["method"] == "OPTIONS":
            await Response(status_code=204, headers=allow)(scope, receive, send)
            return
        if scope["method"] not in match.path_item.operations:
            detail = f"This path allows {match.path_item.allow}."
            raise ProblemError(Problem(405, Code.METHOD_NOT_ALLOWED, detail, allow))
        _check(scope["path"], match.parameters)
        request.operation = match.path_item.operations[scope["method"]]
        # Either would make Flask's router look for a WebSocket and fail; a proxy may set the scheme.
        del MutableHeaders(scope=scope)["upgrade"]
        scope["scheme"] = scope["scheme"].replace("ws", "http")
        await self.app(scope, receive, send)


def _check(path: str, parameters: dict[str, str]) -> None:
    decoded = "/".join(parameters.values())
    if NO_ESCAPE.search(path) or LONE_SURROGATE.search(decoded):
        raise bad_input(InputError("path", "", "is not percent-encoded UTF-8"))
    if CONTROL_CHARACTER.search(decoded):
        raise bad_input(InputError("path", "", "has a control character"))

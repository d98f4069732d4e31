"""The documentation: Swagger UI 5 at `/docs` and the contract at `/openapi.json` and `/openapi.yaml`.

The files of Swagger UI come from the package `flask-swagger-ui`; no other host is asked for anything.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import orjson
import yaml
from starlette.datastructures import MutableHeaders
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from openapi.contract import Contract
from openapi.middleware.path_and_method import CONTROL_CHARACTER
from openapi.problems import NO_PATH, ProblemError
from openapi.request import Request

Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the same in C, where PyYAML was built with it
PAGE: Final = Path(__file__).parent / "swagger_ui"
Respond = Callable[[HttpRequest], Awaitable[Response]]

PREFIXES: Final = ("/docs", "/openapi.")
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


class Documentation:
    """Serves the documentation in front of the API."""

    def __init__(self, app: ASGIApp, *, contract: Contract) -> None:
        self.app = app
        as_json = orjson.dumps(contract.public)
        as_yaml = yaml.dump(contract.public, Dumper=Dumper, sort_keys=False, allow_unicode=True).encode()
        self.router = Router(
            [
                Route("/docs", _file("index.html")),
                Route("/docs/", _redirect),
                Route("/docs/initializer.js", _file("initializer.js")),
                Mount("/docs/assets", StaticFiles(packages=[("flask_swagger_ui", "dist")])),
                Route("/openapi.json", _content(as_json, "application/json")),
                Route("/openapi.yaml", _content(as_yaml, "application/yaml")),
            ],
            redirect_slashes=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["path"].startswith(PREFIXES):
            if CONTROL_CHARACTER.search(scope["path"]):
                raise ProblemError(NO_PATH)  # a router's `$` does not mind a line feed at the end
            # Whole files only: Starlette answers a bad range in plain text.
            headers = MutableHeaders(scope=scope)
            del headers["range"]
            del headers["if-range"]
            if scope["path"].startswith("/docs"):
                Request.of(scope).response_headers.update(SECURITY_HEADERS)
            await self.router(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _file(name: str) -> Respond:
    async def respond(_request: HttpRequest) -> Response:
        return FileResponse(PAGE / name, headers={"Cache-Control": "no-cache"})

    return respond


def _content(content: bytes, media_type: str) -> Respond:
    async def respond(_request: HttpRequest) -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return respond


async def _redirect(_request: HttpRequest) -> Response:
    return RedirectResponse("../docs")  # relative: the Host header is the client's

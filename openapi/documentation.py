"""The documentation: Swagger UI 5, which loads nothing from other hosts, and the contract as JSON and YAML."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson
import yaml
from starlette.datastructures import MutableHeaders
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from openapi.contract import Contract
from openapi.request import Request

Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # in C if PyYAML was built with it
PAGE: Final = Path(__file__).parent / "swagger_ui"
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
                _route("/docs", FileResponse, PAGE / "index.html"),
                Route("/docs/", _redirect),
                _route("/docs/initializer.js", FileResponse, PAGE / "initializer.js"),
                Mount("/docs/assets", StaticFiles(packages=[("flask_swagger_ui", "dist")])),
                _route("/openapi.json", partial(Response, media_type="application/json"), as_json),
                _route("/openapi.yaml", partial(Response, media_type="application/yaml"), as_yaml),
            ],
            redirect_slashes=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["path"].startswith(PREFIXES):
            # Whole files only: Starlette answers an invalid range in plain text.
            headers = MutableHeaders(scope=scope)
            del headers["range"]
            del headers["if-range"]
            if scope["path"].startswith("/docs"):
                Request.of(scope).response_headers.update(SECURITY_HEADERS)
            await self.router(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _route(path: str, kind: Callable[..., Response], content: Any) -> Route:
    async def respond(_request: HttpRequest) -> Response:
        return kind(content, headers={"Cache-Control": "no-cache"})

    return Route(path, respond)


async def _redirect(_request: HttpRequest) -> Response:
    return RedirectResponse("../docs")  # relative: the Host header is the client's

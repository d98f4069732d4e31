"""Cross-origin rules for the frontends (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from openapi.contract import Contract


class Cors(CORSMiddleware):
    """Starlette's middleware, but preflights only say what is allowed, and the browser decides."""

    def __init__(self, app: ASGIApp, *, contract: Contract, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_credentials=True,
            allow_methods=sorted({method for item in contract.path_items for method in item.operations}),
            allow_headers=contract.request_headers,
            expose_headers=contract.response_headers,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return a 204 that says what is allowed."""
        response = super().preflight_response(request_headers)
        if response.status_code != 200 and "Access-Control-Allow-Origin" in response.headers:
            del response.headers["Access-Control-Allow-Origin"]
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return Response(status_code=204, headers=headers)

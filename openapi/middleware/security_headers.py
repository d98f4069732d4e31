"""Headers that restrict browsers and caches."""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from openapi.request import Request

HSTS: Final = "max-age=31536000"  # a year; subdomains are not ours to decide on


class SecurityHeaders:
    """Sets security headers on every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        headers = Request.of(scope).response_headers
        headers["X-Content-Type-Options"] = "nosniff"
        if scope["path"].startswith("/api/"):
            headers["Cache-Control"] = "no-store"
        if scope.get("scheme") == "https":  # between client and proxy (FORWARDED_ALLOW_IPS)
            headers["Strict-Transport-Security"] = HSTS
        await self.app(scope, receive, send)

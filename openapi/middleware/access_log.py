"""The access log: one line for each request."""

import logging
import time
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from openapi.request import Request
from postgres.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)
access_log: Final = logging.getLogger("tasks_api.access")


class AccessLog:
    """Logs each request when its response has ended, and why a response broke off."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Log a request."""
        started = time.perf_counter()
        request = Request.of(scope)
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            if not request.status:
                raise
            # The response has begun, so it can only break off; the server does that when its end is missing.
            cause = error.__cause__ or error  # Starlette wraps errors that come too late for a response of their own
            traceback = None if isinstance(cause, DatabaseUnavailable) else cause
            logger.error("request %s: the response broke off: %s", request.id, cause, exc_info=traceback)
        finally:
            access_log.info(
                "%s %s %s %.1fms user=%r request=%s",
                scope["method"],
                request.match.path_item.template if request.match else "-",
                request.status,
                (time.perf_counter() - started) * 1000,
                request.caller.id if request.caller else None,
                request.id,
            )

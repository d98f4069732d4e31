"""One line in the log for each request."""

import logging
import time
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from openapi.request import Request
from postgres.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)
access_log: Final = logging.getLogger("tasks_api.access")


class AccessLog:
    """Logs a line when a request is answered, and why when a response broke off."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = time.perf_counter()
        request = Request.of(scope)
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            if not request.status:
                raise
            # The response has begun, so that it can only break off; the server does that for want of its end.
            _log_break(request.id, error)
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


def _log_break(request_id: str, error: Exception) -> None:
    cause = error.__cause__ or error  # Starlette wraps what comes too late for a response of its own
    is_fault = not isinstance(cause, DatabaseUnavailable)
    logger.error("request %s: the answer broke off: %s", request_id, cause, exc_info=cause if is_fault else None)

"""A connection's time limit for requests, and its last answer to what is no request."""

import asyncio
import secrets
from typing import Any, Final

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from openapi.middleware.access_log import access_log
from openapi.problems import MEDIA_TYPE, Code, Problem
from openapi.request import Request
from server.cycles import Cycle

REQUEST_TIMEOUT = 30  # seconds
LINGER: Final = 2  # seconds
MAX_FRAMING: Final = 64 * 1024  # bytes of a request apart from its body; the application has lower limits of its own

NOT_HTTP: Final = Problem(400, Code.BAD_REQUEST, "The request is not valid HTTP/1.1.")
HEAD_TOO_LARGE: Final = Problem(
    431, Code.HEADERS_TOO_LARGE, f"There are too many headers, or more than {MAX_FRAMING} bytes of them."
)
FRAMING_TOO_LARGE: Final = Problem(
    400, Code.BAD_REQUEST, f"The request has more than {MAX_FRAMING} bytes around its body."
)


class Flow(FlowControl):
    """Does not go on reading while bytes are held."""

    is_held = False

    def resume_reading(self) -> None:
        """Go on reading."""
        if not self.is_held:
            super().resume_reading()


class TimedProtocol(HttpToolsProtocol):
    """A connection that is closed when a request takes longer than REQUEST_TIMEOUT to arrive."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timer: asyncio.TimerHandle | None = None
        self.flow: Flow
        self._running: RequestResponseCycle | None = None  # `cycle` is the last one that was read
        self._in_body = False
        self._held = b""  # what waits for the end of an answer
        self._refusal: Problem | None = None
        self._is_refused = False

    @property
    def owner(self) -> str:
        """Whose answer is sent: a user's id, or the peer's address."""
        request: Request | None = self._running.scope.get(Request.KEY) if self._running else None  # type: ignore[assignment]
        return request.caller.id if request and request.caller else str(self.client and self.client[0])

    @property
    def unsent(self) -> int:
        """How many bytes the answer takes up that the client has not taken."""
        whole = self._running.part_size if isinstance(self._running, Cycle) else 0
        return max(whole, self.transport.get_write_buffer_size())

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        self._start_timer()

    def _is_responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(REQUEST_TIMEOUT, self._time_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        self._timer = None
        if self._is_responding():  # the next request may wait for the end of this one
            self._start_timer()
        else:
            self.transport.close()

    def _is_free(self) -> bool:
        return self._running is None or self._running.response_complete

    def _refuse(self, problem: Problem) -> None:
        """Answer with a problem once the requests before are answered, and close the connection."""
        if self._refusal:
            return
        self._refusal = problem
        self._held = b""
        if self._in_body and self.cycle.response_complete:
            self.transport.close()  # this request has its answer
        elif self._in_body and self.cycle is self._running:
            self.cycle.keep_alive = False
            if not self.cycle.response_started:
                self.cycle.disconnected = True  # the application must not respond too
                self.cycle.message_event.set()
                self._write_refusal(problem)
        elif self._is_free() and not self.flow.write_paused:
            self._write_refusal(problem)
        else:
            if self._in_body:
                self.pipeline.popleft()
            self.flow.is_held = True
            self.flow.pause_reading()

    def _write_refusal(self, problem: Problem) -> None:
        if self._is_refused:  # the client has taken a part of it
            return
        self._is_refused = True
        request_id = secrets.token_hex(8)
        body = problem.body(request_id)
        head = (
            f"HTTP/1.1 {problem.status} {problem.title}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\nx-content-type-options: nosniff\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        access_log.info("- - %s 0.0ms user=None request=%s", problem.status, request_id)
        # Closed at once, with bytes unread, the client's machine would throw the answer away (RFC 9112, section 9.6).
        self.transport.write_eof()
        self.flow.is_held = False
        self.flow.resume_reading()
        self._stop_timer()
        self._timer = self.loop.call_later(LINGER, self.transport.close)

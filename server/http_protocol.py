"""What uvicorn leaves open: requests that never end, and errors in plain text."""

import asyncio
import secrets
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from openapi.middleware.access_log import access_log
from openapi.problems import MEDIA_TYPE, Code, Problem

REQUEST_TIMEOUT = 30  # seconds
MAX_HEAD: Final = 128 * 1024  # bytes of request line and headers; the application has a lower limit of its own

NOT_HTTP: Final = Problem(400, Code.BAD_REQUEST, "The request is not valid HTTP/1.1.")
UPGRADE: Final = Problem(400, Code.BAD_REQUEST, "A request with a body cannot ask for another protocol.")
HEAD_TOO_LARGE: Final = Problem(431, Code.HEADERS_TOO_LARGE, f"The headers are larger than {MAX_HEAD} bytes.")


class HttpProtocol(HttpToolsProtocol):
    """A connection that is closed when a request takes longer than `REQUEST_TIMEOUT` to arrive.

    The application times the bodies that it reads, and answers 408.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._head = 0  # bytes of an incomplete head
        self._in_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        self._stop_timer()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        self._start_timer()
        super().data_received(data)
        self._head = self._head + len(data) if self._in_head else 0
        if self._head > MAX_HEAD and not self.transport.is_closing():
            self._refuse(HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        """Wait for the rest of a request."""
        super().on_message_begin()
        self._in_head = True
        self._start_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, but drop trailers (RFC 9110, section 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application."""
        self._in_head = False
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            self._refuse(NOT_HTTP)
        elif self.parser.should_upgrade() and self._has_body():
            # httptools ends such a request at its headers, and would read the body as the next one.
            self._refuse(UPGRADE)
        else:
            super().on_headers_complete()
            if self.expect_100_continue:  # if it is refused, its body never comes
                self.cycle.keep_alive = False

    def _has_body(self) -> bool:
        names = dict(self.headers)
        return names.get(b"content-length", b"0").strip() != b"0" or b"transfer-encoding" in names

    def on_message_complete(self) -> None:
        """Stop waiting until the next request begins."""
        super().on_message_complete()
        self._stop_timer()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer invalid HTTP with a problem, like any other error."""
        self._refuse(NOT_HTTP)

    def _refuse(self, problem: Problem) -> None:
        if self.transport.is_closing():  # already refused
            return
        is_in_body = (
            self._is_responding() and self.cycle.more_body and not self.cycle.response_started and not self.pipeline
        )
        if is_in_body:
            self.cycle.disconnected = True  # the application must not respond too
            self.cycle.message_event.set()
        if is_in_body or not self._is_responding():  # or this would end up inside another response
            request_id = secrets.token_hex(8)
            body = problem.body(request_id)
            head = (
                f"HTTP/1.1 {problem.status} {problem.title}\r\ncontent-type: {MEDIA_TYPE}\r\n"
                f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\nx-content-type-options: nosniff\r\n"
                "connection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            access_log.info("- - %s 0.0ms user=None request=%s", problem.status, request_id)
        self.transport.close()

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

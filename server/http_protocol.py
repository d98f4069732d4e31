"""What uvicorn leaves open below the application: requests that never end, and its own answers in plain text."""

import asyncio
import secrets
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from openapi.middleware.access_log import access_log
from openapi.problems import MEDIA_TYPE, Code, Problem

REQUEST_TIMEOUT = 30  # seconds
MAX_HEAD: Final = 128 * 1024  # bytes that are read of a request line and headers; less is the application's to refuse

NOT_HTTP: Final = Problem(400, Code.BAD_REQUEST, "The request is not valid HTTP/1.1.")
UPGRADE: Final = Problem(400, Code.BAD_REQUEST, "A request with a body cannot ask for another protocol.")
HEAD_TOO_LARGE: Final = Problem(431, Code.HEADERS_TOO_LARGE, f"The headers are larger than {MAX_HEAD} bytes.")


class HttpProtocol(HttpToolsProtocol):
    """One connection. It is closed when a request is not there as a whole within `REQUEST_TIMEOUT`.

    While the application waits for a body, or answers, that is its own business: it answers 408 to one that stalls.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._head = 0  # bytes of a head that is not complete
        self._in_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the first request."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        super().connection_lost(exc)
        self._expect_nothing()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        self._expect()
        super().data_received(data)
        self._head = self._head + len(data) if self._in_head else 0
        if self._head > MAX_HEAD and not self.transport.is_closing():
            self._refuse(HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        """Expect the rest of a request."""
        super().on_message_begin()
        self._in_head = True
        self._expect()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one behind the body is none (RFC 9110, section 6.5.1), and is not taken for one."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application."""
        self._in_head = False
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            self._refuse(NOT_HTTP)
        elif self.parser.should_upgrade() and self._has_body():
            # httptools ends such a request at its headers and would take the body for the next one.
            self._refuse(UPGRADE)
        else:
            super().on_headers_complete()
            if self.expect_100_continue:  # refused, its body never comes, and what comes next is not that body
                self.cycle.keep_alive = False

    def _has_body(self) -> bool:
        names = dict(self.headers)
        return names.get(b"content-length", b"0").strip() != b"0" or b"transfer-encoding" in names

    def on_message_complete(self) -> None:
        """Expect nothing until the next request begins."""
        super().on_message_complete()
        self._expect_nothing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer invalid HTTP with a problem, like any other error."""
        self._refuse(NOT_HTTP)

    def _refuse(self, problem: Problem) -> None:
        if self.transport.is_closing():  # refused already
            return
        is_in_body = self._is_in_unanswered_body()
        if is_in_body:
            self.cycle.disconnected = True  # the application has nothing more to say
            self.cycle.message_event.set()
        if is_in_body or not self._is_answering():  # else this would end up within the answer
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

    def _is_in_unanswered_body(self) -> bool:
        return self._is_answering() and self.cycle.more_body and not self.cycle.response_started and not self.pipeline

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]

    def _expect(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(REQUEST_TIMEOUT, self._time_is_over)

    def _expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_over(self) -> None:
        self._timer = None
        if self._is_answering():  # the next request may wait for the end of this one
            self._expect()
        else:
            self.transport.close()

"""A connection: what uvicorn leaves open in time, memory and the reading of HTTP."""

import asyncio
from typing import Any, Final
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from openapi.middleware.header_limits import MAX_HEADER_COUNT
from server.cycles import Cycle, OldHttpCycle
from server.timed_protocol import FRAMING_TOO_LARGE, HEAD_TOO_LARGE, MAX_FRAMING, NOT_HTTP, TimedProtocol
from server.unsent import UnsentAnswers

CHUNK_FRAMING: Final = 16  # bytes of each chunk that do not count: its size and line ends
MAX_DROPPED: Final = 1000  # headers
MAX_UNREAD: Final = 1024 * 1024  # bytes that are thrown away after an answer, so that the client gets to read it
KEEP_ALIVE_GRACE: Final = 1  # second more than is told, so that a request at the last moment is still answered
CONNECTION_FIELDS: Final = (b"connection", b"proxy-connection")
# The parser cannot be stopped within what it is given, so it gets a little at a time.
SLICE: Final = 1024  # bytes


class HttpProtocol(TimedProtocol):
    """A connection on which requests are read and answered one after the other.

    It is closed when a request takes longer than REQUEST_TIMEOUT to arrive, has more than MAX_FRAMING bytes that are
    not its body, or when its answer is not read (`UnsentAnswers`). While a request is answered, the next ones wait
    unread. The application times the bodies that it reads, and answers 408.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.stalled: tuple[float, int] | None = None
        self._unsent = UnsentAnswers.of(self.server_state)
        self._framing = 0  # bytes of the request so far that are not its body
        self._unread = 0  # bytes of a request that is already answered
        self._dropped = 0  # headers of the request so far that are too many
        self._in_head = self._is_upgrade = False
        self._keep_alive = (b"keep-alive", b"timeout=%d" % self.timeout_keep_alive)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._unsent.watch(self.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request that its client has left."""
        waiting = [cycle for cycle, _ in self.pipeline]
        for cycle in (self._running, *waiting):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        self._held = b""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._stop_timer()
        self._unsent.drain(self)

    def pause_writing(self) -> None:
        """Take note that the client does not read as fast as it is answered."""
        super().pause_writing()
        self._unsent.fill(self)

    def resume_writing(self) -> None:
        """Go on with the answer, or with the next request."""
        super().resume_writing()
        self._unsent.drain(self)
        if self._is_free():
            self._go_on()

    # Reading

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        if self._refusal:
            self._throw_away(len(data))
            return
        self._unset_keepalive_if_required()
        self._start_timer()
        self._read(self._held + data)

    def _read(self, data: bytes) -> None:
        self._held = b""
        for start in range(0, len(data), SLICE):
            if self._must_wait():
                self._held = data[start:]
                break
            self._parse(data[start : start + SLICE])
            if self._refusal or self.transport.is_closing():
                break
        self.flow.is_held = bool(self._held)
        if self._held:
            self.flow.pause_reading()

    def _must_wait(self) -> bool:
        """Tell whether the client has yet to get an answer before it may ask for more."""
        if self._is_responding():
            return bool(self.pipeline) or not self.cycle.more_body
        return self.flow.write_paused

    def _parse(self, data: bytes) -> None:
        self._framing += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(NOT_HTTP)
        if self._framing > MAX_FRAMING:
            self._refuse(HEAD_TOO_LARGE if self._in_head else FRAMING_TOO_LARGE)

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read a request again without its `Upgrade` (RFC 9110, section 7.8), which httptools ends at its head."""
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self._is_upgrade = False
        self._framing = 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._parse(b"\r\n".join([*lines, b"", b""]))
        self._parse(rest)

    def _throw_away(self, size: int) -> None:
        self._unread += size
        if self._unread > MAX_UNREAD:
            self.transport.close()

    # What the parser calls

    def on_message_begin(self) -> None:
        """Wait for the rest of a request."""
        super().on_message_begin()
        self._in_head = True
        self._unread = self._dropped = 0
        self._start_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header without the blanks around it (RFC 9110, section 5.5), but drop trailers (section 6.5.1).

        A trailer that ends the connection is refused: llhttp would overlook the requests behind it.
        """
        if not self._in_head:
            if name.lower() in CONNECTION_FIELDS:
                raise httptools.HttpParserError
            return
        if len(self.headers) <= MAX_HEADER_COUNT:  # the application refuses one more
            super().on_header(name, value.strip(b" \t"))
        else:
            self._dropped += 1
        if self._dropped > MAX_DROPPED:
            self._refuse(HEAD_TOO_LARGE)
            raise httptools.HttpParserError  # which ends the parsing

    def on_headers_complete(self) -> None:
        """Hand the request to the application."""
        self._in_head = False
        version, method = self.parser.get_http_version(), self.parser.get_method()
        is_old = version == "1.0"
        has_coding = is_old and any(name == b"transfer-encoding" for name, _ in self.headers)  # RFC 9112, section 6.1
        if version not in ("1.0", "1.1") or has_coding or method == b"CONNECT" or b"#" in self.url:
            raise httptools.HttpParserError
        if not self.parser.should_upgrade():
            self._begin(method.decode(), version)
        elif len(self.headers) > MAX_HEADER_COUNT:  # those that frame the body may be among the dropped ones
            self._refuse(HEAD_TOO_LARGE)
            raise httptools.HttpParserError
        else:
            self._is_upgrade = True

    def _begin(self, method: str, version: str) -> None:
        url = httptools.parse_url(self.url)
        raw_path = url.path or b"/"
        path = raw_path.decode("ascii")
        self.scope |= {
            "http_version": version,
            "method": method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": url.query or b"",
        }
        keep_alive = self.parser.should_keep_alive() and not self.expect_100_continue  # its body may never come
        headers = self.server_state.default_headers
        if keep_alive:
            asked = [(b"connection", b"keep-alive")] if version == "1.0" else []
            headers = [*headers, self._keep_alive, *asked]
        self.cycle = (OldHttpCycle if version == "1.0" else Cycle)(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        self._in_body = True
        if self._is_free() and not self.pipeline and not self.flow.write_paused:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.pipeline.appendleft((self.cycle, self.app))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_chunk_header(self) -> None:
        """Do not count what a chunk needs."""
        self._framing = max(0, self._framing - CHUNK_FRAMING)

    def on_body(self, body: bytes) -> None:
        """Keep a part of a body for the application, unless it has answered without it."""
        self._framing -= len(body)
        if self.cycle.response_complete:
            self._throw_away(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop waiting until the next request begins."""
        self._framing = 0
        if self._is_upgrade:
            return
        self._in_body = False
        super().on_message_complete()
        self._stop_timer()

    # Answering

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        self.server_state.total_requests += 1
        self._go_on()

    def _go_on(self) -> None:
        if self.transport.is_closing() or self.flow.write_paused:
            return
        self._unset_keepalive_if_required()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal:
            self._write_refusal(self._refusal)
            return
        if not self._refusal:
            self._read(self._held)
            self.flow.resume_reading()
        if not self._is_responding():
            idle = self.timeout_keep_alive + KEEP_ALIVE_GRACE
            self.timeout_keep_alive_task = self.loop.call_later(idle, self.timeout_keep_alive_handler)

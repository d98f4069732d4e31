"""A connection without a network: what only comes to pass when bytes and answers meet at the right moment."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import MagicMock

import pytest
import uvicorn
from uvicorn.server import ServerState

from server.http_protocol import HttpProtocol

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
NO_CHUNK = b"no chunk\r\n"
START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b"it"}


class Wire:
    """A connection, and an application whose requests are answered when the test says so."""

    def __init__(self) -> None:
        self.transport = MagicMock()
        self.transport.is_closing.side_effect = lambda: self.transport.close.called
        self.transport.get_write_buffer_size.return_value = 0
        self.sends: list[Callable[[Any], Awaitable[None]]] = []
        self.ends: list[asyncio.Event] = []
        config = uvicorn.Config(self.app, interface="asgi3", http=HttpProtocol, lifespan="off", log_config=None)
        config.load()
        self.protocol = HttpProtocol(config=config, server_state=ServerState(), app_state={})
        self.protocol.connection_made(self.transport)

    async def app(self, _scope: Any, _receive: Any, send: Any) -> None:
        """Wait for the test."""
        self.sends.append(send)
        self.ends.append(asyncio.Event())
        await self.ends[-1].wait()

    async def receive(self, data: bytes) -> None:
        """Let bytes arrive."""
        self.protocol.data_received(data)
        await asyncio.sleep(0)

    async def send(self, number: int, *messages: Any) -> None:
        """Send parts of the answer to a request, and end it with the last one."""
        for message in messages:
            await self.sends[number](message)
        if END in messages:
            self.ends[number].set()
        await asyncio.sleep(0)

    @property
    def statuses(self) -> list[int]:
        """The status of each answer so far."""
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", self.sent)]

    @property
    def sent(self) -> bytes:
        """Everything that was written."""
        return b"".join(call.args[0] for call in self.transport.write.call_args_list)


def on_a_wire(test: Callable[[Wire], Awaitable[None]]) -> Callable[[], None]:
    """Run a test in an event loop."""

    async def run() -> None:
        wire = Wire()
        await test(wire)
        for end in wire.ends:
            end.set()
        wire.protocol.connection_lost(None)
        await asyncio.sleep(0)

    def test_it() -> None:
        asyncio.run(run())

    return test_it


@on_a_wire
async def test_what_is_no_request_is_answered_after_those_before_it(wire: Wire) -> None:
    await wire.receive(GET + GET + b"no request\r\n\r\n")
    for number in range(2):
        assert wire.statuses == [200] * number
        await wire.send(number, START, END)
    assert wire.statuses == [200, 200, 400]


@on_a_wire
async def test_what_is_no_request_waits_for_the_answer_before_it(wire: Wire) -> None:
    await wire.receive(GET + b"no request\r\n\r\n")
    assert wire.statuses == []
    await wire.send(0, START, END)
    assert wire.statuses == [200, 400]


@on_a_wire
async def test_a_body_that_breaks_before_the_answer_is_refused(wire: Wire) -> None:
    await wire.receive(POST)
    await wire.receive(NO_CHUNK)
    assert wire.statuses == [400]
    await wire.send(0, START, END)
    assert wire.statuses == [400]


@on_a_wire
async def test_a_body_that_breaks_within_the_answer_ends_the_connection_with_it(wire: Wire) -> None:
    await wire.receive(POST)
    await wire.send(0, START)
    await wire.receive(NO_CHUNK)
    assert not wire.transport.is_closing()
    await wire.send(0, END)
    assert wire.statuses == [200]
    assert wire.transport.is_closing()


@on_a_wire
async def test_a_body_that_breaks_behind_its_answer_ends_the_connection(wire: Wire) -> None:
    await wire.receive(POST)
    await wire.send(0, START, END)
    await wire.receive(NO_CHUNK)
    assert wire.statuses == [200]
    assert wire.transport.is_closing()


@on_a_wire
async def test_the_next_request_waits_until_the_answer_is_taken(wire: Wire) -> None:
    await wire.receive(GET + GET)
    wire.protocol.pause_writing()
    wire.protocol.resume_writing()  # in the middle of the answer
    assert len(wire.sends) == 1
    wire.protocol.pause_writing()
    self_sent = asyncio.create_task(wire.send(0, START, END))
    await asyncio.sleep(0)
    assert len(wire.sends) == 1
    wire.protocol.resume_writing()
    await self_sent
    await asyncio.sleep(0)
    assert len(wire.sends) == 2


@on_a_wire
async def test_a_refusal_is_written_once_however_slowly_it_is_taken(wire: Wire) -> None:
    await wire.receive(b"no request\r\n\r\n")
    wire.protocol.pause_writing()
    wire.protocol.resume_writing()
    assert wire.statuses == [400]


@pytest.mark.parametrize("value", [b"close", b"Close"])
def test_an_answer_that_closes_the_connection_tells_no_time(value: bytes) -> None:
    @on_a_wire
    async def run(wire: Wire) -> None:
        await wire.receive(GET + GET)
        await wire.send(0, START, END)
        assert b"keep-alive: timeout" in wire.sent
        await wire.send(1, START | {"headers": [(b"Connection", value)]}, END)
        assert wire.sent.count(b"keep-alive: timeout") == 1

    run()


@pytest.mark.parametrize("upgrade", [b"x", b"h2c", b"websocket"])
def test_the_head_of_an_upgrade_is_read_again_without_it(upgrade: bytes) -> None:
    @on_a_wire
    async def run(wire: Wire) -> None:
        await wire.receive(GET[:-2] + b"Connection: upgrade\r\nUpgrade: " + upgrade + b"\r\n\r\n" + GET)
        for number in range(2):
            await wire.send(number, START, END)
        assert wire.statuses == [200, 200]

    run()

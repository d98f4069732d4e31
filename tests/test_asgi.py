"""The application under other ASGI servers than uvicorn, and fed what its own middlewares do not give it."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest

from models.caller import Caller
from openapi.app import create_app
from openapi.middleware.access_log import AccessLog
from openapi.middleware.concurrency_limit import MAX_STREAMS, ConcurrencyLimit
from openapi.request import Request
from openapi.slots import Slots
from settings.settings import Settings
from tests.support.hosts import HOSTS
from tests.support.server import sign


@asynccontextmanager
async def started(app: Any) -> AsyncIterator[None]:
    """Start the application and end it, as a server does."""
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    lifespan = asyncio.create_task(app({"type": "lifespan"}, messages.get, answers.put))
    await messages.put({"type": "lifespan.startup"})
    assert (await answers.get())["type"] == "lifespan.startup.complete"
    yield
    await messages.put({"type": "lifespan.shutdown"})
    assert (await answers.get())["type"] == "lifespan.shutdown.complete"
    await lifespan


@pytest.mark.parametrize("host", HOSTS)
def test_a_websocket_is_closed(make_settings: Any, host: str) -> None:
    app = create_app(make_settings(server_framework=host))
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app({"type": "websocket", "path": "/api/tasks", "headers": []}, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]


@pytest.mark.parametrize("host", HOSTS)
def test_a_server_that_tells_by_a_message_alone_that_a_client_has_left_is_fine(make_settings: Any, host: str) -> None:
    settings: Settings = make_settings(server_framework=host)
    headers = {"Authorization": f"Bearer {sign(settings, sub='another-server')}"}

    async def run() -> httpx.Response:
        app = create_app(settings)
        # httpx speaks an old version of ASGI, so that Starlette waits for that message while it streams.
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers)
        async with started(app), client:
            assert (await client.get("/api/tasks")).json() == []
            return await client.request("GET", "/api/me/export", content=b"which nobody reads")

    assert asyncio.run(run()).json()["tasks"] == []


def test_requests_leave_no_work_for_garbage_collection(make_settings: Any) -> None:
    settings: Settings = make_settings()
    authorization = f"Bearer {sign(settings, sub='garbage')}".encode()
    app = create_app(settings)

    async def request(method: str, path: str, content: bytes = b"") -> dict[str, str]:
        headers = [(b"host", b"test"), (b"authorization", authorization)]
        if content:
            headers += [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": content}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}
        await app(scope | {"scheme": "http", "server": ("test", 80), "client": ("test", 1)}, receive, send)
        assert sent[0]["status"] < 300
        return {name.decode(): value.decode() for name, value in sent[0]["headers"]}

    async def run() -> dict[str, float]:
        async with started(app):
            path = (await request("POST", "/api/tasks", b'{"title": "one"}'))["location"]
            requests: list[tuple[str, str, *tuple[bytes, ...]]] = [
                ("POST", "/api/tasks", b'{"title": "another"}'),
                ("GET", "/api/tasks"),
                ("GET", path),
                ("PUT", path, b'{"title": "changed"}'),
                ("PATCH", f"{path}/complete"),
            ]
            left = {}
            for one in requests:
                await request(*one)  # the first compiles its statement
                gc.collect()
                for _ in range(100):
                    await request(*one)
                left[f"{one[0]} {one[1]}"] = gc.collect() / 100
            return left

    gc.disable()
    try:
        left = asyncio.run(run())
    finally:
        gc.enable()
    assert {name: objects for name, objects in left.items() if objects >= 1} == {}


def asked_by(user: str, **more: Any) -> dict[str, Any]:
    """Return the scope of a user's request."""
    return {"type": "http", Request.KEY: Request("id", None, cast(Any, None), caller=Caller(user, None, None)), **more}


async def asks_nothing() -> MutableMapping[str, Any]:
    """Receive for an application that reads no body."""
    raise AssertionError("nobody asks")


async def takes_all(_message: Any) -> None:
    """Send to a client that takes every part at once."""


@pytest.mark.parametrize("until_sent", [False, True])
def test_a_request_that_the_server_ends_in_mid_answer_has_no_second_answer(until_sent: bool) -> None:
    begun = asyncio.Event()

    async def answer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start"})
        begun.set()
        await asyncio.sleep(60)

    async def run() -> None:
        slots = Slots(1)
        limit = ConcurrencyLimit(answer, slots=slots, until_sent=until_sent)
        request = asyncio.create_task(limit(asked_by("alice"), asks_nothing, takes_all))
        await begun.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert slots.free == 1

    asyncio.run(run())


def test_a_user_has_few_streams_at_the_same_time_however_many_wait_after_their_first_part() -> None:
    parts: Counter[str] = Counter()
    release = asyncio.Event()

    async def answer(scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start"})
        for _ in range(3):
            parts[scope["name"]] += 1
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await release.wait()
        await send({"type": "http.response.body"})

    async def run() -> None:
        slots = Slots(100)
        limit = ConcurrencyLimit(answer, slots=slots, until_sent=False)

        def export(user: str, name: str) -> asyncio.Task[None]:
            return asyncio.create_task(limit(asked_by(user, name=name), asks_nothing, takes_all))

        requests = [export("alice", str(number)) for number in range(MAX_STREAMS + 2)]
        requests.append(export("bob", "bob"))
        await asyncio.sleep(0.01)
        assert [parts[str(number)] for number in range(MAX_STREAMS + 2)] == [3] * MAX_STREAMS + [1, 1]
        assert parts["bob"] == 3
        requests.pop(0).cancel()  # the next one has its turn
        requests.pop(-2).cancel()  # the last one, which waits, leaves
        await asyncio.sleep(0.01)
        assert (parts[str(MAX_STREAMS)], parts[str(MAX_STREAMS + 1)]) == (3, 1)
        release.set()
        await asyncio.gather(*requests)
        assert slots.free == 100
        assert all(limit.streams.take("alice") for _ in range(MAX_STREAMS))

    asyncio.run(run())


def test_a_fault_outside_of_what_answers_faults_is_left_to_the_server() -> None:
    async def fail(*_: Any) -> Any:
        raise RuntimeError("a fault")

    services: Any = None
    scope = {"type": "http", "method": "GET", "path": "/", Request.KEY: Request("id", None, services)}
    with pytest.raises(RuntimeError, match="a fault"):
        asyncio.run(AccessLog(fail)(scope, fail, fail))

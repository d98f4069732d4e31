"""What the checks of load balancers cost: /ready looks once a second, whoever asks, and takes nothing from users."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from unittest.mock import Mock

import pytest

from handlers.health import Readiness
from models import schema
from postgres.errors import DatabaseUnavailable
from postgres.greenlets import run_in_greenlet
from settings.settings import Settings
from tests.support.client import Client, Conformance
from tests.support.hosts import HOSTS
from tests.support.raw import connect
from tests.support.server import Server


@pytest.fixture(params=HOSTS)
def settings(request: pytest.FixtureRequest, make_settings: Callable[..., Settings]) -> Settings:
    """The settings of a server with one connection to the database."""
    return make_settings(server_framework=request.param, database_pool_size=1)


def test_all_who_ask_within_a_second_share_one_check(
    settings: Settings, conformance: Conformance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.health.CHECK_INTERVAL", 3600)
    checks = Mock(side_effect=schema.check)
    monkeypatch.setattr(schema, "check", checks)
    with Server(settings) as server, ThreadPoolExecutor(20) as threads, Client(server.url, conformance) as client:
        at_the_start = checks.call_count
        assert {answer.status_code for answer in threads.map(lambda _: client.get("/ready"), range(100))} == {200}
        assert checks.call_count == at_the_start + 1


def test_a_check_is_made_anew_after_its_time_whether_it_failed_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.health.CHECK_INTERVAL", 0)
    results: list[Any] = [DatabaseUnavailable("away"), None]

    async def check() -> None:
        if (result := results.pop(0)) is not None:
            raise result

    async def run() -> None:
        readiness = Readiness(check)
        with pytest.raises(DatabaseUnavailable, match="away"):
            await run_in_greenlet(readiness.ensure)
        await run_in_greenlet(readiness.ensure)

    asyncio.run(run())
    assert results == []


def test_connections_that_ask_for_readiness_and_read_nothing_stop_nobody(
    settings: Settings, conformance: Conformance
) -> None:
    asked = b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n" * 500
    with Server(settings) as server, ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connect(server)).sendall(asked)
        with Client(server.url, conformance, token=server.token(sub="user"), user="user") as client:
            for _ in range(20):
                client.create()
                assert client.get("/health").status_code == 200

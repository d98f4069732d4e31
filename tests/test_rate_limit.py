"""Every user has a fair share of requests, counted in memory or in Redis, and nobody is slowed by another's."""

import asyncio
import logging
import re
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import httpx
import pytest
from redis.asyncio import Redis as RedisClient

from openapi import rate_limit_storage, rate_limiter
from settings.settings import Settings
from tests.support.client import Client, Conformance, assert_problem
from tests.support.hosts import HOSTS
from tests.support.server import SECRET, Server, ServerProcess, sign

LIMIT = 5
DETAIL = f"You sent more than {LIMIT} requests in 60 seconds. Try again later."


class Redis:
    """A Redis server of this test's own."""

    def __init__(self, program: str, directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._command = [
            program,
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--save",
            "",
            "--dir",
            str(directory),
        ]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self.process.poll() is None, "Redis ended"
                assert time.monotonic() < deadline, "Redis does not answer"
                time.sleep(0.02)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@pytest.fixture
def redis(need: Callable[..., str], tmp_path: Path) -> Iterator[Redis]:
    """A Redis server."""
    with Redis(need("redis-server"), tmp_path) as redis:
        yield redis


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for Redis however busy this machine is."""
    monkeypatch.setattr(rate_limiter, "STORAGE_TIMEOUT", 10)


@pytest.fixture(params=["memory", "redis"])
def storage(request: pytest.FixtureRequest, patient: None) -> str:  # noqa: ARG001
    """Each storage in turn."""
    return request.getfixturevalue("redis").url if request.param == "redis" else "memory://"


@pytest.fixture(params=HOSTS)
def limited(request: pytest.FixtureRequest, make_settings: Callable[..., Settings], storage: str) -> Iterator[Server]:
    """A server on each host, with each storage."""
    settings = make_settings(server_framework=request.param, rate_limit=LIMIT, rate_limit_storage=storage)
    with Server(settings) as server:
        yield server


@pytest.fixture
def client_of(conformance: Conformance) -> Iterator[Callable[[Server, str], Client]]:
    """Make a client of a server for the user named."""
    clients: list[Client] = []

    def make(server: Server, user: str) -> Client:
        clients.append(Client(server.url, conformance, token=server.token(sub=user)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


ClientOf = Callable[[Server, str], Client]


def share(response: httpx.Response) -> tuple[int, int]:
    """Return what the answer says is left, and in how many seconds everything is there again."""
    match = re.fullmatch(r'"default";r=(\d+);t=(\d+)', response.headers["ratelimit"])
    assert match, response.headers
    return int(match[1]), int(match[2])


def test_requests_over_the_limit_are_refused_until_the_window_has_passed(limited: Server, client_of: ClientOf) -> None:
    client = client_of(limited, "eager")
    answers = [client.get("/api/me") for _ in range(LIMIT + 2)]
    assert [answer.status_code for answer in answers] == [200] * LIMIT + [429] * 2
    assert [share(answer)[0] for answer in answers] == [4, 3, 2, 1, 0, 0, 0]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {f'"default";q={LIMIT};w=60'}
    assert_problem(answers[-1], 429, "rate_limited", DETAIL)
    assert 1 <= int(answers[-1].headers["retry-after"]) == share(answers[-1])[1] <= 60


def test_another_user_is_not_limited(limited: Server, client_of: ClientOf) -> None:
    eager, other = client_of(limited, "eager"), client_of(limited, "other")
    assert [eager.get("/api/me").status_code for _ in range(LIMIT + 1)][-1] == 429
    assert share(other.get("/api/me"))[0] == LIMIT - 1


def test_every_answer_counts_and_says_what_is_left(limited: Server, client_of: ClientOf) -> None:
    client = client_of(limited, "clumsy")
    missing = "/api/tasks/8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11"
    answers = [client.get("/api/tasks?limit=x"), client.get(missing), client.post("/api/tasks", json={"title": "x"})]
    answers.append(client.get(answers[-1].headers["location"], headers={"If-None-Match": '"1"'}))
    assert [(answer.status_code, share(answer)[0]) for answer in answers] == [(400, 4), (404, 3), (201, 2), (304, 1)]


def test_the_token_is_looked_at_first_and_the_body_after(limited: Server, client_of: ClientOf) -> None:
    client = client_of(limited, "eager")
    for _ in range(LIMIT):
        client.get("/api/me")
    assert client.post("/api/tasks", json={"title": 1}).status_code == 429
    refused = client.get("/api/me", headers={"Authorization": "Bearer x"})
    assert (refused.status_code, "ratelimit" in refused.headers) == (401, False)


def test_health_is_not_limited(limited: Server, client_of: ClientOf) -> None:
    client = client_of(limited, "probe")
    answers = [client.get("/health") for _ in range(LIMIT + 1)]
    assert {(answer.status_code, "ratelimit" in answer.headers) for answer in answers} == {(200, False)}


@pytest.mark.slow
def test_requests_at_once_get_no_more_than_the_limit(limited: Server, client_of: ClientOf) -> None:
    client = client_of(limited, "parallel")
    with ThreadPoolExecutor(10) as threads:
        statuses = list(threads.map(lambda _: client.get("/api/me").status_code, range(20)))
    assert statuses.count(200) == LIMIT
    assert statuses.count(429) == 20 - LIMIT


@pytest.mark.slow
def test_who_waits_as_long_as_told_is_served(
    make_settings: Callable[..., Settings], storage: str, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limiter, "WINDOW", 2)
    with Server(make_settings(rate_limit=2, rate_limit_storage=storage)) as server:
        client = client_of(server, "patient")
        assert [client.get("/api/me").status_code for _ in range(3)] == [200, 200, 429]
        time.sleep(int(client.get("/api/me").headers["retry-after"]))
        assert [client.get("/api/me").status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_changes_no_window(storage: str, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    async def left_after(limiter: rate_limiter.RateLimiter) -> int:
        counted = await limiter.hit("eager")
        assert counted
        return counted[0]

    async def hits() -> list[int]:
        limiter = rate_limiter.RateLimiter(2, storage)
        left = [await left_after(limiter) for _ in range(3)]
        now = time.time
        monkeypatch.setattr("time.time", lambda: now() + hours * 3600)
        left.append(await left_after(limiter))
        await asyncio.sleep(2.1)
        left.append(await left_after(limiter))
        await limiter.close()
        return left

    monkeypatch.setattr(rate_limiter, "WINDOW", 2)
    assert asyncio.run(hits()) == [1, 0, -1, -2, 1]


@pytest.mark.usefixtures("patient")
def test_a_clock_of_redis_that_is_set_back_limits_nobody_for_longer_than_a_window(redis: Redis) -> None:
    """Redis then has an hour and a window to go to the end that it stored."""

    async def hits() -> tuple[tuple[int, int] | None, int]:
        limiter = rate_limiter.RateLimiter(1, redis.url)
        await limiter.hit("eager")
        client = RedisClient.from_url(redis.url)
        (key,) = await client.keys()
        await client.expire(key, 3600 + 60)
        hit, left = await limiter.hit("eager"), await client.ttl(key)
        await client.aclose()
        await limiter.close()
        return hit, left

    hit, left = asyncio.run(hits())
    assert hit == (-1, 60)
    assert 0 < left <= 60


def test_without_a_limit_no_answer_speaks_of_one(alice: Client) -> None:
    assert not {"ratelimit", "ratelimit-policy"} & set(alice.get("/api/me").headers)


@pytest.mark.slow
def test_thousands_of_users_do_not_slow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limiter, "WINDOW", 1)

    async def hit(number: int) -> float:
        limiter = rate_limiter.RateLimiter(LIMIT, "memory://")
        started = time.perf_counter()
        for user in range(number):
            assert await limiter.hit(f"user-{user}") == (LIMIT - 1, 1)
        return time.perf_counter() - started

    assert asyncio.run(hit(20_000)) < 10


@pytest.mark.slow
def test_users_whose_window_has_passed_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit_storage, "SWEEP_INTERVAL", 1)

    async def kept(number: int) -> int:
        memory = rate_limit_storage.Memory()
        for user in range(number):
            assert await memory.incr(f"user-{user}", expiry=1) == 1
        await asyncio.sleep(1.1)
        await memory.incr("last", expiry=1)
        return len(memory.storage)

    assert asyncio.run(kept(20_000)) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
def test_two_servers_with_one_redis_count_together(
    make_settings: Callable[..., Settings], redis: Redis, client_of: ClientOf
) -> None:
    settings = make_settings(rate_limit=LIMIT, rate_limit_storage=redis.url)
    with Server(settings) as one, Server(settings) as two:
        clients = [client_of(server, "everywhere") for server in (one, two)]
        statuses = [client.get("/api/me").status_code for _ in range(3) for client in clients]
    assert statuses == [200] * 5 + [429]


def wait_until_limited(client: Client) -> None:
    """Send requests until one is counted."""
    deadline = time.monotonic() + 10
    while "ratelimit" not in client.get("/api/me").headers:
        assert time.monotonic() < deadline, "requests are not limited"
        time.sleep(0.1)


def duration(client: Client) -> float:
    """Return how long a request takes that is not limited."""
    started = time.perf_counter()
    response = client.get("/api/me")
    assert (response.status_code, "ratelimit" in response.headers) == (200, False)
    return time.perf_counter() - started


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["dead", "frozen"])
def test_while_redis_is_away_requests_pass_unlimited_and_hardly_slower(
    make_settings: Callable[..., Settings],
    redis: Redis,
    client_of: ClientOf,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    with Server(make_settings(rate_limit=LIMIT, rate_limit_storage=redis.url)) as server:
        client = client_of(server, "unlucky")
        wait_until_limited(client)
        if fault == "dead":
            redis.stop()
        else:
            redis.process.send_signal(signal.SIGSTOP)  # SIGSTOP: connections are accepted, and nothing answers
        with caplog.at_level(logging.WARNING):
            durations = [duration(client) for _ in range(LIMIT * 4)]
        assert "requests are not limited, RATE_LIMIT_STORAGE does not respond" in caplog.text
        assert statistics.median(durations) < 0.1
        assert max(durations) < 1
        if fault == "dead":
            redis.start()
        else:
            redis.process.send_signal(signal.SIGCONT)
        wait_until_limited(client)


@pytest.mark.slow
def test_redis_may_be_away_when_the_server_starts(
    make_settings: Callable[..., Settings], redis: Redis, client_of: ClientOf
) -> None:
    redis.stop()
    with Server(make_settings(rate_limit=LIMIT, rate_limit_storage=redis.url)) as server:
        client = client_of(server, "early")
        duration(client)
        redis.start()
        wait_until_limited(client)


@pytest.mark.slow
def test_what_is_no_redis_limits_nobody(make_settings: Callable[..., Settings], client_of: ClientOf) -> None:
    """Its answer is HTTP."""
    with Server(make_settings()) as other:
        url = other.url.replace("http", "redis") + "/0"
        with Server(make_settings(rate_limit=LIMIT, rate_limit_storage=url)) as server:
            assert duration(client_of(server, "lost")) < 1


@pytest.mark.slow
def test_a_server_that_others_reach_limits_its_users_by_default(database_url: str, tmp_path: Path) -> None:
    environment = {"HOST": "0.0.0.0", "BETTER_AUTH_SECRET": SECRET, "DATABASE_URL": database_url}
    with ServerProcess("--workers", "2", directory=tmp_path, **environment) as server:
        token = sign(Settings.load(environment), sub="far")
        headers = {"Authorization": f"Bearer {token}"}
        response = httpx.get(f"{server.url}/api/me", headers=headers, trust_env=False)
    assert (response.status_code, response.headers["ratelimit-policy"]) == (200, '"default";q=600;w=60')

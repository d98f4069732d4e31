"""A fair share for everybody: at most so many requests a minute of each user."""

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING, Final

from connexion.lifecycle import ConnexionRequest
from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage
from starlette.types import ASGIApp, Receive, Scope, Send

from openapi.problems import Problem

if TYPE_CHECKING:
    from redis.asyncio import BlockingConnectionPool

logger = logging.getLogger(__name__)

WINDOW = 60  # seconds
SWEEP_INTERVAL: Final = 10  # seconds
STORAGE_TIMEOUT = 0.08  # seconds that a request waits for Redis at the most
STORAGE_FAILURES: Final = 3  # in a row; one alone may come from a moment without the processor
STORAGE_PAUSE: Final = 1  # seconds in which a Redis that failed so often is not asked again
STORAGE_CONNECTIONS: Final = 4  # of each process


class Memory(MemoryStorage):
    """Counts in memory, without the walk over all users that `limits` takes at each request."""

    def __init__(self) -> None:
        super().__init__()
        self._next_sweep = 0.0

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Return the new count, in one piece for the event loop."""
        now = time.time()
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_INTERVAL
            for stale in [stale for stale, end in self.expirations.items() if end <= now]:
                del self.storage[stale], self.expirations[stale]
        if self.expirations.get(key, 0) <= now:
            self.storage[key] = 0
            self.expirations[key] = now + expiry
        self.storage[key] += amount
        return self.storage[key]


def _pool(url: str) -> "BlockingConnectionPool":
    # Large, and of no use to a service that counts in memory.
    from redis.asyncio import BlockingConnectionPool
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return BlockingConnectionPool.from_url(
        url,
        max_connections=STORAGE_CONNECTIONS,
        socket_connect_timeout=STORAGE_TIMEOUT,
        socket_timeout=STORAGE_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )


class RateLimiter:
    """Counts the requests of each user in windows that begin with the user's first request.

    With `memory://` every process counts by itself; with Redis all of them count together.
    """

    def __init__(self, limit: int, storage: str) -> None:
        self.limit = limit
        self.window = WINDOW
        self._item = RateLimitItemPerSecond(limit, self.window)
        self._pool: BlockingConnectionPool | None = None
        self._failures = 0
        self._paused_until = 0.0
        self._storage: Memory | RedisStorage
        if storage == "memory://":
            self._storage = Memory()
        else:
            self._pool = _pool(storage)
            self._storage = RedisStorage(
                f"async+{storage}",
                implementation="redispy",
                key_prefix="tasks-api",
                connection_pool=self._pool,  # type: ignore[arg-type]
            )

    async def hit(self, user: str) -> tuple[int, int] | None:
        """Count one request; return how many are left, less than 0 over the limit, and in how many seconds all are.

        None while the storage is away.
        """
        if time.monotonic() < self._paused_until:
            return None
        key = self._item.key_for(user)
        try:
            async with asyncio.timeout(STORAGE_TIMEOUT):
                count = await self._storage.incr(key, self.window)
                reset = await self._storage.get_expiry(key) - time.time()
        except Exception as error:
            # Whatever it is. The limit keeps the service fair, it does not guard anybody's tasks: better unfair for a
            # while than closed to all.
            self._failures += 1
            if self._failures >= STORAGE_FAILURES and time.monotonic() >= self._paused_until:
                self._paused_until = time.monotonic() + STORAGE_PAUSE
                logger.warning("requests are not limited, RATE_LIMIT_STORAGE does not answer: %r", error)
            return None
        self._failures = 0
        # Redis rounds to the nearest second; who waits as long as told must not come too early.
        return self.limit - count, min(self.window, max(1, math.ceil(reset + 0.5)))

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._pool:
            await self._pool.aclose()


class RateLimit:
    """Refuses requests of a user who is over the limit; stands behind the check of the token.

    The fields are those of draft-ietf-httpapi-ratelimit-headers-10.
    """

    def __init__(self, app: ASGIApp, *, limiter: RateLimiter | None) -> None:
        self.app = app
        self.limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count one request.

        Raises Problem (429).
        """
        context = ConnexionRequest(scope).context
        if self.limiter and "user" in context and (counted := await self.limiter.hit(context["user"])):
            left, reset = counted
            context["answer_headers"].update(
                {
                    "RateLimit-Policy": f'"default";q={self.limiter.limit};w={self.limiter.window}',
                    "RateLimit": f'"default";r={max(0, left)};t={reset}',
                }
            )
            if left < 0:
                detail = f"You sent more than {self.limiter.limit} requests in {self.limiter.window} seconds."
                raise Problem(429, "rate_limited", f"{detail} Try again later.", {"Retry-After": str(reset)})
        await self.app(scope, receive, send)

"""Where requests are counted; the only module that knows the internals of `limits`."""

import time
from typing import Final

from limits.aio.storage import MemoryStorage, RedisStorage

SWEEP_INTERVAL: Final = 10  # seconds
REDIS_CONNECTIONS: Final = 4  # of each process


class Memory(MemoryStorage):
    """Counts in memory by a clock that nobody sets, without visiting all users at each request as `limits` does."""

    def __init__(self) -> None:
        super().__init__()
        self._next_sweep = float("-inf")

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Return the new count; atomic, as it never yields to the event loop."""
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_INTERVAL
            for stale in [stale for stale, end in self.expirations.items() if end <= now]:
                del self.storage[stale], self.expirations[stale]
        if self.expirations.get(key, now) <= now:
            self.storage[key] = 0
            self.expirations[key] = now + expiry
        self.storage[key] += amount
        return self.storage[key]

    async def remaining(self, key: str, expiry: float) -> float:  # noqa: ARG002
        """Return the seconds until the count begins anew."""
        return self.expirations[key] - time.monotonic()

    async def close(self) -> None:
        """Do nothing: there is no connection."""


class Redis(RedisStorage):
    """Counts in Redis, without retries; it has `timeout` seconds to respond."""

    def __init__(self, url: str, timeout: float) -> None:
        # Large imports, which a service that counts in memory does without.
        from redis.asyncio import BlockingConnectionPool
        from redis.asyncio import Redis as Client
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=REDIS_CONNECTIONS,
            socket_connect_timeout=timeout,
            socket_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
        )
        self._client = Client(connection_pool=self._pool)
        super().__init__(
            f"async+{url}",
            implementation="redispy",
            key_prefix="tasks-api",
            connection_pool=self._pool,  # type: ignore[arg-type]
        )

    async def remaining(self, key: str, expiry: int) -> float:
        """Return the seconds until the count begins anew, at most `expiry`.

        Redis keeps the end of a window as a time of day. Where that is further away than a window is long, the clock of
        its machine was set back meanwhile, and the window ends `expiry` seconds from now.
        """
        name = self.bridge.prefixed_key(key)
        left: int = await self._client.pttl(name)  # milliseconds
        if left > expiry * 1000:
            await self._client.expire(name, expiry)
        return min(left / 1000, expiry)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

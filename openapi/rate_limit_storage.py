"""Where requests are counted; the only module that knows the internals of `limits`."""

import time
from typing import Final

from limits.aio.storage import MemoryStorage, RedisStorage

SWEEP_INTERVAL: Final = 10  # seconds
REDIS_CONNECTIONS: Final = 4  # of each process


class Memory(MemoryStorage):
    """Counts in memory, without visiting all users at each request as `limits` does."""

    def __init__(self) -> None:
        super().__init__()
        self._next_sweep = 0.0

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Return the new count; atomic, as it never yields to the event loop."""
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

    async def close(self) -> None:
        """Do nothing: there is no connection."""


class Redis(RedisStorage):
    """Counts in Redis, without retries; it has `timeout` seconds to respond."""

    def __init__(self, url: str, timeout: float) -> None:
        # Large imports, which a service that counts in memory does without.
        from redis.asyncio import BlockingConnectionPool
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=REDIS_CONNECTIONS,
            socket_connect_timeout=timeout,
            socket_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
        )
        super().__init__(
            f"async+{url}",
            implementation="redispy",
            key_prefix="tasks-api",
            connection_pool=self._pool,  # type: ignore[arg-type]
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

"""The quota of each user's requests."""

import asyncio
import logging
import math
import time
from typing import Final

from limits import RateLimitItemPerSecond

from openapi.rate_limit_storage import Memory, Redis

logger = logging.getLogger(__name__)

WINDOW = 60  # seconds
STORAGE_TIMEOUT = 0.08  # seconds that a request waits for Redis at most
MAX_FAILURES: Final = 3  # in a row; a single one may come from a busy processor
PAUSE: Final = 1  # seconds before a storage that failed so often is asked again


class RateLimiter:
    """Counts the requests of each user in windows that begin with the user's first request.

    With `memory://` each process counts its own; with Redis all processes count together.
    """

    def __init__(self, limit: int, storage_url: str) -> None:
        self.limit = limit
        self.window = WINDOW
        self._item = RateLimitItemPerSecond(limit, self.window)
        self._storage = Memory() if storage_url == "memory://" else Redis(storage_url, STORAGE_TIMEOUT)
        self._failures = 0
        self._paused_until = 0.0

    async def hit(self, user_id: str) -> tuple[int, int] | None:
        """Count a request; return the requests left, less than 0 over the limit, and the seconds until the reset.

        None while the storage is down.
        """
        if time.monotonic() < self._paused_until:
            return None
        key = self._item.key_for(user_id)
        try:
            async with asyncio.timeout(STORAGE_TIMEOUT):
                count = await self._storage.incr(key, self.window)
                reset = await self._storage.remaining(key, self.window)
        except Exception as error:
            # Any error: the limit is for fairness and protects no data, so the service goes on without it.
            self._failures += 1
            if self._failures >= MAX_FAILURES and time.monotonic() >= self._paused_until:
                self._paused_until = time.monotonic() + PAUSE
                logger.warning("requests are not limited, RATE_LIMIT_STORAGE does not respond: %r", error)
            return None
        self._failures = 0
        # Redis cuts off what is less than a millisecond; a client that waits as long as told must not come too early.
        return self.limit - count, min(self.window, max(1, math.ceil(reset + 0.002)))

    async def close(self) -> None:
        """Close the connections to the storage."""
        await self._storage.close()

"""Checks for load balancers and supervisors, which anybody may call without a token."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from models import schema
from postgres.database import Database
from postgres.greenlets import wait_for

CHECK_INTERVAL: Final = 1.0  # seconds


class Readiness:
    """The result of a check of the service, made at most once in CHECK_INTERVAL and shared by all who ask."""

    def __init__(self, check: Callable[[], Awaitable[Any]]) -> None:
        self._check = check
        self._checking: asyncio.Task[None] | None = None
        self._expires = 0.0

    def ensure(self) -> None:
        """Raise what the check raised; the caller must run through `run_in_greenlet`."""
        wait_for(self._latest())

    async def _latest(self) -> None:
        if self._checking is None or (self._checking.done() and time.monotonic() >= self._expires):
            self._checking = asyncio.create_task(self._run())
        await asyncio.shield(self._checking)

    async def _run(self) -> None:
        try:
            await self._check()
        finally:
            self._expires = time.monotonic() + CHECK_INTERVAL


class Tokens(Protocol):
    """What verifies tokens."""

    def check(self) -> None:
        """Raise an error if no token can be verified."""


def health() -> dict[str, str]:
    """Respond while the process runs."""
    return {"status": "ok"}


def ready(readiness: Readiness) -> dict[str, str]:
    """Respond if the service is ready to serve users."""
    readiness.ensure()
    return {"status": "ok"}


def check(database: Database, tokens: Tokens) -> None:
    """Raise an error unless the service can do its work."""
    schema.check(database)
    tokens.check()

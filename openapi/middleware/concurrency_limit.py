"""The limit of concurrent requests in the handlers."""

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openapi.problems import BUSY, SHUTTING_DOWN, ProblemError

SLOT_TIMEOUT: Final = 2  # seconds


class ConcurrencyLimit:
    """Admits `slots` concurrent requests to the handlers; others wait in order, SLOT_TIMEOUT at most.

    A slot is held until the response begins, so a slow reader holds none. With `until_sent`, for a host whose threads
    send the response, it is held until the response has ended. /health needs no slot.
    """

    def __init__(self, app: ASGIApp, *, slots: int, until_sent: bool) -> None:
        self.app = app
        self.slots = asyncio.Semaphore(slots)
        self.until_sent = until_sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request in a slot. Raises ProblemError (503)."""
        if scope["path"] == "/health":
            await self.app(scope, receive, send)
            return
        await self._acquire()
        has_begun = False

        async def send_and_release(message: Message) -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                if not self.until_sent:
                    self.slots.release()
            await send(message)

        try:
            await self.app(scope, receive, send_and_release)
        except asyncio.CancelledError:  # the server shuts down and waits no longer
            if has_begun:
                raise
            raise ProblemError(SHUTTING_DOWN) from None
        finally:
            if self.until_sent or not has_begun:
                self.slots.release()

    async def _acquire(self) -> None:
        if not self.slots.locked():  # without the cost of a timeout
            await self.slots.acquire()
            return
        try:
            async with asyncio.timeout(SLOT_TIMEOUT):
                await self.slots.acquire()
        except TimeoutError:
            raise ProblemError(BUSY) from None

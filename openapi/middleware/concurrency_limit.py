"""The limit of concurrent requests in the handlers."""

import asyncio
import sys
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openapi.problems import BUSY, SHUTTING_DOWN, ProblemError
from openapi.request import Request
from openapi.slots import Slots

SLOT_TIMEOUT: Final = 2  # seconds
MAX_STREAMS: Final = 4  # of a user at the same time


class ConcurrencyLimit:
    """Admits requests to the handlers while there are slots; others wait SLOT_TIMEOUT at most.

    A slot is held while a handler works, not while its response is sent, so a slow reader holds none, and a streamed
    response takes one for each of its parts. Since a stream keeps its last part in memory until it has a slot for the
    next, each user has MAX_STREAMS at the same time, and their others wait after the first part. With `until_sent`, for
    a host whose threads send the response, the slot is held until the response has ended. Requests without a caller,
    which are those of /health and /ready, need no slot.
    """

    def __init__(self, app: ASGIApp, *, slots: Slots, until_sent: bool) -> None:
        self.app = app
        self.slots = slots
        self.until_sent = until_sent
        self.streams = Slots(sys.maxsize, MAX_STREAMS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request in a slot. Raises ProblemError (503)."""
        caller = Request.of(scope).caller
        if caller is None:
            await self.app(scope, receive, send)
            return
        await self._acquire(caller.id)
        is_held, is_stream, has_begun = True, False, False

        async def send_without_slot(message: Message) -> None:
            nonlocal is_held, is_stream, has_begun
            has_begun = True
            is_kept = self.until_sent or message["type"] == "http.response.start"
            if not is_kept:
                self.slots.release(caller.id)
                is_held = False
            await send(message)
            if not is_kept and message.get("more_body"):
                if not is_stream:
                    await self.streams.acquire(caller.id)
                    is_stream = True
                await self.slots.acquire(caller.id)  # as long as it takes, since the response has begun
                is_held = True

        try:
            await self.app(scope, receive, send_without_slot)
        except asyncio.CancelledError:  # the server shuts down and waits no longer
            if has_begun:
                raise
            raise ProblemError(SHUTTING_DOWN) from None
        finally:
            if is_held:
                self.slots.release(caller.id)
            if is_stream:
                self.streams.release(caller.id)

    async def _acquire(self, user: str) -> None:
        if self.slots.take(user):  # without the cost of a timeout
            return
        try:
            async with asyncio.timeout(SLOT_TIMEOUT):
                await self.slots.acquire(user)
        except TimeoutError:
            raise ProblemError(BUSY) from None

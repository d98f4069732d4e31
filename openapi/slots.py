"""Slots for work at the same time, shared fairly among users."""

import asyncio
from collections import Counter, OrderedDict, deque


class Slots:
    """At most `size` slots, of which each user holds at most `share`, by default half; users who wait have turns.

    So a user who floods the service leaves the rest to everybody else. Of one user's requests the oldest is
    served first.
    """

    def __init__(self, size: int, share: int | None = None) -> None:
        self.free = size
        self.share = share or max(1, size // 2)
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # the next user first

    def take(self, user: str) -> bool:
        """Take a slot for a user if that is possible without waiting; then nobody waits who may have it."""
        is_possible = self.free > 0 and self._held[user] < self.share
        if is_possible:
            self.free -= 1
            self._held[user] += 1
        return is_possible

    async def acquire(self, user: str) -> None:
        """Take a slot for a user, and wait for it if need be."""
        if self.take(user):
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._remove(user, turn)
            else:  # it was granted at the same moment
                self.release(user)
            raise

    def release(self, user: str) -> None:
        """Give a user's slot back, to the next user who waits and may have it."""
        self.free += 1
        self._held[user] -= 1
        if not self._held[user]:
            del self._held[user]
        for other, turns in self._waiting.items():
            turn = next((one for one in turns if not one.done()), None)  # others have just been cancelled
            if turn and self.take(other):
                self._waiting.move_to_end(other)
                self._remove(other, turn)
                turn.set_result(None)
                return

    def _remove(self, user: str, turn: asyncio.Future[None]) -> None:
        self._waiting[user].remove(turn)
        if not self._waiting[user]:
            del self._waiting[user]

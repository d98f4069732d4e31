"""How much a user may store."""

from collections import OrderedDict
from typing import Any, Final

import sqlalchemy as sa

from models.idempotency_key import IS_EXPIRED, IdempotencyKey
from models.task import Task

RESERVE: Final = 100  # what is stored at the same time, at most
MAX_USERS: Final = 10_000  # whose room is remembered
UNLIMITED: Final = 2**31 - 1
NEAR: Final = -1


class Quota:
    """Limits a user's tasks and idempotency keys; 0 is no limit.

    Counting takes as long as there is something to count, so after a count that finds room for n more, n / RESERVE are
    stored without one. With room for RESERVE or less each is counted, while no other of the user's is. Other processes
    do not know what this one has yet to store, so together they can pass a limit by at most 1 % for each. More than
    RESERVE creations of one user at the same moment, on processes with that many connections, can pass it by the rest.
    """

    def __init__(self, tasks: int, keys: int) -> None:
        self.tasks = tasks or UNLIMITED
        self.keys = keys or UNLIMITED
        self._is_limited = bool(tasks or keys)
        self._uncounted: OrderedDict[str, int] = OrderedDict()  # how many, or NEAR

    def must_count(self, user_id: str) -> bool:
        """Tell whether what the user has must be counted before more is stored."""
        if not self._is_limited:
            return False
        left = self._uncounted.get(user_id, 0)
        if left > 0:
            self._uncounted[user_id] = left - 1
        return left <= 0

    def is_near(self, user_id: str) -> bool:
        """Tell whether little room was found when it was counted."""
        return self._uncounted.get(user_id) == NEAR

    def parameters(self, *, is_exclusive: bool) -> dict[str, int]:
        """Return the values of the parameters in STORED and HAS_ROOM, with a reserve for what is stored meanwhile."""
        reserve = 0 if is_exclusive else RESERVE
        return {"max_tasks": max(0, self.tasks - reserve), "max_keys": max(0, self.keys - reserve)}

    def note(self, user_id: str, tasks: int, keys: int) -> None:
        """Note what was found when it was counted."""
        room = min(self.tasks - tasks, self.keys - keys)
        self._uncounted[user_id] = room // RESERVE if room > RESERVE else NEAR
        if len(self._uncounted) > MAX_USERS:
            self._uncounted.popitem(last=False)


def _number(owner: sa.orm.InstrumentedAttribute[str], limit: str, *conditions: Any) -> sa.ScalarSelect[Any]:
    """Return a query for the number of a user's rows, which counts no further than the limit."""
    some: sa.Select[Any] = sa.select(sa.literal_column("1")).where(owner == sa.bindparam("the_user"), *conditions)
    return sa.select(sa.func.count()).select_from(some.limit(_maximum(limit)).subquery()).scalar_subquery()


def _maximum(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.Integer)


STORED: Final = sa.select(
    _number(Task.user_id, "max_tasks").label("stored_tasks"),
    _number(IdempotencyKey.user_id, "max_keys", sa.not_(IS_EXPIRED)).label("stored_keys"),
).cte("stored")
HAS_ROOM_FOR_TASK: Final = STORED.c.stored_tasks < _maximum("max_tasks")
HAS_ROOM_FOR_KEY: Final = STORED.c.stored_keys < _maximum("max_keys")

"""SQLAlchemy's greenlets, in which a plain function awaits a coroutine without blocking the event loop."""

from sqlalchemy.util import await_ as wait_for
from sqlalchemy.util import greenlet_spawn as run_in_greenlet

__all__ = ["run_in_greenlet", "wait_for"]

"""Waiting for what happens in another thread or process."""

import time
from collections.abc import Callable


def await_true(condition: Callable[[], bool], timeout: float = 20) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)

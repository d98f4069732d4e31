"""The keeper: a small process that starts PostgreSQL, starts it again when it dies, and ends it after its last user.

It is a program of its own, which imports nothing but the standard library, so that it stays small. It is run with an
order in JSON, and inherits the lock that says that a keeper is there. Users hold a shared lock on the file `use`; the
kernel takes it from a process that ends, in whatever way.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import Any

GRACE = 10  # seconds to stop in good order, before it is stopped at once
LOOK = 2  # seconds between two looks at whether somebody else has told PostgreSQL to stop
LONGEST_PAUSE = 5.0  # seconds between two attempts to start it again
DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG
COULD_NOT_START = 1  # PostgreSQL's exit status then


class Keeper:
    """Runs one PostgreSQL as the order says: `use`, `data`, `room`, `record`, `command`, `environment`, `account`."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._server: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._stopping = threading.Event()
        self._is_unused = False

    def run(self) -> int:
        """Run until the last user has ended or a signal comes; return 1 if PostgreSQL cannot be started."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: threading.Thread(target=self._stop).start())
        for watch in (self._await_last_user, self._hasten):
            threading.Thread(target=watch, daemon=True).start()
        has_run = False
        pause = 0.1
        while server := self._start():
            status = server.wait()
            has_run = has_run or status != COULD_NOT_START
            if not has_run and not self._stopping.is_set():
                return COULD_NOT_START
            pause = min(2 * pause, LONGEST_PAUSE) if status == COULD_NOT_START else 0.1
            self._stopping.wait(pause)
        if self._is_unused:
            shutil.rmtree(self._order["room"], ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._order["record"])
        return 0

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._starting:
            if self._stopping.is_set():
                return None
            self._server = subprocess.Popen(  # noqa: S603  (of the process that started this one)
                self._order["command"],
                cwd=self._order["data"],
                env=self._order["environment"],
                stdin=subprocess.DEVNULL,
                umask=0o077,
                preexec_fn=_die_with_the_keeper,
                **self._order["account"],
            )
            return self._server

    def _await_last_user(self) -> None:
        descriptor = os.open(self._order["use"], os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # kept to the end, so that whoever comes now waits
        self._is_unused = True
        self._stop()

    def _hasten(self) -> None:
        """Make a smart shutdown a fast one: it would wait for connections that a pool never closes."""
        file = os.path.join(self._order["data"], "postmaster.pid")
        while not self._stopping.wait(LOOK):
            with contextlib.suppress(OSError), open(file, errors="replace") as opened, self._starting:
                if self._server and opened.read().endswith("stopping\n"):
                    self._server.send_signal(signal.SIGINT)

    def _stop(self) -> None:
        with self._starting:
            self._stopping.set()
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):  # a fast shutdown, an immediate one, none
            if self._server and self._server.poll() is None:
                self._server.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._server.wait(GRACE)


def _die_with_the_keeper() -> None:  # pragma: no cover (runs between fork and exec)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIES_WITH_PARENT, int(signal.SIGINT), 0, 0, 0)


if __name__ == "__main__":
    sys.exit(Keeper(json.loads(sys.argv[1])).run())

"""One process's use of the server: it holds a lock, starts the keeper where there is none, and again if that dies.

Beside the data folder `postgres` lies `postgres.run` with two locks, which the kernel releases when their holder ends,
however it ends. `use` is shared by all users; the keeper takes it alone when the last of them is gone. `keeper` belongs
to the keeper; who gets it starts one, to which it is handed on.
"""

import fcntl
import json
import logging
import os
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg

from postgres.embedded import data, keeper, room
from postgres.embedded.failure import EmbeddedFailure, first_line
from postgres.embedded.installation import ENVIRONMENT, programs, server_account

PATIENCE = 60  # seconds for the server to be there, also after a crash
PAUSE = 0.05  # seconds between two looks
RETRY = 1  # seconds between two attempts to start a keeper
# What passes when the last processes of a killed server have ended.
PASSING = ("shared memory block", "lock file")
log = logging.getLogger(__name__)


class Use:
    """The use of the server with its data in a folder, from now to `end`. Raises EmbeddedFailure, OSError."""

    def __init__(self, directory: Path) -> None:
        self._data = directory
        directory.parent.mkdir(parents=True, exist_ok=True)
        self._account = server_account(directory)
        self._run = directory.with_name(f"{directory.name}.run")
        self._owner = directory.parent.stat()
        if not self._run.exists():
            with suppress(FileExistsError):
                self._run.mkdir(mode=0o700)
                self._give(self._run)
        self._check_run()
        self._record, self._log = self._run / "room", self._run / "log"
        self._ended = threading.Event()
        self._keeper: subprocess.Popen[bytes] | None = None
        self._lock = self._open("use")
        self._watch: threading.Thread | None = None

    def await_server(self) -> str:
        """Return the superuser's URL once the server answers."""
        deadline = time.monotonic() + PATIENCE
        complaint = "the last one does not end"
        while time.monotonic() < deadline:
            if _take(self._lock, fcntl.LOCK_SH):  # else a keeper is at its end
                if self._watch is None and (lock := self._try("keeper")) is not None:
                    self._launch_here(lock, deadline)
                try:
                    url = room.url(self._record, self._account)
                    psycopg.connect(url, connect_timeout=10).close()
                except (psycopg.OperationalError, FileNotFoundError) as error:
                    complaint = first_line(error)
                else:
                    self._begin_watch()
                    return url
            time.sleep(PAUSE)
        raise EmbeddedFailure(f"The embedded PostgreSQL does not answer: {complaint}. Its log is {self._log}.")

    def end(self) -> None:
        """End the use; if it was the last, wait until the server has stopped."""
        self._ended.set()
        os.close(self._lock)
        deadline = time.monotonic() + PATIENCE
        lock = self._open("use")
        while (free := self._try("keeper")) is None and time.monotonic() < deadline:
            if not _take(lock, fcntl.LOCK_EX) and _take(lock, fcntl.LOCK_SH):
                break  # others use it
            fcntl.flock(lock, fcntl.LOCK_UN)
            time.sleep(PAUSE)
        if free is not None:
            if _take(lock, fcntl.LOCK_EX):
                room.leave(self._record, self._account)  # which a keeper that failed has left
            os.close(free)
        os.close(lock)

    def _check_run(self) -> None:
        """See that nobody else can have written to the folder: what is in it is deleted, and leads to the server."""
        found = self._run.lstat()
        is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid in (os.geteuid(), self._owner.st_uid)
        if not is_ours or found.st_mode & 0o077:
            raise EmbeddedFailure(
                f"{self._run} is not a folder that is closed to other users of this machine. "
                "Stop the service and remove it; it is made again."
            )

    def _launch_here(self, lock: int, deadline: float) -> None:
        """Start the keeper, unless this process's last one has failed for good."""
        if self._keeper:
            self._keeper.wait()
            why = data.reason(self._log.read_text(errors="replace"))
            if not any(one in why for one in PASSING) or time.monotonic() > deadline - PATIENCE + data.PATIENCE:
                os.close(lock)
                raise EmbeddedFailure(f"The embedded PostgreSQL does not start: {why}. Its log is {self._log}.")
        self._launch(lock)

    def _begin_watch(self) -> None:
        if self._watch is None:
            self._watch = threading.Thread(target=self._relaunch, daemon=True, name="embedded PostgreSQL")
            self._watch.start()

    def _relaunch(self) -> None:
        """Start a keeper whenever there is none, to the end of the use."""
        pause = RETRY
        while True:
            if self._keeper:
                self._keeper.wait()
            try:
                lock = self._open("keeper")
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self._ended.is_set():
                    os.close(lock)
                    return
                self._launch(lock)
                pause = RETRY
            except (EmbeddedFailure, OSError) as error:
                log.warning("The embedded PostgreSQL cannot be started again: %s", error)
                pause = min(2 * pause, PATIENCE)
            self._ended.wait(pause)

    def _launch(self, lock: int) -> None:
        """Start the keeper and hand it the lock."""
        try:
            account = server_account(self._data)
            is_missing = data.is_missing(self._data)
            place = room.enter(self._record, account)
            folder = programs(account, place)
            if is_missing:
                data.make(self._data, self._run / "new", folder, account, lock)
            order = {
                "use": str(self._run / "use"),
                "data": str(self._data),
                "room": str(place),
                "record": str(self._record),
                "command": [str(folder / "postgres"), "-D", data.argument(self._data), *room.options(place)],
                "environment": ENVIRONMENT,
                "account": account.options if account else {},
            }
            output = self._open("log", os.O_APPEND | os.O_TRUNC)
            self._keeper = subprocess.Popen(  # noqa: S603  (a constant command)
                [sys.executable, "-I", keeper.__file__, json.dumps(order)],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=[lock],
            )
            os.close(output)
        finally:
            os.close(lock)

    def _open(self, name: str, flags: int = 0) -> int:
        descriptor = os.open(self._run / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600)
        self._give(self._run / name)
        return descriptor

    def _give(self, path: Path) -> None:
        """Give what root makes in another user's folder to that user, who may start the service next."""
        if os.geteuid() == 0:
            os.chown(path, self._owner.st_uid, self._owner.st_gid, follow_symlinks=False)

    def _try(self, name: str) -> int | None:
        descriptor = self._open(name)
        if _take(descriptor, fcntl.LOCK_EX):
            return descriptor
        os.close(descriptor)
        return None


def _take(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""The data folder: made as a whole or not at all, and looked at before each start."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import Path

from postgres.embedded.failure import EmbeddedFailure
from postgres.embedded.installation import ENVIRONMENT, MAJOR, Account

# A server's folder is its working directory. By this name it reaches it behind folders that are closed to its account,
# with any character in their names, and at any length.
BY_LINK = "/proc/self/cwd"
OTHERS = 0o027  # what PostgreSQL allows nobody but the owner, except that the group may read
PATIENCE = 10  # seconds for a server to end that its keeper left behind
# Not what a connection that comes too early is told.
ERROR = re.compile(r"(?:FATAL|PANIC|error): +(?!the database system is)(.*)")


def argument(data: Path) -> str:
    """Return what names the data folder to a program that is started in it."""
    return BY_LINK if os.path.exists(BY_LINK) else str(data)


def is_missing(data: Path) -> bool:
    """Tell whether there is nothing in the folder yet; else see that a server can run with it.

    Raises EmbeddedFailure, OSError.
    """
    if not data.exists() or not any(data.iterdir()):
        return True
    _check(data)
    _forget_dead_server(data)
    return False


def make(data: Path, draft: Path, programs: Path, account: Account | None, lock: int) -> None:
    """Make the data in the folder `draft` and move them, so that they are never half there.

    PostgreSQL's programs hold the descriptor `lock` meanwhile: if this process is killed, nobody begins before they
    have ended. Raises EmbeddedFailure, OSError.
    """
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    if account:
        os.chown(draft, account.uid, account.gid, follow_symlinks=False)
    command = [str(programs / "initdb"), "-D", argument(draft), "-U", "postgres"]
    command += ["--auth-local=peer", "--auth-host=reject", "--encoding=UTF8", "--locale=C"]
    result = subprocess.run(  # noqa: S603  (a constant command)
        command,
        cwd=draft,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        pass_fds=[lock],
        **account.options if account else {},
    )
    if result.returncode:
        shutil.rmtree(draft, ignore_errors=True)
        raise EmbeddedFailure(f"The embedded PostgreSQL cannot make {data}: {reason(result.stderr)}.")
    draft.rename(data)


def reason(log: str) -> str:
    """Return the first error in what PostgreSQL has printed."""
    found = ERROR.search(log)
    lines = log.strip().splitlines()
    return (found[1] if found else lines[-1] if lines else "it says nothing, as on a full disk").rstrip(".")


def _check(data: Path) -> None:
    version = data / "PG_VERSION"
    if not version.exists() or not (data / "global" / "pg_control").exists():
        raise EmbeddedFailure(f"{data} is not a whole data folder of PostgreSQL. Move it away, and a new one is made.")
    if (major := version.read_text(errors="replace").strip()) != str(MAJOR):
        raise EmbeddedFailure(
            f"{data} was made by PostgreSQL {major}, and the embedded one is {MAJOR}. Move it away, and a new one is "
            f"made, or run it with a PostgreSQL {major} and set DATABASE_URL."
        )
    if data.stat().st_mode & OTHERS:
        raise EmbeddedFailure(
            f"{data} is open to other users of this machine, who may have changed what is in it. "
            f"If you trust it, close it: chmod -R go-rwx {shlex.quote(str(data))}"
        )


def _forget_dead_server(data: Path) -> None:
    """Remove the file that PostgreSQL leaves behind when it is killed, which may name a process of somebody else's now.

    Nobody is signalled: a server that runs listens on its socket.
    """
    file = data / "postmaster.pid"
    deadline = time.monotonic() + PATIENCE
    while (lines := _lines(file)) and _listens(lines):
        if time.monotonic() > deadline:
            raise EmbeddedFailure(
                f"Another PostgreSQL, process {lines[0]}, runs with the data in {data}. End it: kill -INT {lines[0]}"
            )
        time.sleep(0.1)
    file.unlink(missing_ok=True)


def _lines(file: Path) -> list[str]:
    return file.read_text(errors="replace").splitlines() if file.exists() else []


def _listens(lines: list[str]) -> bool:
    if len(lines) < 5 or not lines[4]:
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(f"{lines[4]}/.s.PGSQL.{lines[3]}")
        except OSError:  # also where the path is too long for a socket
            return False
    return True

"""Processes that use an embedded PostgreSQL, and what can be seen of its own processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from postgres.embedded.installation import PACKAGE
from tests.support.server import ROOT

USE = """
import sys
from pathlib import Path
from postgres import embedded
print(embedded.start(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


class User:
    """A process that uses the server with its data in a folder until it is ended."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-c", USE, str(directory)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            **options,
        )
        self.url = ""

    def await_url(self) -> str:
        """Wait until the server is there."""
        assert self.process.stdout
        self.url = self.process.stdout.readline().strip()
        assert self.url, "the process has failed"
        return self.url

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the process by a signal."""
        self.process.send_signal(how)
        self.process.communicate(timeout=60)


@contextmanager
def user(directory: Path) -> Iterator[User]:
    """Run a process that uses the server, which is there."""
    one = User(directory)
    try:
        one.await_url()
        yield one
    finally:
        one.end()


def fake_programs(folder: Path, initdb: str) -> Path:
    """Put a package into the folder whose `initdb` is a script of the shell, and return where its programs are."""
    programs = folder / PACKAGE / "pginstall18" / "bin"
    programs.mkdir(parents=True)
    (folder / PACKAGE / "__init__.py").write_text("")
    for name, script in {"initdb": f'[ "$1" = --version ] && exit\n{initdb}', "postgres": ""}.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    return programs


def postmaster(directory: Path) -> int:
    """Return the process id of the server, 0 if none is there."""
    file = directory / "postmaster.pid"
    lines = file.read_text().split() if file.exists() else []
    return int(lines[0]) if lines else 0


def parent(process: int) -> int:
    """Return the process id of a process's parent."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def is_running(process: int) -> bool:
    """Tell whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def room(url: str) -> Path:
    """Return the folder of the server's socket."""
    return Path(str(conninfo_to_dict(url)["host"]))


def modes(path: Path) -> dict[Path, int]:
    """Return the modes of a folder and of all above it."""
    return {folder: os.stat(folder).st_mode for folder in (path, *path.parents)}


def value(url: str, query: str) -> object:
    """Return the one value that a query yields."""
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
        assert row
        return row[0]

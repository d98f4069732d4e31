"""A PostgreSQL in a process of its own on a loopback port, which tests kill, start again and copy."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg.conninfo import make_conninfo

from postgres.embedded.installation import Account, programs

# As root PostgreSQL refuses to run.
ACCOUNT = Account(*pwd.getpwnam("nobody")[2:4], "nobody") if os.geteuid() == 0 else None
OPTIONS: dict[str, Any] = ACCOUNT.options if ACCOUNT else {}


class Postgres:
    """A server with an empty database for the application's role; `copy_of` makes it another server's standby."""

    def __init__(self, *, copy_of: "Postgres | None" = None, **settings: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tasks-api-postgres-"))
        self._data = self.directory / "data"
        self._settings = {"fsync": "off", "listen_addresses": "127.0.0.1", **settings}
        self._settings["unix_socket_directories"] = ""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"user=tasks_api dbname=tasks_api host=127.0.0.1 port={self.port}"
        self.superuser_url = f"user=postgres dbname=postgres host=127.0.0.1 port={self.port}"
        self._copy_of = copy_of
        self.programs = programs(ACCOUNT, self.directory)
        if ACCOUNT:
            os.chown(self.directory, ACCOUNT.uid, ACCOUNT.gid)

    def __enter__(self) -> Self:
        if self._copy_of:
            self._run("pg_basebackup", "-D", self._data, "-d", self._copy_of.superuser_url, "-R", "-c", "fast")
            self.start()
        else:
            self._run("initdb", "-D", self._data, "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync")
            self.start()
            self.execute("CREATE ROLE tasks_api LOGIN")
            self.execute("CREATE DATABASE tasks_api OWNER tasks_api")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start, also after a crash, and wait until it answers."""
        deadline = time.monotonic() + 60
        while True:
            settings = (f"--{name}={value}" for name, value in {**self._settings, "port": str(self.port)}.items())
            with (self.directory / "log").open("a") as log:
                self._process = subprocess.Popen(
                    [self.programs / "postgres", "-D", self._data, *settings],
                    stdout=log,
                    stderr=log,
                    cwd=self.directory,
                    **OPTIONS,
                )
            while self._process.poll() is None:  # it ends at once while a killed server's processes are still there
                try:
                    psycopg.connect(self.superuser_url).close()
                    return
                except psycopg.OperationalError:
                    assert time.monotonic() < deadline, (self.directory / "log").read_text()
                    time.sleep(0.05)
            assert time.monotonic() < deadline, (self.directory / "log").read_text()
            time.sleep(0.05)

    def stop(self, how: signal.Signals) -> None:
        """End the server: SIGINT in good order, SIGQUIT at once, SIGKILL as in a crash."""
        if self._process.poll() is None:
            self._process.send_signal(how)
        self._process.wait(timeout=30)

    def promote(self) -> None:
        """Make a standby the primary and wait until it is."""
        self.execute("SELECT pg_promote()")

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the superuser and return its rows."""
        with psycopg.connect(make_conninfo(self.superuser_url, dbname=database), autocommit=True) as connection:
            result = connection.execute(statement)
            return result.fetchall() if result.description else []

    def disconnect(self, role: str = "tasks_api") -> None:
        """Close all connections of the role, from the server's side."""
        self.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{role}'")

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self.programs / program), *map(str, arguments)]
        result = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, check=False, **OPTIONS)
        assert result.returncode == 0, result.stderr


@contextmanager
def another_database(database_url: str) -> Iterator[str]:
    """Make another database on the same server, without a schema."""
    name = f"empty_{secrets.token_hex(4)}"
    administrator = database_url.replace("user=tasks_api", "user=postgres")
    with psycopg.connect(administrator, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} OWNER tasks_api")
        yield database_url.replace("dbname=tasks_api", f"dbname={name}")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

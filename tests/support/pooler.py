"""PgBouncer in transaction mode, in front of the test database."""

import os
import pwd
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.support.relay import Relay

# A pipeline that fails at once can leave PgBouncer 1.18 waiting (pgbouncer/pgbouncer#759): then a client of its queue
# gets an error after query_wait_timeout seconds, and the test fails instead of standing still.
CONFIGURATION = """
[databases]
tasks_api = host=127.0.0.1 port={database_port} dbname={dbname} user=tasks_api pool_size=2
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 100
query_wait_timeout = 20
logfile = {directory}/log
"""


@contextmanager
def pooler(program: str, database_url: str, directory: Path) -> Iterator[str]:
    """Run PgBouncer with two connections for all clients; gives the URL of the database behind it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    configuration = directory / "pgbouncer.ini"
    command = [program, "-q", str(configuration)]
    if os.geteuid() == 0:  # PgBouncer refuses to run as root
        nobody = pwd.getpwnam("nobody")
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        for parent in (directory, *directory.parents):
            parent.chmod(parent.stat().st_mode | 0o055)
        command[1:1] = ["-u", "nobody"]
    with Relay(database_url) as relay:  # the database's socket lets in who started it, and PgBouncer is another user
        server = conninfo_to_dict(relay.url)
        configuration.write_text(
            CONFIGURATION.format(database_port=server["port"], dbname=server["dbname"], port=port, directory=directory)
        )
        process = subprocess.Popen(command)
        try:
            url = f"postgresql://tasks_api@127.0.0.1:{port}/tasks_api"
            _await_answer(url, process)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=10)


def _await_answer(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            assert process.poll() is None, "PgBouncer ended"
            assert time.monotonic() < deadline, "PgBouncer does not answer"
            time.sleep(0.05)

"""The service behind a transaction pooler, as on Neon."""

import os
import pwd
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from openapi.settings import Settings
from tests.client import Client, Conformance
from tests.server import Server

CONFIGURATION = """
[databases]
tasks_api = host={host} dbname=tasks_api user=tasks_api pool_size=3
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 100
logfile = {directory}/log
"""


@pytest.fixture
def pooler_url(database_url: str, need: Callable[..., str], tmp_path: Path) -> Iterator[str]:
    """The URL of the database behind PgBouncer in transaction mode, with three connections for all clients."""
    program = need("pgbouncer")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    host = str(conninfo_to_dict(database_url)["host"])
    configuration = tmp_path / "pgbouncer.ini"
    configuration.write_text(CONFIGURATION.format(host=host, port=port, directory=tmp_path))
    command = [program, "-q", str(configuration)]
    if os.geteuid() == 0:  # PgBouncer refuses to run as root; the owner of the socket may use it
        owner = pwd.getpwuid(Path(host).stat().st_uid)
        os.chown(tmp_path, owner.pw_uid, owner.pw_gid)
        for parent in (tmp_path, *tmp_path.parents):
            parent.chmod(parent.stat().st_mode | 0o055)
        command[1:1] = ["-u", owner.pw_name]
    process = subprocess.Popen(command)
    url = f"postgresql://tasks_api@127.0.0.1:{port}/tasks_api"
    deadline = time.monotonic() + 10
    while True:
        try:
            psycopg.connect(url).close()
            break
        except psycopg.OperationalError:
            assert process.poll() is None, "PgBouncer ended"
            assert time.monotonic() < deadline, "PgBouncer does not answer"
            time.sleep(0.05)
    yield url
    process.terminate()
    process.wait(timeout=10)


def test_users_who_share_pooled_connections_see_only_their_own_tasks(
    pooler_url: str, make_settings: Callable[..., Settings], conformance: Conformance
) -> None:
    with Server(make_settings(database_url=pooler_url)) as server:
        clients = [Client(server.url, conformance, token=server.token(sub=f"pooled-{n}")) for n in range(8)]

        def work(number: int) -> list[str]:
            client = clients[number]
            for step in range(10):
                task = client.create(f"{number} {step}")
                client.patch(f"/api/tasks/{task['id']}/complete")
            return sorted(client.titles(status="completed"))

        with ThreadPoolExecutor(len(clients)) as threads:
            seen = list(threads.map(work, range(len(clients))))
        for client in clients:
            client.close()
    assert seen == [[f"{number} {step}" for step in range(10)] for number in range(8)]

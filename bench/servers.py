"""The servers: how each is started, when it first answers, and what it takes of the machine."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

import httpx
import psutil

from bench import data

ROOT = Path(__file__).parent.parent
FASTIFY = ROOT / "bench" / "peers" / "fastify"
OLDEST_NODE = 20
PATIENCE = 60  # seconds for the start
TIMEOUT = 2  # seconds for an answer without load


class Peer(NamedTuple):
    """A server: its name in the report, its command for a port, the role that it connects as, and its settings."""

    title: str
    command: Callable[[int], list[str]]
    role: str
    settings: dict[str, str] = {}  # noqa: RUF012


def _serve(port: int) -> list[str]:
    return [sys.executable, "-m", "server", "serve", "--port", str(port)]


def _uvicorn(module: str) -> Callable[[int], list[str]]:
    options = ["--no-access-log", "--log-level", "warning"]
    return lambda port: [sys.executable, "-m", "uvicorn", f"bench.peers.{module}:app", *options, "--port", str(port)]


PEERS = {
    "service": Peer("this service", _serve, data.OWNER),
    "flask": Peer("this service on Flask", _serve, data.OWNER, {"SERVER_FRAMEWORK": "flask"}),
    "fastapi": Peer("FastAPI + SQLModel", _uvicorn("fastapi_sqlmodel"), data.BYPASS),
    "connexion": Peer("Connexion FlaskApp + ORM", _uvicorn("connexion_flask"), data.BYPASS),
    "fastify": Peer("Fastify + pg", lambda _port: ["node", str(FASTIFY / "server.js")], data.BYPASS),
    "floor": Peer("the floor: ASGI + psycopg", _uvicorn("floor"), data.OWNER),
}


def missing(name: str) -> str | None:
    """Return what this machine lacks for a peer, None where it can run."""
    if name != "fastify":
        return None
    if shutil.which("node") is None:
        return "node is not installed"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").partition(".")[0]) < OLDEST_NODE:
        return f"node is {version}, {OLDEST_NODE} or later is needed"
    if not (FASTIFY / "node_modules").is_dir():
        return "its packages are not installed: `npm ci` in bench/peers/fastify"
    return None


class Server:
    """Runs a peer in a process of its own; `startup` is how many seconds it took to its first answer with a task."""

    def __init__(self, peer: Peer, database_url: str, *, workers: int = 1) -> None:
        self._peer = peer
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._command = peer.command(port)
        self._environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")} | {
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": database_url,
            "BETTER_AUTH_SECRET": data.SECRET,
            "DATABASE_POOL_SIZE": "10",
            "WEB_CONCURRENCY": str(workers),
            "LOG_LEVEL": "warning",  # no access log, as for all peers
            "NODE_ENV": "production",
            "PORT": str(port),
            **peer.settings,
        }

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile("w+")
        self.startup = self._start()
        return self

    def _start(self) -> float:
        started = time.perf_counter()
        process = subprocess.Popen(
            self._command, env=self._environment, cwd=ROOT, stdout=self._log, stderr=subprocess.STDOUT
        )
        self._process = psutil.Process(process.pid)
        self._popen = process
        while not self._answers():
            if process.poll() is not None or time.perf_counter() - started > PATIENCE:
                self.__exit__()
                raise RuntimeError(f"{self._peer.title} does not start:\n{self.log()}")
            time.sleep(0.005)
        return time.perf_counter() - started

    def revive(self) -> bool:
        """Start the server again if a load has left it so that it does not answer; return whether it had to be."""
        if self._answers():
            return False
        self._popen.kill()
        self._popen.wait()
        self._start()
        return True

    def __exit__(self, *_: object) -> None:
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()

    def log(self) -> str:
        """Return what the server has written."""
        self._log.seek(0)
        return self._log.read()

    def cpu(self) -> float:
        """Return the seconds of processor time that the server has used, its workers' included."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes())

    def memory(self) -> float:
        """Return the resident memory of the server and its workers in MiB."""
        return sum(process.memory_info().rss for process in self.processes()) / 2**20

    def processes(self) -> list[psutil.Process]:
        """Return the process of the server and those that it has started."""
        return [self._process, *self._process.children(recursive=True)]

    def _answers(self) -> bool:
        headers = {"Authorization": f"Bearer {data.token(data.user(0))}"}
        try:
            return httpx.get(f"{self.url}/api/tasks", headers=headers, timeout=TIMEOUT, trust_env=False).is_success
        except httpx.TransportError:
            return False

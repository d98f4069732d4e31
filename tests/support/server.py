"""The application served over real HTTP, in a thread of the test process or in processes of its own."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

import httpx
import uvicorn

from openapi.app import create_app, token_verifier
from server.http_protocol import HttpProtocol
from settings.settings import Settings

SECRET = "a-secret-for-tests-that-is-long-enough"
ROOT = Path(__file__).parent.parent.parent
INHERITED = re.compile("PATH|HOME|SYSTEMROOT|COVERAGE_.*")


class Server:
    """Serves the application from a thread of this process, every answer held to the contract."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        app = create_app(settings)
        config = uvicorn.Config(
            app,
            port=0,
            log_config=None,
            access_log=False,
            server_header=False,
            http=HttpProtocol,
            ws="none",
            timeout_keep_alive=settings.keep_alive_timeout,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)

    def token(self, lifetime: int = 300, **claims: Any) -> str:
        """Return a token that the server accepts."""
        return sign(self.settings, lifetime, **claims)


class ServerProcess:
    """Runs `tasks-api serve` in a process of its own, with nothing in its environment but what is given."""

    def __init__(self, *arguments: str, directory: Path, **environment: str) -> None:
        self._command = [sys.executable, "-m", "server", "serve", "--port", "0", *arguments]
        inherited = {name: value for name, value in os.environ.items() if INHERITED.fullmatch(name)}
        self._environment = inherited | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | environment
        self._directory = directory
        self.log = directory / "server.log"
        self.url = ""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.process.kill()
            raise
        return self

    def restart(self, port: str) -> None:
        """Start again, after the process has ended, on a port of its choice before."""
        self._command[self._command.index("--port") + 1] = port
        self._start()

    def _start(self) -> None:
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self._directory, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 90
        while not (found := re.search(r"running on (http://\S+)", self.log.read_text())):
            assert self.process.poll() is None, f"the server did not start:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"the server is not up after 90 s:\n{self.log.read_text()}"
            time.sleep(0.02)
        self.url = found[1]
        while not self.answers():  # with several workers uvicorn says so before any of them listens
            assert time.monotonic() < deadline, f"the server does not answer:\n{self.log.read_text()}"
            time.sleep(0.02)

    def answers(self) -> bool:
        """Tell whether the service is up."""
        try:
            return httpx.get(f"{self.url}/health", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise


def sign(settings: Settings, lifetime: int = 300, **claims: Any) -> str:
    """Return a token signed with the secret of the settings."""
    return token_verifier(settings).sign(claims, lifetime)

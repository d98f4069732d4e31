"""The processes that serve: a single one of uvicorn's, or a supervisor and its workers."""

import multiprocessing
import os
import signal
import socket
import sys
import threading
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

import click
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import ChangeReload, Multiprocess
from uvicorn.supervisors.multiprocess import Process

from server.sockets import shared
from settings.settings import Settings

if TYPE_CHECKING:
    from connexion.apps.abstract import AbstractApp

# psycopg cannot wait in the usual event loop of Windows.
EVENT_LOOP = "asyncio:SelectorEventLoop" if sys.platform == "win32" else "auto"
# uvloop accepts one connection of a socket in each turn of its loop. Where many requests in a row make its turns long,
# new connections would wait for seconds, so it gets several descriptors of each socket.
ACCEPTED = 1 if sys.platform == "win32" else 32  # connections in a turn
SHUTDOWN = 10  # seconds for requests in flight to finish


class Server(uvicorn.Server):
    """Says where it serves, and what else there is to say, as soon as it does."""

    def __init__(self, config: uvicorn.Config, announcement: str) -> None:
        super().__init__(config)
        self._announcement = announcement

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and accept connections."""
        await super().startup([one.dup() for one in sockets or () for _ in range(ACCEPTED)] or None)
        click.echo(self._announcement)


class Workers(Multiprocess):
    """Several workers, of which the first starts alone: what stops it would stop them all, again and again."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], announcement: str) -> None:
        super().__init__(config, sockets)
        self._announcement = announcement
        self._is_serving = False
        self.has_failed = False

    def init_processes(self) -> None:
        """Start the first worker."""
        self._start()

    def keep_subprocess_alive(self) -> None:
        """Start the other workers when the first serves, and then those that replace dead ones."""
        if self.should_exit.is_set():
            return
        if not self._is_serving:
            if self.processes[0].exitcode is not None:  # it has said why
                self.has_failed = True
                self.should_exit.set()
            elif self.processes[0].is_ready(timeout=1):
                self._is_serving = True
                click.echo(self._announcement)
                while len(self.processes) < self.processes_num:
                    self._start()
            return
        super().keep_subprocess_alive()
        self.has_failed = self.should_exit.is_set()

    def _start(self) -> None:
        process = Process(self.config, self.sockets)
        process.start()
        self.processes.append(process)


def run(settings: Settings, sockets: list[socket.socket], *, announcement: str, reload: bool) -> None:
    """Serve on listening sockets until a signal ends it; exit with 1 if the start fails.

    The announcement is printed as soon as requests are answered.
    """
    options: dict[str, Any] = {
        "app": "server.processes:application",  # by name, like the protocol, so that the supervisor imports neither
        "factory": True,
        "host": settings.host,
        "port": sockets[0].getsockname()[1],
        "workers": settings.web_concurrency,
        "reload": reload,
        "log_config": _logging(settings),
        "access_log": False,
        "server_header": False,
        "timeout_keep_alive": settings.keep_alive_timeout,
        "timeout_graceful_shutdown": SHUTDOWN,
        "http": "server.http_protocol:HttpProtocol",
        "loop": EVENT_LOOP,
        "ws": "none",
        "forwarded_allow_ips": list(settings.forwarded_allow_ips),
    }
    config = uvicorn.Config(**options)
    server = Server(config, announcement)
    if reload:
        ChangeReload(config, target=server.run, sockets=sockets).run()
    elif config.workers > 1:
        workers = Workers(config, shared(sockets) if sys.platform == "linux" else sockets, announcement)
        workers.run()
        if workers.has_failed:
            sys.exit(1)
    else:
        _run(server, sockets)


def _run(server: Server, sockets: list[socket.socket]) -> None:
    try:
        server.run(sockets)
    except KeyboardInterrupt:
        pass
    except SystemExit as error:
        if error.code == STARTUP_FAILURE:
            sys.exit(1)
        raise


def application() -> "AbstractApp":
    """Return the application for a process that serves, which does not outlive its supervisor if it has one."""
    from openapi.app import application

    if supervisor := multiprocessing.parent_process():
        threading.Thread(target=_end_after, args=(supervisor.sentinel,), daemon=True).start()
    return application()


def _end_after(supervisor: int) -> None:
    wait([supervisor])
    os.kill(os.getpid(), signal.SIGTERM)


def _logging(settings: Settings) -> dict[str, Any]:
    """Return the logging configuration, which uvicorn applies in each of its processes."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": settings.log_level.upper(), "handlers": ["stderr"]},
        "loggers": {"connexion": {"level": "ERROR"}, "alembic": {"level": "WARNING"}},
    }

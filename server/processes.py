"""The processes that serve: one of uvicorn's, or several workers that it watches over."""

import socket
import sys
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from settings.settings import Settings

# psycopg cannot wait in the event loop that is usual on Windows.
EVENT_LOOP = "asyncio:SelectorEventLoop" if sys.platform == "win32" else "auto"
SHUTDOWN = 10  # seconds for requests in flight to end


class SharedPort(socket.socket):
    """A bound socket that each worker gets as one of its own at the same address.

    Linux then spreads the connections over the workers (socket(7), SO_REUSEPORT). Of one socket for all, the worker
    that wakes first takes every connection that waits, and a frontend that keeps its connections keeps to that worker.
    """

    def __reduce__(self) -> Any:
        return _bind, (self.family, self.getsockname())


def _bind(family: int, address: Any) -> SharedPort:
    found = SharedPort(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.bind(address)
    return found


def run(settings: Settings, port: int, *, reload: bool) -> None:
    """Serve until a signal ends it."""
    options: dict[str, Any] = {
        "app": "openapi.app:application",  # by name, as is the protocol: the process that watches imports neither
        "factory": True,
        "host": settings.host,
        "port": port,
        "workers": settings.web_concurrency,
        "reload": reload,
        "log_config": _logging(settings),
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": SHUTDOWN,
        "http": "server.http_protocol:HttpProtocol",
        "loop": EVENT_LOOP,
        "ws": "none",
        "forwarded_allow_ips": list(settings.forwarded_allow_ips),
    }
    if settings.web_concurrency == 1 or reload or sys.platform != "linux":
        uvicorn.run(**options)
        return
    config = uvicorn.Config(**options)
    with config.bind_socket() as alone:  # so that a port which another server shares is refused
        family, address = alone.family, alone.getsockname()
    Multiprocess(config, sockets=[_bind(family, address)]).run()


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

"""The processes that serve: a single one of uvicorn's, or a supervisor and its workers."""

import socket
import sys
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from settings.settings import Settings

# psycopg cannot wait in the usual event loop of Windows.
EVENT_LOOP = "asyncio:SelectorEventLoop" if sys.platform == "win32" else "auto"
SHUTDOWN = 10  # seconds for requests in flight to finish


class SharedPort(socket.socket):
    """A bound socket of which each worker gets its own at the same address.

    Linux then spreads connections over the workers (socket(7), SO_REUSEPORT). With a common socket the first worker to
    wake takes every waiting connection, and keeps it as long as the frontend does.
    """

    def __reduce__(self) -> Any:
        return _bind, (self.family, self.getsockname())


def _bind(family: int, address: Any) -> SharedPort:
    shared = SharedPort(family)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    shared.bind(address)
    return shared


def run(settings: Settings, port: int, *, reload: bool) -> None:
    """Serve until a signal ends it."""
    options: dict[str, Any] = {
        "app": "openapi.app:application",  # by name, like the protocol, so that the supervisor imports neither
        "factory": True,
        "host": settings.host,
        "port": port,
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
    if settings.web_concurrency == 1 or reload or sys.platform != "linux":
        uvicorn.run(**options)
        return
    config = uvicorn.Config(**options)
    with config.bind_socket() as exclusive:  # refuses a port that another server shares
        family, address = exclusive.family, exclusive.getsockname()
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

"""What one user who stays within the rate limit, or a stranger, takes from others: `python -m bench.fairness`.

For each kind of attack it starts a server of its own and prints, for the time of the attack, how many of another user's
requests succeeded within two seconds, the slowest of them, the slowest `/health`, and by how much the server grew.
"""

import argparse
import asyncio
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from models import schema
from postgres import embedded
from postgres.database import Database
from settings.settings import Settings
from tests.support.lists import insert_many
from tests.support.server import ServerProcess, sign

SECRET = "a-secret-for-the-benchmark-only-32-bytes"
VICTIM = "victim"
TASKS = 20_000
# The attackers' descriptions: one is long to search, the other to send, six bytes a character.
ATTACKERS = {"searcher": "ß" * 1000, "lister": "\x01" * 1000}
A_MINUTE = 600  # requests that a user may send
LIMIT = 2  # seconds within which another user expects an answer
DURATION = 20  # seconds of each attack
MIB = 1024 * 1024


@dataclass
class Attack:
    """Connections to a server, closed at its end."""

    host: str
    port: int
    token: str
    connections: list[asyncio.StreamWriter] = field(default_factory=list)

    async def send(self, path: str, headers: str = "", times: int = 1) -> asyncio.StreamReader:
        """Send requests on a connection of their own, and read nothing."""
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that the kernel takes little of an answer
        small.setblocking(False)
        await asyncio.get_running_loop().sock_connect(small, (self.host, self.port))
        reader, writer = await asyncio.open_connection(sock=small, limit=1024)
        self.connections.append(writer)
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\n{headers}\r\n"
        writer.write(head.encode() * times)
        return reader

    async def ask(self, path: str, headers: str = "") -> None:
        """Send a request and read its answer."""
        reader = await self.send(path, "Connection: close\r\n" + headers)
        while await reader.read(65536):
            pass


async def spread(number: int, one: Callable[[], Awaitable[object]]) -> None:
    """Do something so many times, spread over the time of the attack, whether the last one has ended or not."""
    async with asyncio.TaskGroup() as tasks:
        for _ in range(number):
            tasks.create_task(_quietly(one))
            await asyncio.sleep(DURATION / number)


async def _quietly(one: Callable[[], Awaitable[object]]) -> None:
    with suppress(TimeoutError, OSError):
        await asyncio.wait_for(one(), DURATION)


LONG_LIST = "/api/tasks?limit=1000"
WITHIN_LIMIT = A_MINUTE * DURATION // 60


async def slow_searches(attack: Attack) -> None:
    """Search for what nearly matches everywhere."""
    await spread(WITHIN_LIMIT, lambda: attack.ask("/api/tasks?q=x" + "%C3%9F" * 199))


async def exports(attack: Attack) -> None:
    """A hundred exports at once, and again."""
    for _ in range(2):
        async with asyncio.TaskGroup() as tasks:
            for _ in range(100):
                tasks.create_task(_quietly(lambda: attack.ask("/api/me/export")))


async def long_lists(attack: Attack) -> None:
    """All lists of a minute at once."""
    async with asyncio.TaskGroup() as tasks:
        for _ in range(A_MINUTE):
            tasks.create_task(_quietly(lambda: attack.ask(LONG_LIST)))


async def compressed_lists(attack: Attack) -> None:
    """Long lists, compressed."""
    await spread(WITHIN_LIMIT, lambda: attack.ask(LONG_LIST, "Accept-Encoding: gzip\r\n"))


async def unread_lists(attack: Attack) -> None:
    """Long lists that nobody reads."""
    await spread(150, lambda: attack.send(LONG_LIST))


async def unread_exports(attack: Attack) -> None:
    """All exports of a minute, which nobody reads."""
    await spread(A_MINUTE, lambda: attack.send("/api/me/export"))


async def unread_pipelines(attack: Attack) -> None:
    """A long list, ten thousand requests behind it, and nobody reads."""

    async def both() -> None:
        await attack.send(LONG_LIST)
        await attack.send("/health", times=10_000)

    await spread(20, both)


async def unread_readiness(attack: Attack) -> None:
    """Pipelined checks that nobody reads."""
    await spread(20, lambda: attack.send("/ready", times=10_000))


ATTACKS = {
    one.__name__: one
    for one in (
        slow_searches,
        exports,
        long_lists,
        compressed_lists,
        unread_lists,
        unread_exports,
        unread_pipelines,
        unread_readiness,
    )
}


async def watch(url: str, path: str, token: str, times: list[float], is_over: asyncio.Event) -> None:
    """Send requests one after another, and keep the seconds of each; infinity for one that failed."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        while not is_over.is_set():
            started = time.monotonic()
            try:
                answer = await client.get(path, headers={"Authorization": f"Bearer {token}"})
                is_right = answer.is_success
            except httpx.TransportError:
                is_right = False
            times.append(time.monotonic() - started if is_right else float("inf"))
            await asyncio.sleep(0.05)


async def run(name: str, server: ServerProcess, settings: Settings) -> str:
    """Attack a server, and return a line of figures."""
    url = httpx.URL(server.url)
    attack = Attack(
        url.host, url.port or 0, sign(settings, 3600, sub="searcher" if name == "slow_searches" else "lister")
    )
    victim = sign(settings, 3600, sub=VICTIM)
    process, is_over = psutil.Process(server.process.pid), asyncio.Event()
    lists: list[float] = []
    healths: list[float] = []
    watchers = [
        asyncio.create_task(watch(server.url, "/api/tasks", victim, lists, is_over)),
        asyncio.create_task(watch(server.url, "/health", victim, healths, is_over)),
    ]
    await asyncio.sleep(1)
    before, peak = process.memory_info().rss, 0
    attacking = asyncio.create_task(ATTACKS[name](attack))
    ends = time.monotonic() + DURATION
    while time.monotonic() < ends or not attacking.done():
        peak = max(peak, process.memory_info().rss)
        await asyncio.sleep(0.1)
    is_over.set()
    await asyncio.gather(attacking, *watchers)
    for connection in attack.connections:
        connection.close()
    in_time = sum(one <= LIMIT for one in lists)
    return (
        f"{name:18} {in_time:>5} of {len(lists):<5} slowest {max(lists):6.2f} s   /health {max(healths):6.2f} s   "
        f"grown by {(peak - before) / MIB:5.0f} MiB"
    )


def main() -> None:
    """Print one line for each attack."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--framework", choices=("asgi", "flask"), default="asgi")
    parser.add_argument("attacks", nargs="*", choices=[[], *ATTACKS], default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            measure(Path(folder), options.framework, options.attacks or ATTACKS)
        finally:
            embedded.stop(Path(folder) / "postgres")


def measure(directory: Path, framework: str, attacks: Iterable[str]) -> None:
    """Attack servers with a database in a folder, and print a line for each attack."""
    environment = {
        "DATABASE_URL": embedded.start(directory / "postgres"),
        "BETTER_AUTH_SECRET": SECRET,
        "RATE_LIMIT": str(A_MINUTE),
        "SERVER_FRAMEWORK": framework,
        "MAX_TASKS_PER_USER": "off",
    }
    settings = Settings.load(environment)
    database = Database(environment["DATABASE_URL"])
    schema.migrate(database)
    for name in attacks:
        with ServerProcess(directory=directory, **environment) as server:
            prepare(server, database, settings)
            print(asyncio.run(run(name, server, settings)), flush=True)
    database.dispose()


def prepare(server: ServerProcess, database: Database, settings: Settings) -> None:
    """Give each attacker TASKS tasks, and the victim one."""
    for user, description in (*ATTACKERS.items(), (VICTIM, "")):
        headers = {"Authorization": f"Bearer {sign(settings, 3600, sub=user)}"}
        with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as client:
            if not client.get("/api/tasks?limit=1").json():
                client.post("/api/tasks", json={"title": "one"})
                if description:
                    insert_many(database, client, TASKS, user=user, description=description)


if __name__ == "__main__":
    main()

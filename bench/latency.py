"""How long a request takes (SC-004, SC-006): median and 99th percentile of each operation, one client, real HTTP.

Run it with `python -m bench.latency`. It starts a server and a database of its own. With `--delay 10` each round trip
to the database takes 10 milliseconds more, as over a network.
"""

import argparse
import json
import statistics
import tempfile
import time
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from postgres import embedded
from settings.settings import Settings
from tests.support.relay import Relay
from tests.support.server import ServerProcess, sign

SECRET = "a-secret-for-the-benchmark-only-32-bytes"
TASKS = 1000
ROUNDS = 300


class Client:
    """One connection, by the standard library: httpx takes a millisecond more, which is not the server's."""

    def __init__(self, url: str, token: str) -> None:
        self._connection = HTTPConnection(urlsplit(url).netloc)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> HTTPResponse:
        """Return the answer, which has been read."""
        self._connection.request(method, path, json.dumps(body) if body else None, self._headers)
        response = self._connection.getresponse()
        text = response.read()
        assert response.status < 400, text
        return response

    def measure(self, *request: Any) -> tuple[float, float]:
        """Return the median and the 99th percentile of a request's time in milliseconds."""
        times = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            self.send(*request)
            times.append((time.perf_counter() - started) * 1000)
        return statistics.median(times), statistics.quantiles(times, n=100)[98]


def main() -> None:
    """Print one line an operation."""
    parser = argparse.ArgumentParser(description="How long a request takes.")
    parser.add_argument("--delay", type=float, help="milliseconds that each round trip to the database takes more")
    delay = parser.parse_args().delay
    directory = Path(tempfile.mkdtemp())
    url = embedded.start(directory / "postgres")
    if delay is None:
        measure_at(url, directory)
    else:
        with Relay(url, delay=delay / 1000) as relay:
            measure_at(relay.url, directory)


def measure_at(database_url: str, directory: Path) -> None:
    """Print the figures of a server on this database."""
    environment = {"DATABASE_URL": database_url, "BETTER_AUTH_SECRET": SECRET}
    token = sign(Settings.load(environment), 3600, sub="bench")
    with ServerProcess(directory=directory, **environment) as server:
        client = Client(server.url, token)
        for number in range(TASKS):
            client.send("POST", "/api/tasks", {"title": f"task {number}", "completed": number % 10 > 0})
        path = client.send("POST", "/api/tasks", {"title": "one"}).headers["location"]
        requests: dict[str, tuple[Any, ...]] = {
            "get one": ("GET", path),
            f"list {TASKS + 1}": ("GET", "/api/tasks"),
            "list pending by due date": ("GET", "/api/tasks?status=pending&sort=due_date"),
            "create": ("POST", "/api/tasks", {"title": "new"}),
            "update": ("PUT", path, {"title": "changed"}),
            "toggle": ("PATCH", f"{path}/complete"),
        }
        for name, request in requests.items():
            median, percentile = client.measure(*request)
            print(f"{name:26} median {median:6.2f} ms   99th percentile {percentile:6.2f} ms")


if __name__ == "__main__":
    main()

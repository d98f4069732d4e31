"""How long a request takes (SC-004, SC-006): median and 99th percentile of each operation, one client, real HTTP.

Run it with `python -m bench.latency`. It starts a server and a database of its own. With `--delay 10` each round trip
to the database takes 10 milliseconds more, as over a network.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from models import embedded
from openapi.settings import Settings
from tests.relay import Relay
from tests.server import ServerProcess, sign

SECRET = "a-secret-for-the-benchmark-only-32-bytes"
TASKS = 1000
ROUNDS = 300


def measure(request: Callable[[], httpx.Response]) -> tuple[float, float]:
    """Return the median and the 99th percentile of a request's time in milliseconds."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        request().raise_for_status()
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
    headers = {"Authorization": f"Bearer {token}"}
    with (
        ServerProcess(directory=directory, **environment) as server,
        httpx.Client(base_url=server.url, headers=headers, trust_env=False) as client,
    ):
        for number in range(TASKS):
            client.post("/api/tasks", json={"title": f"task {number}", "completed": number % 10 > 0})
        path = client.post("/api/tasks", json={"title": "one"}).headers["location"]
        requests: dict[str, Callable[[], httpx.Response]] = {
            "get one": lambda: client.get(path),
            f"list {TASKS + 1}": lambda: client.get("/api/tasks"),
            "list pending by due date": lambda: client.get("/api/tasks?status=pending&sort=due_date"),
            "create": lambda: client.post("/api/tasks", json={"title": "new"}),
            "update": lambda: client.put(path, json={"title": "changed"}),
            "toggle": lambda: client.patch(f"{path}/complete"),
        }
        for name, request in requests.items():
            median, percentile = measure(request)
            print(f"{name:26} median {median:6.2f} ms   99th percentile {percentile:6.2f} ms")


if __name__ == "__main__":
    main()

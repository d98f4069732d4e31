"""Cores, memory and start-up: `python -m bench.cores`. Two workers against one, and one over 100,000 requests."""

import itertools
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import psutil
from matplotlib import pyplot as plt

from bench import data, load, machine, report
from bench.__main__ import RESULTS, measure
from bench.operations import Request, requests, warm_up
from bench.servers import PEERS, Server

SERVICE = PEERS["service"]
CONNECTIONS = 32
STEPS = 10
SHARE = 0.3  # of a core for each worker, so that PostgreSQL and wrk have what they need of two
# Of which the last asks nothing of PostgreSQL, so that it leaves the cores to the workers and to wrk.
BATCHES = {name: requests(name) for name in ("get one", "list 20 pending", "create")} | {
    "health": [Request("GET", "/health", data.user(0))]
}
FIGURES = ("rate", "cpu", "p99", "idle")
# What the service cannot be without, imported and nothing more; prints the resident memory in MiB.
PACKAGES = """
import connexion, cryptography, jwt, psycopg, psutil, sqlalchemy.dialects.postgresql, sqlalchemy.orm, uvicorn
print(psutil.Process().memory_info().rss / 2**20)
"""


@contextmanager
def held(server: Server, share: float) -> Iterator[None]:
    """Hold each process of the server to a share of a core."""
    with ExitStack() as stack:
        for process in server.processes() if share < 1 else []:
            command = ["cpulimit", "--quiet", f"--pid={process.pid}", f"--limit={share * 100:.0f}"]
            stack.callback(subprocess.Popen(command, stdout=subprocess.DEVNULL).terminate)
        yield


def workers(prepared: data.Data, rounds: int, seconds: int) -> list[dict[str, Any]]:
    """Measure one worker and two in turn, as fast as they can and held to a share of a core each."""
    shares = [1, SHARE] if shutil.which("cpulimit") else [1]
    rows = []
    for number, share, count in itertools.product(range(rounds), shares, (1, 2)):
        prepared.refresh()
        with Server(SERVICE, prepared.url(SERVICE.role), workers=count) as server, held(server, share):
            load.run(server.url, warm_up(), connections=CONNECTIONS, seconds=2)
            for operation, batch in BATCHES.items():
                idle = psutil.cpu_times().idle
                row = measure(server, batch, CONNECTIONS, seconds)
                row["idle"] = (psutil.cpu_times().idle - idle) / seconds
                row["memory"] = _memory(server)
                click.echo(f"{operation} with {count} worker(s) of {share} core: {row['rate']:.0f} a second")
                rows.append({"workers": count, "share": share, "round": number, "operation": operation, **row})
    return rows


def _memory(server: Server) -> list[tuple[float, float]]:
    """Return what each process has resident and what of it is its own, in MiB, the largest first."""
    found = [process.memory_full_info() for process in server.processes()]
    return sorted(((one.rss / 2**20, one.uss / 2**20) for one in found), reverse=True)


def memory(prepared: data.Data, total: int) -> list[tuple[int, float]]:
    """Return how many requests one worker had answered and its resident memory then, step by step."""
    prepared.refresh()
    mixture: list[Request] = warm_up()
    with Server(SERVICE, prepared.url(SERVICE.role)) as server:
        answered, found = 0, [(0, server.memory())]
        for step in range(1, STEPS + 1):
            while answered < total * step / STEPS:
                answered += load.run(server.url, mixture, connections=CONNECTIONS, seconds=1).requests
            found.append((answered, server.memory()))
            click.echo(f"{found[-1][1]:.1f} MiB after {answered:,} requests")
    return found


def packages() -> float:
    """Return the resident memory of a process that has imported the packages and does nothing."""
    command = [sys.executable, "-W", "ignore", "-c", PACKAGES]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def startup(prepared: data.Data, rounds: int) -> list[float]:
    """Return how many seconds the service takes from its start to its first answer with a task."""
    prepared.refresh()
    found = []
    for _ in range(rounds):
        with Server(SERVICE, prepared.url(SERVICE.role)) as server:
            found.append(server.startup)
    return found


def write(raw: dict[str, Any], output: Path) -> str:
    """Write table and plot; return the text."""
    about = "\n".join(f"- {name}: {value}" for name, value in raw["about"].items())
    starts = f"{statistics.median(raw['startup']):.2f} s, at most {max(raw['startup']):.2f} s"
    memory_head = ["requests answered", *(f"{answered:,}" for answered, _ in raw["memory"])]
    memory_row = ["resident memory, MiB", *(f"{size:.1f}" for _, size in raw["memory"])]
    parts = ["# Cores, memory, start-up", about, f"## Two workers, {CONNECTIONS} connections", _workers(raw["workers"])]
    parts += ["## Memory of two workers and of the process that watches over them", _processes(raw["workers"])]
    parts += ["## Memory of one worker", report.table(memory_head, [memory_row]), "![Memory](memory.svg)"]
    parts += [f"A process that has only imported the packages takes {raw['packages']:.1f} MiB."]
    parts += ["## Start-up", f"From the start of the process to the first answer with a task: median {starts}."]
    text = "\n\n".join(parts) + "\n"
    (output / "cores.md").write_text(text, encoding="utf-8")
    _plot(raw["memory"], output)
    return text


def _workers(rows: list[dict[str, Any]]) -> str:
    head = ["", "core for each", "workers", "requests a second", "to one worker", "server's ms a request"]
    head += ["99th percentile, ms", "idle cores"]
    lines = []
    for operation, share in dict.fromkeys((row["operation"], row["share"]) for row in rows):
        one = _median(rows, operation, share, 1, "rate")
        for count in (1, 2):
            rate, cpu, p99, idle = (_median(rows, operation, share, count, what) for what in FIGURES)
            figures = (f"{rate:,.0f}", f"{rate / one:.2f}", f"{cpu:.2f}", f"{p99:.1f}", f"{idle:.2f}")
            lines.append([operation, str(share), str(count), *figures])
    return report.table(head, lines)


def _processes(rows: list[dict[str, Any]]) -> str:
    found = [row["memory"] for row in rows if row["workers"] == 2]
    lines = []
    for number, title in enumerate(("a worker", "the other", "the process that watches")):
        sizes = (statistics.median(sizes[number][which] for sizes in found) for which in (0, 1))
        lines.append([title, *(f"{size:.1f}" for size in sizes)])
    return report.table(["", "resident memory, MiB", "of which shared with no other process"], lines)


def _median(rows: list[dict[str, Any]], operation: str, share: float, count: int, what: str) -> float:
    which = (operation, share, count)
    return statistics.median(row[what] for row in rows if (row["operation"], row["share"], row["workers"]) == which)


def _plot(points: list[tuple[int, float]], output: Path) -> None:
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    axis.plot(*zip(*points, strict=True), marker="o", color=report.COLOURS["service"])
    axis.set_ylim(bottom=0)
    axis.set_xlabel("requests answered")
    axis.set_title("resident memory of one worker, MiB", loc="left", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.3)
    report.save(figure, output, "memory")


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=report.ENOUGH, help="How often workers and start-up are measured.")
@click.option("--seconds", default=3, help="How long a measurement of the workers takes.")
@click.option("--requests", "total", default=100_000, help="How many requests the memory is watched over.")
@click.option("--postgres", help="URL of a superuser of another PostgreSQL, over TCP.")
@click.option("--output", default=RESULTS, type=click.Path(path_type=Path), help="Folder for table and plot.")
def main(rounds: int, seconds: int, total: int, postgres: str | None, output: Path) -> None:
    """Measure what a second worker gains, how memory grows, and how long the start takes."""
    with data.prepared(postgres) as prepared:
        raw = {
            "about": machine.describe(prepared.version),
            "workers": workers(prepared, rounds, seconds),
            "startup": startup(prepared, rounds),
            "memory": memory(prepared, total),
            "packages": packages(),
        }
    report.keep(raw, "cores")
    output.mkdir(parents=True, exist_ok=True)
    click.echo(write(raw, output))


if __name__ == "__main__":
    main()

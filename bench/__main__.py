"""The benchmark: `python -m bench`. Every peer in turn, A B C A B C, each on a fresh copy of the same data."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from bench import answers, load, machine, report
from bench.data import Data, prepared
from bench.operations import OPERATIONS, Request, delete, requests, warm_up
from bench.servers import PEERS, ROOT, Server, missing

RESULTS = ROOT / "bench" / "results"
ROUNDS = 5
WARM_UP = 32  # connections
DELETE_RATE = 8000  # a second, where it is not known how many tasks the server creates


@dataclass
class Run:
    """What is measured and what came of it: a row for each measurement and for each start of a server."""

    peers: list[str]
    operations: list[str]
    connections: list[int]
    seconds: int
    rounds: int
    about: dict[str, str]
    loads: list[dict[str, Any]] = field(default_factory=list)
    servers: list[dict[str, Any]] = field(default_factory=list)
    expected: list[answers.Answer] = field(default_factory=list)

    def turn(self, name: str, number: int, data: Data) -> None:
        """Measure one peer."""
        data.refresh()
        peer = PEERS[name]
        with Server(peer, data.url(peer.role)) as server:
            self._compare(name, server)
            load.run(server.url, warm_up(), connections=WARM_UP, seconds=2)
            rates: dict[int, float] = {}
            for operation in self.operations:
                for connections in self.connections:
                    seconds = self.seconds * (2 if connections >= report.CROWD else 1)
                    batch = _requests(operation, f"{connections}/", rates.get(connections, 0), seconds, data)
                    row = measure(server, batch, connections, seconds)
                    rates[connections] = row["rate"] if operation == "create" else rates.get(connections, 0)
                    self.loads.append({"peer": name, "round": number, "operation": operation, **row})
            self.servers.append({"peer": name, "round": number, "startup": server.startup, "memory": server.memory()})

    def _compare(self, name: str, server: Server) -> None:
        found = answers.collect(server.url)
        self.expected = self.expected or found
        if wrong := answers.differences(found, self.expected):
            raise click.ClickException("\n".join([f"{name} answers something else:", *wrong, server.log()[-2000:]]))


def measure(server: Server, batch: list[Request], connections: int, seconds: int) -> dict[str, Any]:
    """Put a load on the server; return what came of it, per request and per second."""
    before = server.cpu()
    result = load.run(server.url, batch, connections=connections, seconds=seconds)
    cpu = server.cpu() - before
    return {
        "connections": connections,
        "rate": result.requests / result.seconds,
        "cpu": cpu * 1000 / max(result.requests, 1),
        **{name: getattr(result, name) for name in ("median", "p99", "requests", "refused", "broken")},
        "stalled": int(server.revive()),
    }


def _requests(operation: str, batch: str, created: float, seconds: int, data: Data) -> list[Request]:
    """Return the requests; what is to be deleted is added now, more than the server will get done."""
    if operation != "delete":
        return requests(operation)
    count = round((4 * created or DELETE_RATE) * (seconds + 1))
    return [delete(*one) for one in data.add_spare(batch, count)]


def _names(kind: dict[str, Any]) -> Any:
    def parse(_context: Any, _option: Any, value: str | None) -> list[str]:
        names = value.split(",") if value else list(kind)
        if unknown := set(names) - set(kind):
            raise click.BadParameter(f"{', '.join(sorted(unknown))}: choose from {', '.join(kind)}")
        return [name for name in kind if name in names]

    return parse


def _numbers(_context: Any, _option: Any, value: str) -> list[int]:
    return [int(number) for number in value.split(",")]


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=ROUNDS, help="How often each peer has its turn.")
@click.option("--seconds", default=1, help="How long a measurement takes; twice as long from 100 connections on.")
@click.option("--connections", default="1,32,256", callback=_numbers, help="Numbers of connections.")
@click.option("--peers", callback=_names(PEERS), help=f"Some of {','.join(PEERS)}.")
@click.option("--operations", callback=_names(OPERATIONS), help=f"Some of {','.join(OPERATIONS)}.")
@click.option("--postgres", help="URL of a superuser of another PostgreSQL, over TCP.")
@click.option("--output", default=RESULTS, type=click.Path(path_type=Path), help="Folder for table and plot.")
def main(
    rounds: int,
    seconds: int,
    connections: list[int],
    peers: list[str],
    operations: list[str],
    postgres: str | None,
    output: Path,
) -> None:
    """Measure this service against its peers, write a table and a plot, and every measurement to build/bench."""
    for name in peers.copy():
        if reason := missing(name):
            click.echo(f"{PEERS[name].title} is left out: {reason}")
            peers.remove(name)
    with prepared(postgres) as data:
        run = Run(peers, operations, connections, seconds, rounds, machine.describe(data.version))
        for number in range(1, rounds + 1):
            for name in peers:
                run.turn(name, number, data)
                click.echo(f"round {number} of {rounds}: {PEERS[name].title}: {_short(run, number, name)}")
    raw = {key: value for key, value in asdict(run).items() if key != "expected"}
    report.keep(raw, "benchmark")
    output.mkdir(parents=True, exist_ok=True)
    click.echo(report.write(raw, output))


def _short(run: Run, number: int, name: str) -> str:
    connections = run.connections[min(1, len(run.connections) - 1)]
    rows = (row for row in run.loads if (row["peer"], row["round"], row["connections"]) == (name, number, connections))
    return ", ".join("{operation} {rate:.0f}/s".format(**row) for row in rows)


if __name__ == "__main__":
    main()

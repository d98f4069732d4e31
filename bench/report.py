"""The report: a table and a plot of medians, and a short table for the README."""

import json
import re
import statistics
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from bench.servers import PEERS, ROOT

README = ROOT / "README.md"
RAW = ROOT / "build" / "bench"  # every single measurement, which git does not keep
OURS, RIVAL, FLOOR = "service", "fastapi", "floor"
CROWD = 100  # connections from which on a measurement takes twice as long: each of them has to get its answers
SHOWN = 32  # connections of the plot and of the short table
ENOUGH = 5  # rounds
ERRORS = {
    "refused": "answers that were no success",
    "broken": "connections broken or timed out",
    "stalled": "rounds after which the server did not answer any more",
}
COLOURS = {
    "service": "#0b6e4f",
    "flask": "#6fb98f",
    "fastapi": "#d1495b",
    "connexion": "#edae49",
    "fastify": "#30638e",
    "floor": "#9aa0a6",
}

Raw = dict[str, Any]
Median = Callable[..., float]


def write(raw: Raw, output: Path) -> str:
    """Write table and plot into a folder, those of a whole run into the README too; return the short table."""
    median = _medians(raw)
    shown = SHOWN if SHOWN in raw["connections"] else raw["connections"][0]
    short = _short_table(raw, median, shown)
    (output / "benchmark.md").write_text(_report(raw, median, short, shown), encoding="utf-8")
    _plot(raw, median, shown, output)
    if output.resolve() == ROOT / "bench" / "results" and raw["rounds"] >= ENOUGH:
        place(README, "benchmark", f"{_origin(raw)}\n\n{short}")
    return short


def keep(raw: Raw, name: str) -> None:
    """Write every single measurement, beside no table or plot: it is for who ran the benchmark, not for git."""
    RAW.mkdir(parents=True, exist_ok=True)
    (RAW / f"{name}.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


def place(path: Path, name: str, text: str) -> None:
    """Put a text between a document's marks of that name."""
    marks = f"<!-- {name} -->", f"<!-- /{name} -->"
    document = path.read_text(encoding="utf-8")
    found = re.compile(f"{marks[0]}.*{marks[1]}", re.DOTALL)
    path.write_text(found.sub(lambda _: f"{marks[0]}\n{text}\n{marks[1]}", document), encoding="utf-8")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown, numbers to the right."""
    head = list(head)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def save(figure: Any, output: Path, name: str) -> None:
    """Save a plot as PNG and as SVG, the same bytes for the same figures."""
    with plt.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(output / f"{name}.svg", metadata={"Date": None})
        figure.savefig(output / f"{name}.png", dpi=150, metadata={"Software": None})
    plt.close(figure)


def _medians(raw: Raw) -> Median:
    def median(what: str, peer: str, operation: str, connections: int) -> float:
        key = (peer, operation, connections)
        return statistics.median(
            row[what] for row in raw["loads"] if (row["peer"], row["operation"], row["connections"]) == key
        )

    return median


def _report(raw: Raw, median: Median, short: str, shown: int) -> str:
    about = "\n".join(f"- {name}: {value}" for name, value in raw["about"].items())
    parts = ["# Benchmark", _origin(raw), f"{about}\n- {_length(raw)}", "What is compared, and how: docs/benchmark.md."]
    parts += [f"## In short, at {shown} connections", short, "![Requests a second](throughput.svg)"]
    for connections in raw["connections"]:
        parts += [f"## {connections} connection{'s' if connections > 1 else ''}"]
        for title, cell in _CELLS.items():
            rows = (
                [operation, *(cell(median, (peer, operation, connections)) for peer in raw["peers"])]
                for operation in raw["operations"]
            )
            parts += [f"{title}:", table(["", *_titles(raw)], rows)]
    parts += ["## Start and memory", _servers(raw), "## Errors", _errors(raw)]
    return "\n\n".join(parts) + "\n"


def _length(raw: Raw) -> str:
    return (
        f"each measurement: {raw['seconds']} s, from {CROWD} connections on twice as long; one worker, ten connections"
    )


_CELLS: dict[str, Callable[[Median, Any], str]] = {
    "Requests a second": lambda median, key: f"{median('rate', *key):,.0f}",
    "Processor time of the server, ms a request": lambda median, key: (
        f"{median('cpu', *key):.2f}" if median("requests", *key) else "-"
    ),
    "Time to the answer, median and 99th percentile, ms": lambda median, key: (
        f"{median('median', *key):.1f}, {median('p99', *key):.1f}" if median("requests", *key) else "-"
    ),
}


def _origin(raw: Raw) -> str:
    rounds, about = raw["rounds"], raw["about"]
    text = f"Medians of {rounds} round{'s' if rounds > 1 else ''}, {about['date']}, commit {about['commit']}."
    return text if rounds >= ENOUGH else f"{text} **Too short a run to compare anything by.**"


def _short_table(raw: Raw, median: Median, connections: int) -> str:
    """Return requests a second at so many connections, and below how the service stands to the rival and the floor."""
    rates = (
        [operation, *(f"{median('rate', peer, operation, connections):,.0f}" for peer in raw["peers"])]
        for operation in raw["operations"]
    )
    parts = [table(["requests a second", *_titles(raw)], rates)]
    compared = [peer for peer in (RIVAL, FLOOR) if {peer, OURS} <= set(raw["peers"])]
    if compared:
        head = [f"{what}, {PEERS[peer].title}" for peer in compared for what in ("requests a second", "processor time")]
        ratios = ([operation, *_ratios(median, compared, operation, connections)] for operation in raw["operations"])
        parts.append(table(["this service as a multiple of", *head], ratios))
    return "\n\n".join(parts)


def _ratios(median: Median, compared: list[str], operation: str, connections: int) -> Iterator[str]:
    for peer in compared:
        for what in ("rate", "cpu"):
            ours, theirs = (median(what, one, operation, connections) for one in (OURS, peer))
            yield f"{ours / theirs:.2f}" if theirs else "-"


def _servers(raw: Raw) -> str:
    rows = []
    for peer in raw["peers"]:
        found = [row for row in raw["servers"] if row["peer"] == peer]
        startup, memory = (statistics.median(row[what] for row in found) for what in ("startup", "memory"))
        rows.append([PEERS[peer].title, f"{startup:.2f}", f"{memory:.0f}"])
    return table(["", "start to first answer, s", "resident memory after the load, MiB"], rows)


def _errors(raw: Raw) -> str:
    """Return for each measurement with errors how many there were, all rounds together."""
    failed = [row for row in raw["loads"] if any(row[name] for name in ERRORS)]
    if not failed:
        return "None: every answer was a success."
    sums: dict[tuple[str, ...], list[int]] = {}
    for row in failed:
        key = (PEERS[row["peer"]].title, row["operation"], str(row["connections"]))
        so_far = sums.get(key, [0] * len(ERRORS))
        sums[key] = [count + row[name] for count, name in zip(so_far, ERRORS, strict=True)]
    rows = ([*key, *map(str, counts)] for key, counts in sums.items())
    return table(["", "operation", "connections", *ERRORS.values()], rows)


def _titles(raw: Raw) -> list[str]:
    return [PEERS[peer].title for peer in raw["peers"]]


def _plot(raw: Raw, median: Median, connections: int, output: Path) -> None:
    panels = {"rate": "requests a second", "cpu": "processor time of the server, ms a request"}
    figure, axes = plt.subplots(len(panels), 1, figsize=(11, 8), layout="constrained")
    width = 0.85 / len(raw["peers"])
    for axis, (what, title) in zip(axes, panels.items(), strict=True):
        for number, peer in enumerate(raw["peers"]):
            places = [place + (number + 0.5) * width - 0.425 for place in range(len(raw["operations"]))]
            heights = [median(what, peer, operation, connections) for operation in raw["operations"]]
            axis.bar(places, heights, width, label=PEERS[peer].title, color=COLOURS[peer])
        axis.set_xticks(range(len(raw["operations"])), raw["operations"])
        axis.set_title(f"{title}, {connections} connections, one worker", loc="left", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.3)
    axes[0].legend(ncols=3, frameon=False, fontsize=9)
    save(figure, output, "throughput")

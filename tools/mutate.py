"""Change the contract in every way that `tools/mutants.py` knows, and see that the behaviour tests notice.

    python -m tools.mutate [--sample N] [--seed TEXT] [--only TEXT] [--workers N]

The contract file is changed for everything that reads it: the application, which is started on it, and what checks
its answers. No test of the selection compares the file with a copy of itself. Each mutant gets a process, forked after
the tests were collected, and a database of its own; its tests run until one fails, first those that killed mutants
close to it. Exits with 1 when a mutant survives that `tools/survivors.py` does not explain, and when one of those that
it explains is killed or does not exist any more.
"""

import argparse
import gc
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import openapi.contract
from models import schema
from openapi.contract import METHODS, Contract
from postgres import embedded
from postgres.database import Database
from tests.support.client import Conformance
from tests.support.server import ROOT
from tools.mutants import Mutant, mutants
from tools.survivors import SURVIVORS

# Those that ask the service what the contract is about, on one host.
FILES = [
    "agreement",
    "contract",
    "every_answer",
    "input",
    "lists",
    "tasks",
    "conditions",
    "idempotency",
    "me",
    "tokens",
    "rate_limit",
    "cors",
]
REFERENCE = re.compile(r'"\$ref": "(#/[^"]+)"')
LIMIT = 300  # seconds for all tests on one mutant
CLOSE = 12  # tests that killed close mutants, to run first


def main() -> int:
    """Run the mutants and print the score; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sample", type=int, help="how many mutants to try; all by default")
    parser.add_argument("--seed", help="what picks the sample; the commit by default")
    parser.add_argument("--only", default="", help="only mutants with this text in their name")
    parser.add_argument("--workers", type=int, default=2, help="processes at once; 2 by default")
    options = parser.parse_args()
    found = [one for one in every_mutant() if options.only in one.name]
    if options.sample:
        seed = options.seed or commit()
        print(f"{options.sample} of {len(found)} mutants, --seed {seed}")
        found = random.Random(seed).sample(found, options.sample)
    with tempfile.TemporaryDirectory(prefix="tasks-api-mutate-") as directory, databases(Path(directory)) as url:
        run = Run(found, Path(directory), [f"{url} dbname=worker_{number}" for number in range(options.workers)])
        # `anyio` is imported before pytest could look at it, which is nothing to warn of.
        arguments = ["-qq", "-s", "--tb=native", "-p", "no:cacheprovider", "-W", "ignore:Module already imported"]
        arguments += ["-m", "not slow and not load and not second_host"]
        arguments += [str(ROOT / f"tests/test_{name}.py") for name in FILES]
        status = pytest.main(["--rootdir", str(ROOT), *arguments], plugins=[run])
    return run.report() if status == pytest.ExitCode.OK else 1


def document() -> dict[str, Any]:
    """Return the contract, nothing of which is the same object as anything else of it."""
    copy: dict[str, Any] = json.loads(json.dumps(Contract().document))
    return copy


def every_mutant() -> list[Mutant]:
    """Return all mutants of the contract."""
    return list(mutants(document()))


def commit() -> str:
    """Return the commit that is checked out."""
    return subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()


@contextmanager
def databases(directory: Path) -> Iterator[str]:
    """Start a server with a database that has its schema in place, to make others of it; return the server's URL."""
    url = embedded.start(directory / "postgres")
    try:
        database = Database(url)
        schema.migrate(database)
        database.dispose()
        yield url.replace("dbname=tasks_api ", "")
    finally:
        embedded.stop(directory / "postgres")


def fresh(url: str) -> None:
    """Make the database anew."""
    name = conninfo_to_dict(url)["dbname"]
    with psycopg.connect(make_conninfo(url, user="postgres", dbname="postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name} OWNER tasks_api TEMPLATE tasks_api")


Operation = tuple[str, str]  # method and path


def operations_by_component(document: dict[str, Any]) -> dict[str, set[Operation]]:
    """Return the operations that each component is a part of, by its JSON pointer."""
    found: dict[str, set[Operation]] = defaultdict(set)
    for template, item in document["paths"].items():
        for method in METHODS:
            for pointer in references(document, [item.get(method), item.get("parameters")]):
                found[pointer].add((method.upper(), template))
    return found


def references(document: dict[str, Any], node: Any) -> set[str]:
    """Return where the references in a part of the document lead, over others too."""
    found: set[str] = set()
    new = set(REFERENCE.findall(json.dumps(node)))
    while new:
        found |= new
        components = [document["components"][section][name] for _, _, section, name in (one.split("/") for one in new)]
        new = set(REFERENCE.findall(json.dumps(components))) - found
    return found


def same(one: str, other: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@contextmanager
def noted(asked: list[Operation]) -> Iterator[None]:
    """Note which operations answer meanwhile."""

    def check(conformance: Conformance, response: httpx.Response) -> None:
        route = conformance.contract.match(response.request.url.path)
        if route and (operation := (response.request.method, route.path_item.template)) not in asked:
            asked.append(operation)
        original(conformance, response)

    original = Conformance.check
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Conformance, "check", check)
        yield


class Run:
    """A plugin that runs the collected tests once as they are, then those of each mutant until one fails."""

    def __init__(self, found: list[Mutant], directory: Path, urls: list[str]) -> None:
        self.mutants = found
        self.directory = directory
        self.urls = urls  # of one database for each process at a time
        self.document = document()
        self.operations = operations_by_component(self.document)
        self.items: list[pytest.Item] = []
        self.seconds: dict[str, float] = {}  # of each test
        self.asked: dict[str, set[Operation]] = {}  # by each test
        self.killers: dict[str, str] = {}  # test, by mutant
        self.survivors: list[str] = []
        self.refused = 0  # mutants that the service does not start on
        self.failure: pytest.TestReport | None = None
        self.started = time.monotonic()
        (ROOT / "build").mkdir(exist_ok=True)
        self.log = (ROOT / "build" / "mutants.txt").open("w")  # each mutant with the test that killed it, and how

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the mutants instead of the tests."""
        self.items = session.items
        self._learn()
        print(f"{len(self.items)} tests pass on the contract as it is, in {sum(self.seconds.values()):.0f} s")
        gc.freeze()  # so that the processes share their memory
        running: dict[int, tuple[str, Mutant]] = {}  # by process
        for mutant in self.mutants:
            url = self.urls[len(running)] if len(running) < len(self.urls) else self._wait(running)
            running[self._fork(url, mutant, self._order(mutant))] = (url, mutant)
        while running:
            self._wait(running)
        self._learn()  # what killed the mutants was not something else that broke meanwhile
        return True

    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
        """Make the database anew before the first test that needs it."""
        if fixturedef.argname == "database_url":
            fresh(request.config.option.database_url)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember the first failure, and how long each test takes."""
        if report.failed and self.failure is None:
            self.failure = report
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration

    def _learn(self) -> None:
        """Run all tests on the contract as it is: they must pass, and tell which operations they ask."""
        count = len(self.urls)
        for process in [self._fork(url, None, self.items[number::count]) for number, url in enumerate(self.urls)]:
            os.waitpid(process, 0)
            verdict = self._verdict(process)
            if "text" in verdict:
                pytest.exit(f"the contract as it is fails {verdict['killer']}:\n{verdict['text']}", 1)
            self.seconds |= verdict["seconds"]
            self.asked |= {test: {(method, path) for method, path in asked} for test, asked in verdict["asked"].items()}

    def _fork(self, url: str, mutant: Mutant | None, order: list[pytest.Item]) -> int:
        process = os.fork()
        if process == 0:
            try:
                self._child(url, mutant, order)
            finally:
                os._exit(0)
        return process

    def _child(self, url: str, mutant: Mutant | None, order: list[pytest.Item]) -> None:
        signal.alarm(LIMIT if mutant else 10 * LIMIT)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        order[0].config.option.database_url = url
        path = self.directory / f"{os.getpid()}.yaml"
        path.write_text(json.dumps(mutant.document(self.document) if mutant else self.document))
        openapi.contract.CONTRACT = path
        asked: dict[str, list[Operation]] = {}
        for item, following in zip(order, [*order[1:], None], strict=True):
            with noted(asked.setdefault(item.nodeid, [])):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failure:
                break
        verdict = {"seconds": self.seconds, "asked": asked, "killer": None}
        if self.failure:
            verdict |= {"killer": self.failure.nodeid, "when": self.failure.when, "text": self.failure.longreprtext}
        path.with_suffix(".json").write_text(json.dumps(verdict))

    def _wait(self, running: dict[int, tuple[str, Mutant]]) -> str:
        """Wait for one process to end and return its database."""
        process, _ = os.wait()
        url, mutant = running.pop(process)
        verdict = self._verdict(process)
        self.refused += verdict.get("when") == "setup"
        if verdict["killer"]:
            self.killers[mutant.name] = verdict["killer"]
        else:
            self.survivors.append(mutant.name)
        (last,) = verdict.get("text", "").strip().splitlines()[-1:] or ("survived",)
        self.log.write(f"{mutant.name}\t{verdict['killer']}\t{verdict.get('when')}\t{last}\n")
        self.log.flush()
        return url

    def _verdict(self, process: int) -> dict[str, Any]:
        verdict = self.directory / f"{process}.json"
        return json.loads(verdict.read_text()) if verdict.exists() else {"killer": None, "text": "no verdict in time"}

    def _order(self, mutant: Mutant) -> list[pytest.Item]:
        """Return the tests in the order in which they are likely to notice."""
        close = sorted(self.killers, key=lambda name: -same(name, mutant.name))
        likely = {self.killers[name]: -number for number, name in enumerate(reversed(close[:CLOSE]))}
        steps = [*map(str, mutant.path), "", ""]
        touched = self.operations[f"#/components/{steps[1]}/{steps[2]}"] | {(steps[2].upper(), steps[1])}
        is_answer = {"responses", "headers"} & set(steps)

        def key(item: pytest.Item) -> tuple[int, int, float]:
            asked = self.asked[item.nodeid]
            is_first = not asked or (is_answer and "test_every_answer" in item.nodeid and asked & touched)
            distance = 0 if is_first else 1 if asked & touched else 2
            return likely.get(item.nodeid, 1), distance, self.seconds[item.nodeid]

        return sorted(self.items, key=key)

    def report(self) -> int:
        """Print the score and what survived without a reason; return the exit status."""
        names = [one.name for one in self.mutants]
        explained = [name for name in self.survivors if name in SURVIVORS]
        unexplained = [name for name in self.survivors if name not in SURVIVORS]
        stale = [f"{name}, which {self.killers[name]} notices" for name in self.killers if name in SURVIVORS]
        stale += [f"{name}, which is no mutant" for name in set(SURVIVORS) - {one.name for one in every_mutant()}]
        print(
            f"{len(self.killers)} of {len(names)} mutants killed, {self.refused} of them at the start of the service; "
            f"{len(explained)} survived for a reason in tools/survivors.py, {len(unexplained)} without one; "
            f"{time.monotonic() - self.started:.0f} s"
        )
        for name in unexplained:
            print(f"survived: {name}")
        for name in stale:
            print(f"no survivor any more: {name}")
        return 1 if unexplained or stale else 0


if __name__ == "__main__":
    sys.exit(main())

"""The fenced blocks of the documents, and a checkout in which their commands run as they do for a reader."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from tests.support.server import INHERITED, ROOT, ServerProcess

ADDRESS = "http://127.0.0.1:8000"  # of the server, as the documents have it
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAMPLES = ("json", "text", "log")
# What differs from run to run, and what stands for it.
MASKS = {
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "<id>",
    r"eyJ[\w.-]+": "<token>",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z": "<time>",
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}": "<time>",
    r"\b[0-9.]+ms\b": "<duration>",
    r"\b[0-9a-f]{16}\b": "<request>",
}
# Each block has the variables of those before it.
SCRIPT = """
set -aeuo pipefail
if [ -f .variables ]; then . ./.variables; fi
trap 'export -p > .variables' EXIT
{}
"""


class Block(NamedTuple):
    """A fenced block; `samples` are those that follow it, up to the next commands."""

    place: str
    language: str
    text: str
    samples: "list[Block]"


class Printed(NamedTuple):
    """What a block's commands printed, both streams in one, and the status of the last one."""

    text: str
    status: int


def blocks(document: Path) -> Iterator[Block]:
    """Yield every fenced block of a document but the samples, each with the samples that follow it."""
    text = document.read_text(encoding="utf-8")
    block = None
    for found in FENCE.finditer(text):
        place = f"{document.relative_to(ROOT)}:{text.count(chr(10), 0, found.start()) + 1}"
        one = Block(place, found[1], found[2], [])
        if one.language in SAMPLES and block:
            block.samples.append(one)
            continue
        if block:
            yield block
        block = one
    if block:
        yield block


def commands(text: str) -> list[str]:
    """Return the commands of a block, those over several lines in one piece."""
    return re.findall(r"^(?:.*\\\n)*.*\S.*$", text, re.MULTILINE)


def masked(text: str) -> str:
    """Return the text without what differs from run to run."""
    for pattern, name in MASKS.items():
        text = re.sub(pattern, name, text)
    return text


def shows(sample: Block, printed: str) -> bool:
    """Tell whether a sample is what was printed; in a text, a line `...` stands for any number of lines."""
    if sample.language == "json":
        body = printed.rstrip().rpartition("\n")[2]
        return bool(body) and list(_members(sample.text)) == list(_members(body))
    lines = [".*" if line == "..." else re.escape(line) + "\n" for line in masked(sample.text).splitlines()]
    if sample.language == "log":
        lines = [".*", *lines, ".*"]
    actual = re.sub(r" +$", "", masked(printed), flags=re.MULTILINE).rstrip() + "\n"
    return re.fullmatch("".join(lines), actual, re.DOTALL) is not None


def _members(text: str) -> Iterator[tuple[str, object]]:
    """Yield the members of a JSON object in their order."""
    yield from json.loads(masked(text)).items()


class Checkout:
    """A folder with everything that the repository has, and a server in it that starts when it is first needed.

    It has no `.env` and no `.data`, whatever the repository's own folder has.
    """

    def __init__(self, directory: Path) -> None:
        for path in ROOT.iterdir():
            if path.name not in (".env", ".data", ".git", ".venv", "build"):
                (directory / path.name).symlink_to(path)
        (directory / ".venv").symlink_to(sys.prefix)
        self._directory = directory
        self._server = ServerProcess(directory=directory)
        inherited = {name: value for name, value in os.environ.items() if INHERITED.fullmatch(name)}
        self._environment = inherited | {"PYTHONPATH": str(ROOT)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._server.url:
            self._server.__exit__(*error)

    @property
    def log(self) -> str:
        """What the server has printed; nothing where it was not needed."""
        if not self._server.url:
            return ""
        return self._server.log.read_text().replace(self._server.url, ADDRESS)

    def run(self, text: str) -> Printed:
        """Run commands one after the other, up to the first that fails."""
        if (ADDRESS in text or self._server.log.name in text) and not self._server.url:
            self._server.__enter__()
        script = SCRIPT.format(text.replace(ADDRESS, self._server.url or ADDRESS))
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        return Printed(done.stdout.replace(self._server.url or ADDRESS, ADDRESS), done.returncode)

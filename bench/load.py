"""The load: wrk on one thread, which sends each request as soon as its connection has had the last answer."""

import json
import subprocess
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bench.data import token
from bench.operations import Request

SCRIPT = Path(__file__).with_name("load.lua")


class Load(NamedTuple):
    """What came of a load: answers, those of them that were no success, connections that broke, times in ms."""

    requests: int
    seconds: float
    refused: int
    broken: int
    median: float
    p99: float


def run(url: str, requests: Iterable[Request], *, connections: int, seconds: int) -> Load:
    """Send the requests in turn, over and over, for so many seconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
        file.writelines(f"{one.method}\t{one.path}\t{_token(one.user)}\t{one.body}\n" for one in requests)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(SCRIPT), url]
        result = subprocess.run([*command, "--", file.name], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"wrk failed: {result.stderr or result.stdout}")
    return Load(**json.loads(result.stdout.splitlines()[-1]))


_token = cache(token)

"""Where and with what a figure was measured."""

import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from bench.servers import ROOT

PACKAGES = ("connexion", "uvicorn", "sqlalchemy", "psycopg", "fastapi", "sqlmodel", "pydantic", "flask")
PROGRAMS = {"wrk": ("wrk", "--version"), "Node": ("node", "--version")}


def describe(postgres: str) -> dict[str, str]:
    """Return date, commit, machine and versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    programs = ", ".join(f"{name} {_version(*command)}" for name, command in PROGRAMS.items() if _version(*command))
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, "
        f"{platform.system()} {platform.release()}",
        "versions": f"Python {platform.python_version()}, PostgreSQL {postgres}, {programs}, {packages}",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _processor() -> str:
    with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        found = re.search(r"^model name\s*: (.*)$", file.read(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _commit() -> str:
    commit = _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD") or "unknown"
    changes = _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no", ":!bench/results")
    return f"{commit} with changes" if changes else commit


def _version(*command: str) -> str:
    found = re.search(r"\d+\.\d+\.\d+", _output(*command))
    return found[0] if found else ""


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return (result.stdout + result.stderr if "--version" in command else result.stdout).strip()

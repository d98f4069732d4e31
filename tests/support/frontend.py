"""A new Next.js application with every example of the documents, in the form in which it is printed."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.documents import ADDRESS, blocks, commands
from tests.support.server import INHERITED, ROOT

TEMPLATE = ROOT / "tests" / "frontend"
DOCUMENTS = [ROOT / "docs" / name for name in ("tutorial.md", "frontend.md")]
ORIGIN = "http://localhost:3000"  # of the frontend, as the documents have it
NAME = re.compile(r"// (\S+\.tsx?)\n")  # the first line of an example
# As create-next-app sets it up, and stricter; what is compiled is for Node.
STRICT = {
    "extends": "./tsconfig.json",
    "compilerOptions": {
        "target": "es2022",
        "noEmit": False,
        "incremental": False,
        "noUncheckedIndexedAccess": True,
        "exactOptionalPropertyTypes": True,
        "noUnusedLocals": True,
        "rootDir": ".",
        "outDir": "build",
    },
    "include": ["next-env.d.ts", "lib", "app"],
}


def printed() -> list[tuple[str, str]]:
    """Return the language and the text of every fenced block of the documents."""
    return [(block.language, block.text) for document in DOCUMENTS for block in blocks(document)]


def examples() -> list[tuple[str, str]]:
    """Return the path and the content of every example. Raises ValueError for one that does not name its file."""
    return [_example(text) for language, text in printed() if language in ("ts", "tsx", "js", "jsx")]


def _example(text: str) -> tuple[str, str]:
    name = NAME.match(text)
    if not name:
        raise ValueError(f"this example does not begin with the name of its file:\n{text}")
    return name[1], text[name.end() :]


def command(beginning: str) -> str:
    """Return the one command of the documents that begins so."""
    (found,) = {
        line
        for language, text in printed()
        if language == "sh"
        for line in commands(text)
        if line.startswith(beginning)
    }
    return found


def printed_variables(file: str) -> dict[str, str]:
    """Return what the documents say that a file of settings has: `the service's .env`, for example."""
    found: dict[str, str] = {}
    for language, text in printed():
        for section in re.split(r"^# ", text, flags=re.MULTILINE) if language == "ini" else ():
            name, _, lines = section.partition("\n")
            if name == file:
                found |= dict(line.split("=", 1) for line in lines.splitlines() if line)
    return found


def run(command: str, directory: Path, **environment: str) -> str:
    """Run a command of the shell that has to succeed, and return what it prints."""
    own = {name: value for name, value in os.environ.items() if INHERITED.fullmatch(name)}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env=own | {"NEXT_TELEMETRY_DISABLED": "1", "BETTER_AUTH_TELEMETRY": "0"} | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def install_application(directory: Path) -> None:
    """Put the application with the examples into a folder."""
    shutil.copytree(TEMPLATE, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules", ".next"))
    for name, content in examples():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content, encoding="utf-8")
    run("npm ci --no-audit --no-fund --ignore-scripts", directory)


def generate_types(directory: Path, contract: str) -> None:
    """Generate the types by the guide's command, from the contract's file or its address."""
    run(command("npx openapi-typescript").replace(f"{ADDRESS}/openapi.json", contract), directory)


def compile_strictly(directory: Path) -> None:
    """Compile every example with stricter options than the application's, into the folder `build`."""
    (directory / "strict.json").write_text(json.dumps(STRICT), encoding="utf-8")
    run("npx next typegen && npx tsc --project strict.json", directory)
    (directory / "build" / "package.json").write_text('{"type": "module"}', encoding="utf-8")


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def served(directory: Path, port: int) -> Iterator[None]:
    """Serve the built application."""
    own = {name: value for name, value in os.environ.items() if INHERITED.fullmatch(name)}
    log = directory / "next.log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            ["node", "node_modules/next/dist/bin/next", "start", "--hostname", "localhost", "--port", str(port)],
            cwd=directory,
            env=own | {"NEXT_TELEMETRY_DISABLED": "1", "BETTER_AUTH_TELEMETRY": "0"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while not _answers(port):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://localhost:{port}/", trust_env=False).is_success
    except httpx.TransportError:
        return False

"""Fuzzes the running application, and sends again what was recorded of a failure; `make fuzz` and `make replay`.

The record of a run lies in `build/fuzz/HOST-SEED`: `junit.xml`, every request and answer in `requests.har`, and in
`crashes` a file for each failure with the requests that lead to it.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from models import schema
from postgres import embedded
from postgres.database import Database
from settings.settings import Settings
from tests.support.server import ROOT, ServerProcess, sign

RECORDS = ROOT / "build" / "fuzz"
HOSTS = ("asgi", "flask")
IDENTITIES = ("alice", "bob")
LIFETIME = 24 * 60 * 60  # seconds, of a token


@dataclass(frozen=True)
class Target:
    """A running server, its database, and what signs tokens for it."""

    url: str
    database_url: str
    token: Callable[..., str]

    def fuzz(self, record: Path, examples: int, seed: int, *options: str) -> int:
        """Fuzz the server and return Schemathesis' exit code."""
        reports = ("--report-junit-path", f"{record / 'junit.xml'}", "--report-har-path", f"{record / 'requests.har'}")
        limits = ("--max-examples", str(examples), "--seed", str(seed))
        return self._schemathesis(record, "run", f"{self.url}/openapi.json", *reports, *limits, *options)

    def replay(self, crashes: Path) -> int:
        """Send recorded failures again: a file or a folder of them. The exit code is 0 when none fails any more."""
        location = ("--schema-location", f"{self.url}/openapi.json", "--url", self.url)
        return self._schemathesis(crashes.parent, "replay", str(crashes), "--keep", *location)

    def _schemathesis(self, record: Path, *command: str) -> int:
        with tempfile.TemporaryDirectory() as directory:
            users = Path(directory, "users.json")
            users.write_text(json.dumps({"auth": [self._identity(name) for name in IDENTITIES]}))
            variables = {"FUZZ_USERS": str(users), "FUZZ_RECORD": str(record), "FUZZ_DATABASE": self.database_url}
            return subprocess.run(
                [sys.executable, "-m", "schemathesis.cli", "--config-file", ROOT / "schemathesis.toml", *command],
                cwd=directory,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
                check=False,
            ).returncode

    def _identity(self, name: str) -> dict[str, object]:
        value = f"Bearer {self.token(LIFETIME, sub=name)}"
        return {"name": name, "fixedHeaders": [{"name": "Authorization", "value": value}]}


@contextmanager
def fresh_target(host: str) -> Iterator[Target]:
    """Run a server with a database of its own."""
    secret = secrets.token_urlsafe(32)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        url = embedded.start(directory / "postgres")
        try:
            schema.migrate(Database(url))
            variables = {"DATABASE_URL": url, "BETTER_AUTH_SECRET": secret, "SERVER_FRAMEWORK": host}
            with ServerProcess(directory=directory, **variables) as server:
                settings = Settings.load({}, better_auth_secret=secret)
                yield Target(server.url, url, lambda lifetime, **claims: sign(settings, lifetime, **claims))
        finally:
            embedded.stop(directory / "postgres")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--examples", type=int, default=100, show_default=True, help="Requests an operation, at the most.")
@click.option("--seed", type=int, help="Make the same requests again.  [default: a random one]")
@click.option(
    "--replay", "record", type=click.Path(exists=True, path_type=Path), help="A recorded failure, or a folder."
)
def main(examples: int, seed: int | None, record: Path | None) -> None:
    """Fuzz both hosts, or send recorded failures to both of them again."""
    seed = secrets.randbelow(10**9) if seed is None else seed
    codes = [replay(host, record.resolve()) if record else fuzz(host, examples, seed) for host in HOSTS]
    sys.exit(max(codes))


def fuzz(host: str, examples: int, seed: int) -> int:
    """Fuzz one host and say how to do it again."""
    record = RECORDS / f"{host}-{seed}"
    click.echo(f"Fuzzing {host}; the same again: make fuzz SEED={seed} EXAMPLES={examples}")
    with fresh_target(host) as target:
        code = target.fuzz(record, examples, seed)
    if code:
        click.echo(f"Only the failures again: make replay RECORD={record.relative_to(ROOT)}")
    return code


def replay(host: str, record: Path) -> int:
    """Send the failures of a record, or the one in a file, to one host."""
    click.echo(f"Replaying on {host}")
    crashes = record / "crashes" if record.is_dir() else record
    with fresh_target(host) as target:
        return target.replay(crashes)


if __name__ == "__main__":
    main()

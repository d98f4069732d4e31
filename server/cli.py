"""The command line, `tasks-api`.

Commands import what they alone need, so that the supervisor of several workers stays at a third of their size.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click

from postgres import embedded
from postgres.embedded.failure import EmbeddedFailure
from server import processes
from server.sockets import listen
from settings import env_file
from settings.settings import ENV_FILE, Settings
from settings.values import InvalidSettings, sentence

if TYPE_CHECKING:
    from postgres.database import Database

DAY = 24 * 60 * 60  # seconds


class Sentences(click.Group):
    """Commands that report a failure in one sentence, not in a traceback."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command; exit with 1 if a setting or a file is wrong, or the database."""
        try:
            return super().invoke(context)
        except (InvalidSettings, EmbeddedFailure) as error:
            _fail(str(error))
        except OSError as error:
            _fail(sentence(error))


@click.group(cls=Sentences, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tasks-api")
def main() -> None:
    """A secure, multi-user task service for web frontends.

    Settings come from the environment and the file .env; `.env.example` lists them all.
    """


@main.command()
@click.option("--host", help="Address to listen on.  [HOST, default 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on; 0 picks a free one.  [PORT, default 8000]")
@click.option("--workers", type=int, help="Number of worker processes.  [WEB_CONCURRENCY, default 1]")
@click.option("--reload", is_flag=True, help="Restart when a file changes. For development.")
def serve(host: str | None, port: int | None, workers: int | None, reload: bool) -> None:
    """Run the server.

    Without DATABASE_URL it starts an embedded PostgreSQL with its data in DATA_DIR. Without BETTER_AUTH_SECRET it
    creates a secret for this machine, prints a token to try it with, and listens on loopback only.
    """
    settings = Settings.load(host=host, port=port, web_concurrency=workers)
    with ExitStack() as stack:
        sockets = listen(settings.host, settings.port)  # first, so that nothing is started or said in vain
        for one in sockets:
            stack.enter_context(one)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the embedded database stops too
        announcement = _announcement(settings, sockets[0].getsockname()[1])
        # uvicorn's processes read their settings from the environment.
        os.environ["DATABASE_URL"] = _database_url(settings)
        os.environ["HOST"] = settings.host
        _tell_doubt()
        processes.run(settings, sockets, announcement=announcement, reload=reload)


@main.command()
@click.option("--user", required=True, help="The user's id, the token's sub.")
@click.option("--email", help="The user's email address.")
@click.option("--name", help="The user's name.")
@click.option("--ttl", type=click.IntRange(1), default=DAY, show_default=True, help="Lifetime in seconds.")
def token(user: str, email: str | None, name: str | None, ttl: int) -> None:
    """Print a token signed with the configured secret."""
    from openapi.app import token_verifier
    from tokens.verifier import InvalidToken

    tokens = token_verifier(Settings.load())
    try:
        signed = tokens.sign({"sub": user, "email": email, "name": name}, ttl)
        asyncio.run(tokens.verify(signed))
    except ValueError:
        _fail("BETTER_AUTH_SECRET is not set, so only the issuer can sign tokens.")
    except InvalidToken as error:
        _fail(f"The service would refuse this token: {error}")
    click.echo(signed)


@main.command()
def migrate() -> None:
    """Bring the database's schema up to date, as the server does when it starts."""
    from models import schema

    with _database(Settings.load(), "The schema cannot be brought up to date") as database:
        schema.migrate(database)
    click.echo(f"The schema is at revision {schema.HEAD}.")


@main.command()
def check() -> None:
    """Print the configuration with secrets masked, and check the database and the issuer's keys.

    Exit with 1 if one of them is not in order.
    """
    from models import schema

    settings = Settings.load()
    _tell_doubt()
    for name, value in settings.masked():
        click.echo(f"{name:29} {value}")
    with _database(settings, "The database is not in order") as database:
        schema.check(database)
    click.echo(f"The database is reachable, and its schema is at revision {schema.HEAD}.")
    if settings.key_set_url:
        _check_key_set(settings)


def _check_key_set(settings: Settings) -> None:
    from openapi.app import token_verifier
    from tokens.key_set import KeysUnavailable

    tokens = token_verifier(settings)
    try:
        asyncio.run(tokens.load())
    except KeysUnavailable as error:
        _fail(f"No token of the issuer can be verified: {error}")
    click.echo("The issuer's keys can be read.")


def _announcement(settings: Settings, port: int) -> str:
    """Return what is printed as soon as the service answers."""
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    lines = [f"The service is running on http://{shown}:{port}"]
    if settings.is_development:
        from openapi.app import token_verifier

        token = token_verifier(settings).sign({"sub": "demo"}, DAY)
        lines += [
            f"Documentation: http://{shown}:{port}/docs",
            f"A token for the user demo, valid for a day: {token}",
        ]
    return "\n".join(lines)


def _tell_doubt() -> None:
    if doubt := env_file.doubt(ENV_FILE, os.environ):
        click.echo(doubt, err=True)


def _fail(reason: str) -> NoReturn:
    click.echo(reason, err=True)
    sys.exit(1)


def _database_url(settings: Settings) -> str:
    return settings.external_database_url or embedded.start(settings.data_dir / "postgres")


@contextmanager
def _database(settings: Settings, complaint: str) -> Iterator["Database"]:
    from postgres.database import Database
    from postgres.errors import DatabaseUnavailable

    database = Database(_database_url(settings))
    try:
        yield database
    except DatabaseUnavailable as error:
        _fail(f"{complaint}: {error}")
    finally:
        database.dispose()

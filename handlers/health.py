"""Checks for load balancers and supervisors."""

from typing import Protocol

from models import schema
from postgres.database import Database


class Tokens(Protocol):
    """What verifies tokens."""

    def check(self) -> None:
        """Raise an error if no token can be verified."""


def health() -> dict[str, str]:
    """Respond while the process runs."""
    return {"status": "ok"}


def ready(database: Database, tokens: Tokens) -> dict[str, str]:
    """Respond if the database is reachable and in order, and the issuer's keys were read."""
    check(database, tokens)
    return {"status": "ok"}


def check(database: Database, tokens: Tokens) -> None:
    """Raise an error unless the service can do its work."""
    schema.check(database)
    tokens.check()

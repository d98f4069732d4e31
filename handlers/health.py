"""Checks for load balancers and supervisors."""

from models import schema
from postgres.database import Database


def health() -> dict[str, str]:
    """Respond while the process runs."""
    return {"status": "ok"}


def ready(database: Database) -> dict[str, str]:
    """Respond if the database is reachable and its schema is in order."""
    schema.check(database)
    return {"status": "ok"}

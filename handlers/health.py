"""What load balancers and supervisors ask."""

from models import schema
from postgres.database import Database


def health() -> dict[str, str]:
    """Answer as long as the process runs."""
    return {"status": "ok"}


def ready(database: Database) -> dict[str, str]:
    """Answer when the database does and its schema is in order."""
    schema.check(database)
    return {"status": "ok"}

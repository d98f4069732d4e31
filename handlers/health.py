"""What load balancers and supervisors ask."""

from postgres.database import Database


async def health() -> dict[str, str]:
    """Answer as long as the process runs."""
    return {"status": "ok"}


def ready(database: Database) -> dict[str, str]:
    """Answer when the database does and its schema is in order."""
    database.check()
    return {"status": "ok"}

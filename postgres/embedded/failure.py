"""Why there is no embedded PostgreSQL; apart from postgres/errors.py, which imports SQLAlchemy."""


class EmbeddedFailure(Exception):
    """The embedded PostgreSQL cannot be started; the message tells its user why and what to do."""


def first_line(error: Exception) -> str:
    """Return the message without details and hints."""
    return str(error).partition("\n")[0]

"""Errors that the models raise; `openapi/problems.py` maps each to its answer."""


class TaskNotFound(Exception):
    """No user has a task with this id."""


class TaskForbidden(Exception):
    """The task exists and belongs to another user."""


class DatabaseFault(Exception):
    """A statement failed for a reason of ours; the message has none of its parameters."""


class ConstraintViolated(DatabaseFault):
    """A statement broke a constraint of the schema."""


class VersionMismatch(Exception):
    """The task is not at one of the versions that the write is meant for."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the task is at version {version}")
        self.version = version


class KeyReused(Exception):
    """The idempotency key came with another body before."""


class KeyInUse(Exception):
    """Another request with the same idempotency key has not ended yet."""


class DatabaseUnavailable(Exception):
    """The database cannot be reached, is overloaded, or its schema is not in place yet."""


class ConnectionBroken(DatabaseUnavailable):
    """The connection broke while a statement ran; whether it was carried out is not known."""


class RoleUnbound(DatabaseUnavailable):
    """The role that the application connects as is not bound by row-level security."""


class LockTimeout(DatabaseUnavailable):
    """Another transaction held what the statement needed for too long."""

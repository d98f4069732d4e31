"""Errors that the models raise; `openapi/problems.py` maps each to its response."""


class TaskNotFound(Exception):
    """No user has a task with this id."""


class TaskForbidden(Exception):
    """The task exists and belongs to another user."""


class VersionMismatch(Exception):
    """The task is at another version than the write is meant for."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the task is at version {version}")
        self.version = version


class KeyReused(Exception):
    """The idempotency key was used with another body before."""


class KeyInUse(Exception):
    """Another request with this idempotency key is still in progress."""


class SearchTooSlow(Exception):
    """The database could not search the user's tasks within the time limit of a search."""


class StorageLimit(Exception):
    """The user may store no more; each subclass is one limit."""


class TooManyTasks(StorageLimit):
    """The user has as many tasks as they may have."""


class TooManyKeys(StorageLimit):
    """The user has as many unexpired idempotency keys as they may have."""


class Crowded(Exception):
    """Too many creations of the same user, near a limit, wait for each other."""

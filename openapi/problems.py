"""The response to each error of the service: a problem (RFC 9457)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Final

import orjson
from starlette.exceptions import HTTPException

from handlers.conditions import entity_tag
from handlers.pages import InvalidCursor
from models.errors import (
    Crowded,
    KeyInUse,
    KeyReused,
    SearchTooSlow,
    TaskForbidden,
    TaskNotFound,
    TooManyKeys,
    TooManyTasks,
    VersionMismatch,
)
from postgres.errors import DatabaseUnavailable, NotInOrder, ReadOnly
from tokens.key_set import KeysUnavailable
from tokens.verifier import InvalidToken

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER: Final = {"Retry-After": "2"}  # seconds
MAX_ECHO: Final = 100  # characters of the client's own input in a response
MAX_ERRORS: Final = 20
# RFC 9110's names, where Python 3.11 has older ones.
PHRASES: Final = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}


class Code(StrEnum):
    """Tells errors apart for programs; stable within a major version of the contract."""

    BAD_REQUEST = "bad_request"
    INVALID_TOKEN = "invalid_token"  # noqa: S105 (no password)
    MISSING_TOKEN = "missing_token"  # noqa: S105
    NOT_YOUR_TASK = "not_your_task"
    TASK_NOT_FOUND = "task_not_found"
    PRECONDITION_FAILED = "precondition_failed"
    IDEMPOTENCY_KEY_IN_USE = "idempotency_key_in_use"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    TOO_MANY_TASKS = "too_many_tasks"
    TOO_MANY_IDEMPOTENCY_KEYS = "too_many_idempotency_keys"
    SEARCH_TOO_SLOW = "search_too_slow"
    PATH_NOT_FOUND = "path_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONTENT_TOO_LARGE = "content_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    REQUEST_TIMEOUT = "request_timeout"
    TARGET_TOO_LONG = "target_too_long"
    RATE_LIMITED = "rate_limited"
    HEADERS_TOO_LARGE = "headers_too_large"
    INTERNAL_ERROR = "internal_error"
    UNAVAILABLE = "unavailable"
    BUSY = "busy"


@dataclass(frozen=True)
class InputError:
    """One fault in the input: `pointer` is a JSON pointer (RFC 6901) into the part named `place`."""

    place: str
    pointer: str
    detail: str


@dataclass(frozen=True)
class Problem:
    """The response to an error."""

    status: int
    code: Code
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[InputError, ...] = ()

    @property
    def title(self) -> str:
        """The status in words."""
        return PHRASES.get(self.status) or HTTPStatus(self.status).phrase

    def body(self, request_id: str) -> bytes:
        """Return the problem as JSON."""
        content = {
            "type": "about:blank",  # so the title is the status in words (RFC 9457, section 4.2.1)
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        if self.errors:
            content["errors"] = [{"in": e.place, "pointer": e.pointer, "detail": e.detail} for e in self.errors]
        return orjson.dumps(content)


class ProblemError(Exception):
    """An error that carries its response."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def bad_input(*errors: InputError) -> ProblemError:
    """Return the 400 for invalid input."""
    first = errors[0]
    detail = f"Invalid {first.place}: {first.pointer or 'it'} {first.detail}."
    return ProblemError(Problem(400, Code.BAD_REQUEST, detail, errors=errors[:MAX_ERRORS]))


def pointer(*path: str | int) -> str:
    """Return the JSON pointer to a path of names and indexes, each cut to MAX_ECHO."""
    escaped = (str(part).replace("~", "~0").replace("/", "~1")[:MAX_ECHO] for part in path)
    return "".join("/" + part.removesuffix("~") for part in escaped)  # without half an escape at the end


CHALLENGE: Final = 'Bearer realm="tasks-api"'
NO_TOKEN: Final = Problem(
    401, Code.MISSING_TOKEN, "Send a token: Authorization: Bearer <JWT>.", {"WWW-Authenticate": CHALLENGE}
)
BUSY: Final = Problem(503, Code.BUSY, "The service is busy. Try again.", RETRY_AFTER)
SHUTTING_DOWN: Final = Problem(503, Code.UNAVAILABLE, "The service is shutting down. Try again.", RETRY_AFTER)
INTERNAL_ERROR: Final = Problem(
    500, Code.INTERNAL_ERROR, "The server failed to answer. The fault is in its log under this request's id."
)
NO_PATH: Final = Problem(404, Code.PATH_NOT_FOUND, "There is nothing at this path. The documentation is at /docs.")
FRAMEWORK_ERRORS: Final = {
    401: NO_TOKEN,  # Connexion's, for a request without the header that the contract requires
    404: NO_PATH,  # Starlette's, for a missing file of the documentation
    405: Problem(405, Code.METHOD_NOT_ALLOWED, "This path allows GET, HEAD.", {"Allow": "GET, HEAD"}),
}
DOMAIN_ERRORS: Final = {
    TaskNotFound: Problem(404, Code.TASK_NOT_FOUND, "There is no task with this id."),
    TaskForbidden: Problem(403, Code.NOT_YOUR_TASK, "This task belongs to another user."),
    KeyReused: Problem(
        422,
        Code.IDEMPOTENCY_KEY_REUSED,
        "This Idempotency-Key was used with another body. Use a new key for a new task.",
    ),
    KeyInUse: Problem(
        409,
        Code.IDEMPOTENCY_KEY_IN_USE,
        "Another request with this Idempotency-Key is under way. Try again.",
        RETRY_AFTER,
    ),
    Crowded: BUSY,
    TooManyTasks: Problem(403, Code.TOO_MANY_TASKS, "You have as many tasks as you may have. Delete some first."),
    TooManyKeys: Problem(
        403,
        Code.TOO_MANY_IDEMPOTENCY_KEYS,
        "You have sent as many idempotency keys in 24 hours as you may send. Create the task without one, or later.",
    ),
    SearchTooSlow: Problem(
        503,
        Code.SEARCH_TOO_SLOW,
        "The search took too long. Search fewer tasks, for example only those that are pending, or try again.",
        RETRY_AFTER,
    ),
    InvalidCursor: bad_input(InputError("query", "/cursor", "is no cursor of this list")).problem,
    KeysUnavailable: Problem(
        503, Code.UNAVAILABLE, "The keys of the token's issuer cannot be reached. Try again.", RETRY_AFTER
    ),
    ReadOnly: Problem(503, Code.UNAVAILABLE, "The database accepts no writes now. Try again.", RETRY_AFTER),
    DatabaseUnavailable: Problem(
        503, Code.UNAVAILABLE, "The database cannot be reached or is too busy. Try again.", RETRY_AFTER
    ),
}


def problem_for(error: Exception) -> Problem:
    """Return the response to any error."""
    if isinstance(error, ProblemError):
        return error.problem
    if isinstance(error, InvalidToken):  # RFC 6750, section 3
        challenge = f'{CHALLENGE}, error="invalid_token", error_description="{error}"'
        return Problem(401, Code.INVALID_TOKEN, str(error), {"WWW-Authenticate": challenge})
    if isinstance(error, NotInOrder):
        return Problem(503, Code.UNAVAILABLE, f"The service is not ready: {error}.", RETRY_AFTER)
    if isinstance(error, VersionMismatch):  # RFC 9110, section 15.5.13
        detail = "The task has changed since. Its current entity tag is in the ETag header."
        return Problem(412, Code.PRECONDITION_FAILED, detail, {"ETag": entity_tag(error.version)})
    if isinstance(error, HTTPException):
        return FRAMEWORK_ERRORS.get(error.status_code, INTERNAL_ERROR)
    return next((DOMAIN_ERRORS[kind] for kind in type(error).__mro__ if kind in DOMAIN_ERRORS), INTERNAL_ERROR)

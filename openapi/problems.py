"""Errors as problems (RFC 9457): what each error of the service is answered with."""

import logging
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import orjson
from connexion.lifecycle import ConnexionRequest, ConnexionResponse
from starlette.exceptions import HTTPException

from handlers.conditions import entity_tag
from handlers.pages import InvalidCursor
from models.errors import (
    DatabaseUnavailable,
    KeyInUse,
    KeyReused,
    TaskForbidden,
    TaskNotFound,
    VersionMismatch,
)
from tokens.key_set import KeysUnavailable
from tokens.verifier import InvalidToken

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER: Final = 2  # seconds
MAX_ECHO: Final = 100  # characters of the client's own input in an answer
MAX_ERRORS: Final = 20


@dataclass(frozen=True)
class InputError:
    """One thing that is wrong with the input: `pointer` is a JSON pointer (RFC 6901) into the part named `place`."""

    place: str
    pointer: str
    detail: str


@dataclass(eq=False)
class Problem(Exception):
    """An error that is its own answer."""

    status: int
    code: str
    detail: str
    headers: dict[str, str] = field(default_factory=dict)
    errors: tuple[InputError, ...] = ()

    @property
    def title(self) -> str:
        """The status in words."""
        return PHRASES.get(self.status) or HTTPStatus(self.status).phrase

    def body(self, request_id: str) -> bytes:
        """Return the problem as JSON."""
        content = {
            "type": "about:blank",  # RFC 9457, section 4.2.1: the title is the status in words
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        if self.errors:
            content["errors"] = [{"in": e.place, "pointer": e.pointer, "detail": e.detail} for e in self.errors]
        return orjson.dumps(content)


# RFC 9110 has newer names than Python 3.11.
PHRASES: Final = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}


def bad_input(*errors: InputError) -> Problem:
    """Return the 400 for input that was refused."""
    first = errors[0]
    detail = f"Invalid {first.place}: {first.pointer or 'it'} {first.detail}."
    return Problem(400, "bad_request", detail, errors=errors[:MAX_ERRORS])


def pointer(*path: str | int) -> str:
    """Return the JSON pointer of a path of names and indexes, each cut to what may be echoed."""
    escaped = (str(part).replace("~", "~0").replace("/", "~1")[:MAX_ECHO] for part in path)
    # Not cut in the middle of an escape.
    return "".join("/" + part.removesuffix("~") for part in escaped)


NO_TOKEN: Final = Problem(
    401,
    "missing_token",
    "Send a token: Authorization: Bearer <JWT>.",
    {"WWW-Authenticate": 'Bearer realm="tasks-api"'},
)
UNAVAILABLE: Final = Problem(
    503, "unavailable", "The database cannot be reached or is too busy. Try again.", {"Retry-After": str(RETRY_AFTER)}
)
INTERNAL_ERROR: Final = Problem(
    500, "internal_error", "The server failed to answer. The fault is in its log under this request's id."
)
INVALID_CURSOR: Final = bad_input(InputError("query", "/cursor", "is no cursor of this list"))
NO_PATH: Final = Problem(404, "path_not_found", "There is nothing at this path. The documentation is at /docs.")
FRAMEWORK_ERRORS: Final = {
    401: NO_TOKEN,  # Connexion's, for a request without the header that the contract asks for
    404: NO_PATH,  # Starlette's, for a missing file of the documentation
    405: Problem(405, "method_not_allowed", "This path allows GET, HEAD.", {"Allow": "GET, HEAD"}),
}
DOMAIN_ERRORS: Final = {
    TaskNotFound: Problem(404, "task_not_found", "There is no task with this id."),
    TaskForbidden: Problem(403, "not_your_task", "This task belongs to another user."),
    KeyReused: Problem(
        422, "idempotency_key_reused", "This Idempotency-Key was used with another body. Use a new key for a new task."
    ),
    KeyInUse: Problem(
        409,
        "idempotency_key_in_use",
        "Another request with this Idempotency-Key is under way. Try again.",
        {"Retry-After": str(RETRY_AFTER)},
    ),
    InvalidCursor: INVALID_CURSOR,
    KeysUnavailable: Problem(
        503,
        "unavailable",
        "The keys of the token's issuer cannot be reached. Try again.",
        {"Retry-After": str(RETRY_AFTER)},
    ),
    DatabaseUnavailable: UNAVAILABLE,
}


def invalid_token(error: InvalidToken) -> Problem:
    """Return the 401 for a token that was refused (RFC 6750, section 3)."""
    challenge = f'Bearer realm="tasks-api", error="invalid_token", error_description="{error}"'
    return Problem(401, "invalid_token", str(error), {"WWW-Authenticate": challenge})


def version_mismatch(error: VersionMismatch) -> Problem:
    """Return the 412 for a write that is meant for another version (RFC 9110, section 15.5.13)."""
    detail = "The task has changed since. Its current entity tag is in the ETag header."
    return Problem(412, "precondition_failed", detail, {"ETag": entity_tag(error.version)})


def describe(error: Exception) -> Problem:
    """Return the problem that answers an error, whatever it is."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InvalidToken):
        return invalid_token(error)
    if isinstance(error, VersionMismatch):
        return version_mismatch(error)
    for kind in type(error).__mro__:
        if kind in DOMAIN_ERRORS:
            return DOMAIN_ERRORS[kind]
    if isinstance(error, HTTPException):
        return FRAMEWORK_ERRORS.get(error.status_code, INTERNAL_ERROR)
    return INTERNAL_ERROR


async def answer(request: ConnexionRequest, error: Exception) -> ConnexionResponse:
    """Answer an error; the one error handler of the application."""
    problem = describe(error)
    request_id = request.context["request_id"]
    if problem.status == 500:
        logger.error("request %s failed", request_id, exc_info=error)
    elif problem.status == 503:
        logger.warning("request %s: %s", request_id, error)
    error.__traceback__ = None  # or a shared problem would keep the frames of every request that met it
    return ConnexionResponse(
        problem.status,
        content_type=MEDIA_TYPE,
        mimetype=MEDIA_TYPE,
        body=problem.body(request_id),
        headers=dict(problem.headers),
    )

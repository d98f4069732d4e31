"""A request as typed values: the input, the caller and the services, each in a place of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from starlette.types import Scope

from handlers.health import Readiness
from handlers.me import Stream
from handlers.pages import Cursors
from models.caller import Caller
from models.quota import Quota
from openapi.contract import Match, Operation
from postgres.database import Database
from tokens.verifier import TokenVerifier

Value = str | int | bool | list[str]
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class Input:
    """The valid input: parameters by the names of the handler's arguments, and the body."""

    parameters: Mapping[str, Value]
    body: Json = None


@dataclass(frozen=True, slots=True)
class Services:
    """What a handler may ask for besides the request; the same for all requests."""

    database: Database
    tokens: TokenVerifier
    cursors: Cursors
    quota: Quota
    readiness: Readiness
    stream: Stream
    url_for: Callable[..., str]


@dataclass(slots=True)
class Request:
    """A request on its way through the middlewares, each of which fills its own fields.

    `caller` is None unless a token was verified. `operation` and `input` cannot be read before they are set.
    """

    KEY: ClassVar = "tasks_api.request"

    id: str
    match: Match | None
    services: Services
    response_headers: dict[str, str] = field(default_factory=dict)  # set on every response, errors included
    status: int = 0  # of the response; 0 until it begins
    content: bytes = b""
    caller: Caller | None = None
    operation: Operation = field(init=False)
    input: Input = field(init=False)

    @classmethod
    def of(cls, scope: Scope) -> "Request":
        """Return the request of an ASGI scope."""
        request: Request = scope[cls.KEY]
        return request

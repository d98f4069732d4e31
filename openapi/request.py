"""A request as typed values: what was sent, who calls, and the services, each in a place of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from starlette.types import Scope

from handlers.me import Stream
from handlers.pages import Cursors
from models.caller import Caller
from openapi.contract import Match, Operation
from postgres.database import Database
from tokens.verifier import TokenVerifier

Value = str | int | bool | list[str]
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class Input:
    """What was sent, as the contract allows it: parameters by the names of handler arguments, and the body."""

    parameters: Mapping[str, Value]
    body: Json = None


@dataclass(frozen=True, slots=True)
class Services:
    """What a handler may ask for beside the request: the same for all requests."""

    database: Database
    tokens: TokenVerifier
    cursors: Cursors
    stream: Stream
    url_for: Callable[..., str]


@dataclass(slots=True)
class Request:
    """One request on its way through the middlewares, each of which fills the place that is its own.

    `caller` is None where no token was verified. `operation` and `input` cannot be read before they are known.
    """

    KEY: ClassVar = "tasks_api.request"

    id: str
    match: Match | None
    services: Services
    response_headers: dict[str, str] = field(default_factory=dict)  # set on the response, an error's too
    status: int = 0  # of the response; 0 until it begins
    content: bytes = b""
    caller: Caller | None = None
    operation: Operation = field(init=False)
    input: Input = field(init=False)

    @classmethod
    def of(cls, scope: Scope) -> "Request":
        """Return the request that an ASGI scope belongs to."""
        request: Request = scope[cls.KEY]
        return request

"""Where a handler's arguments come from."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final

from openapi.problems import NO_TOKEN, ProblemError
from openapi.request import Request, Services

SERVICES: Final = frozenset(one.name for one in fields(Services))
# Never a parameter of the contract; the last three are Connexion's own.
RESERVED: Final = SERVICES | {"caller", "body", "user", "token_info", "context_"}


class Binding:
    """Calls a handler with the arguments that its signature names.

    Services, `caller` and `body` come from reserved places, decided once; only the rest comes from parameters. So no
    parameter can replace one of them, whatever the contract says.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        names = inspect.signature(function).parameters.keys()
        self._function = function
        self._parameters = names - RESERVED
        self._services = names & SERVICES
        self._takes_caller = "caller" in names
        self._takes_body = "body" in names

    def call(self, request: Request) -> Any:
        """Return the handler's result. Raises ProblemError (401) if it needs a caller and no token was verified."""
        sent = request.input.parameters
        arguments: dict[str, Any] = {name: sent[name] for name in self._parameters if name in sent}
        for name in self._services:
            arguments[name] = getattr(request.services, name)
        if self._takes_body:
            arguments["body"] = request.input.body
        if self._takes_caller:
            if request.caller is None:
                raise ProblemError(NO_TOKEN)
            arguments["caller"] = request.caller
        return self._function(**arguments)

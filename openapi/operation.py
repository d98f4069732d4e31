"""The ASGI host: Connexion's application with operations that call their handlers in the event loop."""

import inspect
from typing import Any

from connexion.apps.asynchronous import AsyncApi, AsyncApp, AsyncOperation
from connexion.middleware.abstract import ROUTING_CONTEXT
from connexion.middleware.routing import RoutingMiddleware
from connexion.operations.abstract import AbstractOperation
from sqlalchemy.util import greenlet_spawn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class Operation(AsyncOperation):
    """Calls a handler with what the request's context has under the names of its arguments.

    Connexion's own operation finds the arguments out anew for every request.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._arguments = list(inspect.signature(self._fn).parameters)
        self._is_async = inspect.iscoroutinefunction(self._fn)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Response:
        """Answer one request."""
        context = scope["extensions"]["connexion_context"]
        arguments = {name: context[name] for name in self._arguments if name in context}
        # A handler is a plain function; in a greenlet it can wait for the database without holding the loop.
        answer = await (self._fn(**arguments) if self._is_async else greenlet_spawn(self._fn, **arguments))
        response = self._response(answer)
        await response(scope, receive, send)
        return response

    def _response(self, answer: Any) -> Response:
        if isinstance(answer, Response):
            return answer
        content, status, headers = (*answer, {})[:3] if isinstance(answer, tuple) else (answer, 200, {})
        if content is None:
            return Response(None, status, headers)
        return Response(self.jsonifier.dumps(content), status, headers, "application/json")


class Api(AsyncApi):
    """The operations of the contract."""

    def make_operation(self, operation: AbstractOperation) -> AsyncOperation:
        """Find the handler of an operation."""
        return Operation.from_operation(operation, pythonic_params=self.pythonic_params, jsonifier=self.jsonifier)


class OnLoopApp(AsyncApp):
    """Connexion's ASGI application with these operations."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._middleware_app.api_cls = Api


class Routing(RoutingMiddleware):
    """Hands the operation that `RequestContext` has found to Connexion, which would search for it once more."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route one request."""
        route = scope["extensions"]["connexion_context"]["route"]
        operation = route.endpoint.operations[scope["method"]]
        scope["path_params"] = route.parameters
        scope["extensions"][ROUTING_CONTEXT] = {"api_base_path": "", "operation_id": operation["operationId"]}
        await self.app(scope, receive, send)

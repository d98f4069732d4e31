"""Validation of each request against the contract."""

from starlette.types import ASGIApp, Receive, Scope, Send

from openapi.contract import Contract
from openapi.request import Request
from openapi.validation import OperationValidator


class RequestValidation:
    """Reads the input of a request; Connexion's own validation would compile its schemas each time."""

    def __init__(self, app: ASGIApp, *, contract: Contract) -> None:
        self.app = app
        self.validators = {operation.id: OperationValidator(operation) for operation in contract.operations}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Validate a request. Raises ProblemError (400)."""
        request = Request.of(scope)
        request.input = self.validators[request.operation.id].read(scope, request)
        await self.app(scope, receive, send)

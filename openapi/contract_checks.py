"""Checks of the contract before the service starts; their messages say how to fix it."""

import inspect
from collections.abc import Callable
from typing import Any

from openapi.binding import RESERVED
from openapi.contract import Contract, InvalidContract, Operation
from openapi.schemas import FORMATS


def check(contract: Contract, find_handler: Callable[[str], Callable[..., Any]]) -> None:
    """Run all checks; `find_handler` returns the function with a dotted name. Raises InvalidContract."""
    check_supported(contract.document)
    for operation in contract.operations:
        check_parameters(operation)
    for operation in contract.operations:  # after all parameters, whose messages say more
        check_handler(operation, find_handler(operation.handler))


def check_supported(node: Any) -> None:
    """Refuse formats and parameter styles that nothing enforces."""
    if isinstance(node, dict):
        if isinstance(node.get("format"), str) and node["format"] not in FORMATS:
            raise InvalidContract(f"The contract has the format {node['format']}, which nothing enforces.")
        if node.get("explode") is False or (isinstance(node.get("style"), str) and node["style"] != "form"):
            raise InvalidContract(f"The parameter {node['name']} is not in the style form with explode.")
        node = list(node.values())
    if isinstance(node, list):
        for one in node:
            check_supported(one)


def check_parameters(operation: Operation) -> None:
    """Refuse parameters that could be mistaken for the caller, a service or each other."""
    arguments: set[str] = set()
    for parameter in operation.parameters:
        where = f"{operation.id}: the {parameter.place} parameter {parameter.name}"
        if parameter.argument in RESERVED:
            raise InvalidContract(f"{where} has a name that is reserved for the service. Choose another.")
        if parameter.argument in arguments:
            raise InvalidContract(f"{where} has the name of another parameter. Choose another.")
        arguments.add(parameter.argument)


def check_handler(operation: Operation, function: Callable[..., Any]) -> None:
    """Refuse a handler whose arguments are not the operation's parameters or reserved names."""
    arguments = inspect.signature(function).parameters
    parameters = {parameter.argument: parameter for parameter in operation.parameters}
    for name in parameters.keys() - arguments.keys():
        raise InvalidContract(f"{operation.handler} has no argument {name} for the parameter {parameters[name].name}.")
    for name in arguments.keys() - parameters.keys() - RESERVED:
        raise InvalidContract(f"{operation.handler} has the argument {name}, which is no parameter of {operation.id}.")
    for name, parameter in parameters.items():
        is_always_there = parameter.is_required or "default" in parameter.schema
        if not is_always_there and arguments[name].default is inspect.Parameter.empty:
            raise InvalidContract(f"{operation.handler} needs a default for {name}, which a request may leave out.")

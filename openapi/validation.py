"""Validation of a request against the contract."""

import re
from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import Scope

from openapi.contract import Operation, Parameter
from openapi.problems import InputError, bad_input, pointer
from openapi.request import Input, Json, Request, Value
from openapi.schemas import CompiledSchema
from openapi.strict_json import parse_json

INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})", re.ASCII)


class OperationValidator:
    """Validates the requests of one operation, with schemas compiled once."""

    def __init__(self, operation: Operation) -> None:
        self._parameters = {(one.place, one.name.lower()): one for one in operation.parameters}
        self._headers = [name for place, name in self._parameters if place == "header"]
        self._schemas = {key: CompiledSchema(one.schema) for key, one in self._parameters.items()}
        self._defaults: dict[str, Value] = {
            one.argument: one.schema["default"] for one in operation.parameters if "default" in one.schema
        }
        self._required = [key for key, one in self._parameters.items() if one.is_required]
        self._bodies = {media_type: CompiledSchema(schema) for media_type, schema in operation.bodies.items()}
        self._is_body_required = operation.is_body_required

    def read(self, scope: Scope, request: Request) -> Input:
        """Return the parameters with their defaults, and the body, {} if it is left out. Raises ProblemError (400)."""
        parameters = self._defaults | self._read_parameters(scope)
        return Input(parameters, self._read_body(scope, request.content) if self._bodies else None)

    def _read_parameters(self, scope: Scope) -> dict[str, Value]:
        headers = Headers(scope=scope)
        given = {("path", name): [text] for name, text in scope["path_params"].items()}
        given |= {("query", name): texts for name, texts in _query(scope).items()}
        given |= {("header", name): headers.getlist(name) for name in self._headers if name in headers}
        values: dict[str, Value] = {}
        errors: list[InputError] = []
        for (place, name), texts in given.items():
            parameter = self._parameters.get((place, name))
            if parameter is None:
                errors.append(InputError(place, pointer(name), "is not known here"))
            elif len(texts) > 1 and parameter.schema["type"] != "array" and not parameter.is_list:
                errors.append(InputError(place, pointer(parameter.name), "is given more than once"))
            else:
                values[parameter.argument] = value = _value(texts, parameter)
                errors += self._schemas[place, name].errors(place, value, parameter.name)
        for key in self._required:
            if key not in given:
                errors.append(InputError(key[0], pointer(self._parameters[key].name), "is missing"))
        if errors:
            raise bad_input(*errors)
        return values

    def _read_body(self, scope: Scope, content: bytes) -> Json:
        if not content and not self._is_body_required:
            return {}
        body = parse_json(content)
        errors = self._bodies[Headers(scope=scope)["content-type"]].errors("body", body)
        if errors:
            raise bad_input(*errors)
        return body


def _value(texts: list[str], parameter: Parameter) -> Value:
    """Return the value of a parameter in its one JSON spelling; any other text stays as it is."""
    if parameter.schema["type"] == "array":
        return texts
    text = ", ".join(texts)
    if parameter.schema["type"] == "integer" and INTEGER.fullmatch(text):
        return int(text)
    if parameter.schema["type"] == "boolean":
        return {"true": True, "false": False}.get(text, text)
    return text


def _query(scope: Scope) -> dict[str, list[str]]:
    try:
        return parse_qs(scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise bad_input(InputError("query", "", "is not percent-encoded UTF-8")) from None

"""Validation of requests and answers against the contract, with every schema compiled once.

Connexion's own middleware makes its validators anew for every request; this one stands in for it. It refuses what JSON
and URLs allow but PostgreSQL cannot store or two readers would read differently: duplicate names, NaN, huge numbers,
lone surrogates, deep nesting.
"""

import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs

import jsonschema_rs
from connexion.exceptions import NonConformingResponseBody
from connexion.lifecycle import ConnexionRequest
from connexion.middleware.abstract import RoutedAPI, RoutedMiddleware
from connexion.operations.abstract import AbstractOperation
from connexion.validators.abstract import AbstractResponseBodyValidator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from openapi.problems import MAX_ECHO, InputError, bad_input, pointer

MAX_DEPTH: Final = 32
MAX_DIGITS: Final = 30

Schema = dict[str, Any]

INSTANT = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)", re.IGNORECASE | re.ASCII
)
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})", re.ASCII)
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def is_instant(text: str) -> bool:
    """Tell whether the text is an RFC 3339 date-time (section 5.6) in the years 1 to 9999 in UTC."""
    try:
        return bool(INSTANT.fullmatch(text) and datetime.fromisoformat(text.upper()).astimezone(UTC))
    except (ValueError, OverflowError):
        return False


# Each format that the contract may use; one that is not here fails when the schema is compiled.
FORMATS: Final = {
    "date-time": is_instant,
    # Their pattern says it all; the names are for the fuzzer.
    "if-match": lambda _text: True,
    "if-none-match": lambda _text: True,
    "uuid": lambda text: bool(UUID.fullmatch(text)),
}


class CompiledSchema:
    """A schema of the contract, compiled, with formats enforced."""

    def __init__(self, schema: Schema) -> None:
        self._schema = _as_json_schema(schema)
        self._validator = jsonschema_rs.Draft4Validator(
            self._schema,
            validate_formats=True,
            formats=FORMATS,
            ignore_unknown_formats=False,
            mask="the value",  # nothing of the input in messages
        )

    def errors(self, place: str, value: Any, *path: str | int) -> list[InputError]:
        """Return what is wrong with the value, which stands at `path` in the part of the request named `place`."""
        if self._validator.is_valid(value):
            return []
        return [one for error in self._validator.iter_errors(value) for one in self._explain(place, path, error)]

    def _explain(
        self, place: str, path: tuple[str | int, ...], error: jsonschema_rs.ValidationError
    ) -> Iterable[InputError]:
        path = (*path, *error.instance_path)
        keyword: str = error.kind.name
        expected: Any = getattr(error.kind, "value", None)
        if keyword == "required":
            yield InputError(place, pointer(*path, expected), "is missing")
        elif keyword == "additionalProperties":
            for name in expected:
                yield InputError(place, pointer(*path, name), "is not known here")
        elif keyword == "enum":
            choices = ", ".join("null" if choice is None else str(choice) for choice in expected)
            yield InputError(place, pointer(*path), f"must be one of: {choices}")
        elif keyword == "type":
            yield InputError(place, pointer(*path), f"must be {' or '.join(sorted(expected, key='null'.__eq__))}")
        elif keyword in ("pattern", "format"):
            schema = self._schema
            for step in error.schema_path[:-1]:
                schema = schema[step]
            rule = schema["description"].partition(".")[0]
            yield InputError(place, pointer(*path), f"must be {rule[:1].lower()}{rule[1:]}")
        else:
            yield InputError(place, pointer(*path), error.message.removeprefix("the value "))


def _as_json_schema(schema: Any) -> Any:
    """Translate OpenAPI's `nullable` (3.0.3, section 4.7.24) into JSON Schema's list of types."""
    if isinstance(schema, list):
        return [_as_json_schema(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    translated = {key: _as_json_schema(value) for key, value in schema.items() if key not in ("components", "nullable")}
    if schema.get("nullable"):
        translated["type"] = [schema["type"], "null"]
    return translated


# Connexion makes a validator for every request, with the same schema object each time.
_compiled: dict[int, tuple[Schema, CompiledSchema]] = {}


def check_supported(node: Any) -> None:
    """Raise ValueError where the contract has a format or a style of parameters that nothing here enforces."""
    if isinstance(node, dict):
        if isinstance(node.get("format"), str) and node["format"] not in FORMATS:
            raise ValueError(f"the contract has the format {node['format']}, which nothing enforces")
        if node.get("explode") is False or (isinstance(node.get("style"), str) and node["style"] != "form"):
            raise ValueError(f"the parameter {node['name']} is not in the style form with explode, the only one read")
        node = list(node.values())
    if isinstance(node, list):
        for one in node:
            check_supported(one)


def compiled(schema: Schema) -> CompiledSchema:
    """Return the compiled form of a schema of the contract."""
    if id(schema) not in _compiled:
        _compiled[id(schema)] = (schema, CompiledSchema(schema))  # keeping the schema keeps its id its own
    return _compiled[id(schema)][1]


class RequestOperation:
    """Checks the requests of one operation, and puts what they say into the request's context.

    There handlers find it by name: parameters (headers in lower case with underscores) as they are or by their
    defaults, and `body`, which is an empty object where there is none.
    """

    def __init__(self, next_app: ASGIApp, operation: AbstractOperation) -> None:
        self._next_app = next_app
        self._parameters = {(one["in"], one["name"].lower()): one for one in operation.parameters}
        self._headers = [name for place, name in self._parameters if place == "header"]
        self._schemas = {key: compiled(one["schema"]) for key, one in self._parameters.items()}
        self._defaults = {
            name: one["schema"]["default"] for (_, name), one in self._parameters.items() if "default" in one["schema"]
        }
        self._required = [key for key, one in self._parameters.items() if one.get("required")]
        self._bodies = {name: compiled(operation.body_schema(name)) for name in operation.consumes}
        self._is_body_required = bool(self._bodies) and operation.request_body.get("required", False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request.

        Raises Problem (400).
        """
        context = ConnexionRequest(scope).context
        context.update(self._defaults)
        context.update(self._read(scope))
        if self._bodies:
            context["body"] = self._body(Headers(scope=scope), context["content"])
        await self._next_app(scope, receive, send)

    def _read(self, scope: Scope) -> dict[str, Any]:
        headers = Headers(scope=scope)
        given = {("path", name): [text] for name, text in scope["path_params"].items()}
        given |= {("query", name): texts for name, texts in _query(scope).items()}
        given |= {("header", name): headers.getlist(name) for name in self._headers if name in headers}
        values: dict[str, Any] = {}
        errors: list[InputError] = []
        for (place, name), texts in given.items():
            parameter = self._parameters.get((place, name))
            if parameter is None:
                errors.append(InputError(place, pointer(name), "is not known here"))
            elif len(texts) > 1 and parameter["schema"]["type"] != "array" and not parameter.get("x-list"):
                errors.append(InputError(place, pointer(parameter["name"]), "is given more than once"))
            else:
                values[name.replace("-", "_")] = value = _value(texts, parameter)
                errors += self._schemas[place, name].errors(place, value, parameter["name"])
        for place, name in self._required:
            if (place, name) not in given:
                errors.append(InputError(place, pointer(self._parameters[place, name]["name"]), "is missing"))
        if errors:
            raise bad_input(*errors)
        return values

    def _body(self, headers: Headers, content: bytes) -> Any:
        if not content and not self._is_body_required:
            return {}
        body = parse_json(content)
        errors = self._bodies[headers["content-type"]].errors("body", body)
        if errors:
            raise bad_input(*errors)
        return body


class RequestAPI(RoutedAPI[RequestOperation]):
    """The operations of the contract, each with its schemas compiled."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> RequestOperation:
        """Compile the schemas of an operation."""
        return RequestOperation(self.next_app, operation)


class RequestValidation(RoutedMiddleware[RequestAPI]):
    """Checks requests as they stand, before anything is converted."""

    api_cls = RequestAPI


def _value(texts: list[str], parameter: Schema) -> Any:
    """Return what the text of a parameter stands for, in its one JSON spelling; else the text."""
    if parameter["schema"]["type"] == "array":
        return texts
    text = ", ".join(texts)
    if parameter["schema"]["type"] == "integer" and INTEGER.fullmatch(text):
        return int(text)
    if parameter["schema"]["type"] == "boolean":
        return {"true": True, "false": False}.get(text, text)
    return text


class ResponseValidator(AbstractResponseBodyValidator):
    """Checks a JSON answer; for tests, since it speaks only after the handler has stored what it stores."""

    def _parse(self, stream: Any) -> Any:
        return json.loads(b"".join(stream) or b"null")

    def _validate(self, body: Any) -> None:
        errors = compiled(self._schema).errors("body", body) if self._schema else []
        if errors:
            raise NonConformingResponseBody(detail=str(errors))


VALIDATORS: Final = {"response": {"application/json": ResponseValidator}}


def _query(scope: Scope) -> dict[str, list[str]]:
    try:
        return parse_qs(scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise bad_input(InputError("query", "", "is not percent-encoded UTF-8")) from None


def parse_json(content: bytes) -> Any:
    """Parse JSON text strictly (RFC 8259; I-JSON, RFC 7493, for names and numbers).

    Raises Problem (400) with the place of the fault.
    """
    try:
        text = content.decode("utf-8")
        _refuse_depth(text)
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse("is not JSON: it has NaN or Infinity"),
            parse_int=_integer,
            parse_float=_number,
        )
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails on a surrogate without its other half
    except UnicodeError:
        raise bad_input(InputError("body", "", "is not UTF-8, or has half of a surrogate pair")) from None
    except json.JSONDecodeError as error:
        detail = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise bad_input(InputError("body", "", detail)) from None
    return value


def _refuse_depth(text: str) -> None:
    """Refuse deep nesting before a recursive parser meets it."""
    depth = 0
    for bracket in re.findall(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', text):
        if bracket in ("[", "{"):
            depth += 1
            if depth > MAX_DEPTH:
                raise bad_input(InputError("body", "", f"is nested more than {MAX_DEPTH} levels deep"))
        elif bracket in ("]", "}"):
            depth -= 1


def _refuse(detail: str) -> Callable[[str], None]:
    def refuse(_text: str) -> None:
        raise bad_input(InputError("body", "", detail))

    return refuse


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise bad_input(InputError("body", "", f"has a number of more than {MAX_DIGITS} digits"))
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise bad_input(InputError("body", "", "has a number that is too large"))
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise bad_input(InputError("body", "", f"has the name '{twice[:MAX_ECHO]}' more than once in one object"))
    return value

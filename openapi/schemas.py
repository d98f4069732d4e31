"""The contract's schemas, compiled once, with formats enforced."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import jsonschema_rs

from openapi.problems import InputError, pointer

Schema = dict[str, Any]

INSTANT = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)", re.IGNORECASE | re.ASCII
)
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def is_instant(text: str) -> bool:
    """Tell whether the text is an RFC 3339 date-time (section 5.6) in the years 1 to 9999 in UTC."""
    try:
        return bool(INSTANT.fullmatch(text) and datetime.fromisoformat(text.upper()).astimezone(UTC))
    except (ValueError, OverflowError):
        return False


# The formats that the contract may use; any other fails when the schema is compiled.
FORMATS: Final = {
    "date-time": is_instant,
    # Their pattern is enough; the names are for the fuzzer.
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
            mask="the value",  # keeps the input out of messages
        )

    def errors(self, place: str, value: Any, *path: str | int) -> list[InputError]:
        """Return the faults of a value, which is at `path` in the part of the request named `place`."""
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

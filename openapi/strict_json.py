"""JSON without what PostgreSQL cannot store or two readers would read differently (RFC 8259; I-JSON, RFC 7493).

Duplicate names, NaN, huge numbers, lone surrogates and deep nesting are refused.
"""

import json
import re
from typing import Any, Final

from openapi.problems import MAX_ECHO, InputError, ProblemError, bad_input
from openapi.request import Json

MAX_DEPTH: Final = 32
MAX_DIGITS: Final = 30


def parse_json(content: bytes) -> Json:
    """Parse a body. Raises ProblemError (400) with the place of the fault."""
    try:
        text = content.decode("utf-8")
        _refuse_depth(text)
        value: Json = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_number
        )
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails on a lone surrogate
    except UnicodeError:
        raise _bad_body("is not UTF-8, or has half of a surrogate pair") from None
    except json.JSONDecodeError as error:
        raise _bad_body(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    return value


def _bad_body(detail: str) -> ProblemError:
    return bad_input(InputError("body", "", detail))


def _refuse_depth(text: str) -> None:
    """Refuse deep nesting before it reaches a recursive parser."""
    depth = 0
    for bracket in re.findall(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', text):
        if bracket in ("[", "{"):
            depth += 1
            if depth > MAX_DEPTH:
                raise _bad_body(f"is nested more than {MAX_DEPTH} levels deep")
        elif bracket in ("]", "}"):
            depth -= 1


def _refuse_constant(_text: str) -> None:
    raise _bad_body("is not JSON: it has NaN or Infinity")


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise _bad_body(f"has a number of more than {MAX_DIGITS} digits")
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise _bad_body("has a number that is too large")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _bad_body(f"has the name '{twice[:MAX_ECHO]}' more than once in one object")
    return value

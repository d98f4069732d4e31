"""How answers are written."""

from typing import Any, Final

import orjson

OPTIONS: Final = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


def to_json(data: Any) -> bytes:
    """Return the data as JSON in UTF-8: UUIDs as text, instants in UTC with a `Z`."""
    return orjson.dumps(data, option=OPTIONS)

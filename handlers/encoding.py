"""The JSON of responses."""

from typing import Any, Final

import orjson

OPTIONS: Final = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


def to_json(data: Any) -> bytes:
    """Return the data as JSON in UTF-8, with UUIDs as text and instants in UTC ending in `Z`."""
    return orjson.dumps(data, option=OPTIONS)

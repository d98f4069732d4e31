"""Cursors of, and links to, the pages of a list."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Final
from urllib.parse import urlencode

from models.task_list import Position, Query, parse_position

MAC_SIZE: Final = 16  # bytes


class InvalidCursor(Exception):
    """The cursor was not made for this list of this user."""


class Cursors:
    """Seals the end of a page in a cursor that opens only for the same user and query.

    `load_key` reads the key that all processes share. It is called once, at the start or when it is first needed.
    """

    def __init__(self, load_key: Callable[[], bytes]) -> None:
        self._load_key = load_key
        self._key = b""

    def prepare(self) -> None:
        """Load the key. Raises what `load_key` raises."""
        self._key = self._key or self._load_key()

    def seal(self, user: str, query: Query, position: Position) -> str:
        """Return the cursor of a position."""
        self.prepare()
        content = json.dumps(position, ensure_ascii=False).encode()
        return base64.urlsafe_b64encode(self._mac(user, query, content) + content).rstrip(b"=").decode()

    def open(self, user: str, query: Query, cursor: str) -> Position:
        """Return the position in a cursor. Raises InvalidCursor."""
        self.prepare()
        try:
            sealed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except binascii.Error:
            raise InvalidCursor from None
        # Several last characters decode to the same bytes; only one is ours.
        encoded = base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()
        mac, content = sealed[:MAC_SIZE], sealed[MAC_SIZE:]
        if not hmac.compare_digest(mac, self._mac(user, query, content)) or encoded != cursor:
            raise InvalidCursor
        try:
            return parse_position(query, json.loads(content))
        except (ValueError, RecursionError):  # sealed by another release, or with a key that somebody knows
            raise InvalidCursor from None

    def _mac(self, user: str, query: Query, content: bytes) -> bytes:
        bound = [user, query.status, query.sort, query.order, sorted(query.filters.items())]
        return hmac.digest(self._key, json.dumps(bound).encode() + b"\n" + content, hashlib.sha256)[:MAC_SIZE]


def next_link(path: str, query: Query, limit: int, cursor: str) -> str:
    """Return the value of a `Link` header to the next page (RFC 8288, section 3)."""
    filters = {name: "true" if value is True else value for name, value in query.filters.items()}
    parameters = {"status": query.status, "sort": query.sort, "order": query.order, **filters, "limit": limit}
    return f'<{path}?{urlencode(parameters | {"cursor": cursor}, doseq=True)}>; rel="next"'

"""The operations on the caller."""

from collections.abc import Callable, Iterator
from typing import Any

from handlers.encoding import to_json
from models import me
from models.caller import Caller
from postgres.database import Database
from postgres.round_trip import Row

# Makes a streamed response of JSON chunks and headers; each host has its own kind.
Stream = Callable[[Iterator[bytes], dict[str, str]], Any]

ATTACHMENT = {"Content-Disposition": 'attachment; filename="tasks-export.json"'}


def get_me(database: Database, caller: Caller) -> dict[str, Any]:
    """Return the caller; the token takes precedence, because the issuer owns email and name."""
    stored = me.summary(database, caller)
    return {
        "id": caller.id,
        "email": caller.email or stored["email"],
        "name": caller.name or stored["name"],
        "tasks": {"pending": stored["pending"], "completed": stored["completed"]},
    }


def export_me(database: Database, caller: Caller, stream: Stream) -> Any:
    """Stream everything that is stored about the caller."""
    return stream(_export(database, caller, me.user(database, caller)), ATTACHMENT)


def delete_me(database: Database, caller: Caller) -> tuple[None, int]:
    """Erase everything that is stored about the caller."""
    me.erase(database, caller)
    return None, 204


def _export(database: Database, caller: Caller, stored: Row | None) -> Iterator[bytes]:
    yield b'{"user":' + to_json(stored) + b',"tasks":['
    yield from _items(me.tasks(database, caller))
    yield b'],"idempotency_keys":['
    yield from _items(me.idempotency_keys(database, caller))
    yield b"]}"


def _items(batches: Iterator[list[Row]]) -> Iterator[bytes]:
    separator = b""
    for batch in batches:
        yield separator + b",".join(map(to_json, batch))
        separator = b","

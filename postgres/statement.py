"""SQLAlchemy's statements in PostgreSQL's form; the only module that knows what SQLAlchemy compiles them to."""

import weakref
from typing import Any, Final, NamedTuple, TypeVar, cast

from sqlalchemy import ClauseElement, Executable
from sqlalchemy.dialects import postgresql

AnExecutable = TypeVar("AnExecutable", bound=Executable)
DIALECT: Final = postgresql.psycopg.dialect(paramstyle="numeric_dollar")


def read(statement: AnExecutable) -> AnExecutable:
    """Mark a statement as a read: it runs in a read-only transaction, and again if its connection breaks."""
    return statement.execution_options(is_read=True)


class Compiled(NamedTuple):
    """The text with $1, $2 and so on, the names of those parameters, and constant values."""

    query: bytes
    names: list[str]
    constants: dict[str, Any]
    is_read: bool


_compiled: weakref.WeakKeyDictionary[Executable, Compiled] = weakref.WeakKeyDictionary()


def compiled(statement: Executable) -> Compiled:
    """Return the statement in PostgreSQL's form; build each only once, as compiling costs more than running."""
    if statement not in _compiled:
        form: Any = cast(ClauseElement, statement).compile(dialect=DIALECT)
        constants = {name: bind.effective_value for bind, name in form.bind_names.items() if not bind.required}
        is_read = bool(statement.get_execution_options().get("is_read"))
        _compiled[statement] = Compiled(str(form).encode(), form.positiontup, constants, is_read)
    return _compiled[statement]

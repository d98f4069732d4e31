"""Keys that the service makes for itself and keeps in the database, so that all its processes have the same."""

import secrets
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, CodePoints
from postgres.database import Database
from postgres.scope import Scope
from postgres.statement import read

KEY_SIZE: Final = 32  # bytes


class ServiceKey(Base):
    """A random key for one purpose."""

    __tablename__ = "service_keys"
    __table_args__ = (sa.CheckConstraint("octet_length(key) >= 32", name="key_length"),)

    purpose: Mapped[str] = mapped_column(CodePoints, primary_key=True)
    key: Mapped[bytes] = mapped_column(sa.LargeBinary)
    updated_at = None  # type: ignore[assignment]


THE_PURPOSE = sa.bindparam("the_purpose", type_=CodePoints)
FIND = read(sa.select(ServiceKey.key).where(ServiceKey.purpose == THE_PURPOSE))
MAKE = (
    postgresql.insert(ServiceKey)
    .values(purpose=THE_PURPOSE, key=sa.bindparam("new_key", type_=sa.LargeBinary))
    .on_conflict_do_nothing()  # another process was faster; both use its key
    .returning(ServiceKey.key)
)


def service_key(database: Database, purpose: str) -> bytes:
    """Return the key for a purpose, which the first process to ask makes. Raises DatabaseUnavailable."""
    parameters = {"the_purpose": purpose, "new_key": secrets.token_bytes(KEY_SIZE)}
    scope = Scope.service_keys()
    found = database.rows(scope, FIND, parameters)
    while not found:
        found = database.rows(scope, MAKE, parameters) or database.rows(scope, FIND, parameters)
    return bytes(found[0]["key"])

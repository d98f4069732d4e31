"""Users, as described by their tokens."""

from typing import Any

from sqlalchemy import CheckConstraint, bindparam
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, CodePoints
from models.caller import Caller


class User(Base):
    """A user who has written something; the issuer of the tokens owns `email` and `name`."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint("char_length(id) BETWEEN 1 AND 255", name="id_length"),)

    id: Mapped[str] = mapped_column(CodePoints, primary_key=True)
    email: Mapped[str | None] = mapped_column(CodePoints)
    name: Mapped[str | None] = mapped_column(CodePoints)


# Part of each statement that creates a task.
NEW_USER = (
    postgresql.insert(User)
    .values(id=bindparam("the_user"), email=bindparam("the_email"), name=bindparam("the_name"))
    .on_conflict_do_nothing()
    .cte("new_user")
)


def user_values(caller: Caller) -> dict[str, Any]:
    """Return the values of NEW_USER's parameters."""
    return {"the_user": caller.id, "the_email": caller.email, "the_name": caller.name}

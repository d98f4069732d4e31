"""Users, as their tokens describe them."""

from sqlalchemy import CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, CodePoints


class User(Base):
    """A user who has written something. The issuer of the tokens owns `email` and `name`."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint("char_length(id) BETWEEN 1 AND 255", name="id_length"),)

    id: Mapped[str] = mapped_column(CodePoints, primary_key=True)
    email: Mapped[str | None] = mapped_column(CodePoints)
    name: Mapped[str | None] = mapped_column(CodePoints)

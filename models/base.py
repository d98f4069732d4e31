"""What all tables share."""

from datetime import datetime

from sqlalchemy import DateTime, MetaData, Text, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Every constraint has a name for migrations to refer to.
NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(referred_table_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ix": "ix_%(table_name)s_%(column_0_name)s",
}

# Ordered by code point: the same on every server whatever its locale, and the cheapest to compare.
CodePoints = Text(collation="C")
Instant = DateTime(timezone=True)


class Base(DeclarativeBase):
    """The declarative base of all tables."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)

    created_at: Mapped[datetime] = mapped_column(Instant, server_default=func.now(), sort_order=90)
    updated_at: Mapped[datetime] = mapped_column(Instant, server_default=func.now(), sort_order=91)

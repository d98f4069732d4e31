"""The table of idempotency keys."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, CodePoints, Instant

LIFETIME = timedelta(hours=24)


class IdempotencyKey(Base):
    """A key that a user has sent with a new task."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        sa.CheckConstraint("char_length(key) BETWEEN 1 AND 255", name="key_length"),
        sa.Index("ix_idempotency_keys_created", "created_at"),  # for the sweep, which crosses users
    )

    user_id: Mapped[str] = mapped_column(CodePoints, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(CodePoints, primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(sa.LargeBinary)
    task: Mapped[dict[str, Any]] = mapped_column(JSONB)  # as in the first response
    created_at: Mapped[datetime] = mapped_column(Instant, server_default=sa.func.now())
    updated_at = None  # type: ignore[assignment]


IS_EXPIRED = IdempotencyKey.created_at < sa.func.now() - sa.text(f"interval '{LIFETIME.total_seconds():.0f} seconds'")

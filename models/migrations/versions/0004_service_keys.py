"""Keys that the service makes for itself, such as the one that seals cursors."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "service_keys",
        sa.Column("purpose", sa.Text(collation="C"), nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("purpose", name="pk_service_keys"),
        sa.CheckConstraint("octet_length(key) >= 32", name=op.f("ck_service_keys_key_length")),
    )
    # No scope of a user's statement sees a key: the probe is an id there, or empty.
    is_service = "current_setting('app.probe', true) = 'service-keys'"
    op.execute("ALTER TABLE service_keys ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE service_keys FORCE ROW LEVEL SECURITY")
    for command, condition in (
        ("SELECT", f"USING ({is_service})"),
        ("INSERT", f"WITH CHECK ({is_service})"),
        ("UPDATE", f"USING ({is_service}) WITH CHECK ({is_service})"),
        ("DELETE", f"USING ({is_service})"),
    ):
        op.execute(f"CREATE POLICY service_keys_{command.lower()} ON service_keys FOR {command} {condition}")

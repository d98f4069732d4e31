"""Users and tasks, isolated by row-level security."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

CODE_POINTS = sa.Text(collation="C")
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Long, because a migration is read from top to bottom."""
    op.create_table(
        "users",
        sa.Column("id", CODE_POINTS, nullable=False),
        sa.Column("email", CODE_POINTS),
        sa.Column("name", CODE_POINTS),
        sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.CheckConstraint("char_length(id) BETWEEN 1 AND 255", name=op.f("ck_users_id_length")),
    )
    op.create_table(
        "tasks",
        sa.Column("user_id", CODE_POINTS, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False, server_default=sa.func.gen_random_uuid()),
        sa.Column("title", CODE_POINTS, nullable=False),
        sa.Column("title_folded", CODE_POINTS, nullable=False),
        sa.Column("description", CODE_POINTS),
        sa.Column("completed", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("priority", CODE_POINTS),
        sa.Column("due_date", INSTANT),
        sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("user_id", "id", name="pk_tasks"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_tasks_users", ondelete="CASCADE"),
        sa.CheckConstraint("char_length(title) BETWEEN 1 AND 200 AND btrim(title) <> ''", name=op.f("ck_tasks_title")),
        sa.CheckConstraint("char_length(description) <= 1000", name=op.f("ck_tasks_description_length")),
        sa.CheckConstraint("priority IN ('low', 'medium', 'high')", name=op.f("ck_tasks_priority")),
        sa.CheckConstraint(
            "due_date >= '0001-01-01 00:00Z' AND due_date < '10000-01-01 00:00Z'", name=op.f("ck_tasks_due_date_years")
        ),
    )
    op.create_index("ix_tasks_created", "tasks", ["user_id", "created_at", "id"])
    op.create_index("ix_tasks_title", "tasks", ["user_id", "title_folded", "id"])
    op.create_index("ix_tasks_due_asc", "tasks", ["user_id", "due_date", "id"])
    op.create_index("ix_tasks_due_desc", "tasks", ["user_id", sa.text("due_date DESC NULLS LAST"), sa.text("id DESC")])
    op.create_index("ix_tasks_id", "tasks", ["id"])

    # FORCE binds the tables' owner too, which is the application's role.
    for table, owner in (("users", "id"), ("tasks", "user_id")):
        is_own = f"{owner} = current_setting('app.user_id', true)"
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY {table}_select ON {table} FOR SELECT USING ({is_own})")
        op.execute(f"CREATE POLICY {table}_insert ON {table} FOR INSERT WITH CHECK ({is_own})")
        op.execute(f"CREATE POLICY {table}_update ON {table} FOR UPDATE USING ({is_own}) WITH CHECK ({is_own})")
        op.execute(f"CREATE POLICY {table}_delete ON {table} FOR DELETE USING ({is_own})")
    # The probe for 403 or 404 runs without a user, and can see only the row with one id.
    op.execute(
        "CREATE POLICY tasks_probe ON tasks FOR SELECT "
        "USING (id = nullif(current_setting('app.task_id', true), '')::uuid)"
    )

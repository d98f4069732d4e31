"""The data: 200 users with 100 tasks each, in a template that every server gets a fresh copy of."""

import hashlib
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import jwt
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from models import schema
from postgres.database import Database
from tests.support.postgres import Postgres

USERS = 200
TASKS = 100  # of each user, every other one pending
SECRET = "a-secret-for-the-benchmark-only-32-bytes"
OWNER = "tasks_bench"  # of the schema; row-level security binds it
BYPASS = "tasks_bench_bypass"  # for peers that know nothing of row-level security
NAME = "tasks_bench"
TEMPLATE = "tasks_bench_template"

SEED = """
INSERT INTO users (id, email, name)
SELECT 'user-' || u, 'user-' || u || '@example.com', 'User ' || u FROM generate_series(0, %(users)s - 1) u;

INSERT INTO tasks (user_id, id, title, title_folded, description, description_folded, completed, priority, due_date,
                   created_at, updated_at)
SELECT 'user-' || u, md5('user-' || u || '/' || t)::uuid, 'Task ' || t || ' of many', 'task ' || t || ' of many',
       text, lower(text), t %% 2 = 1, (ARRAY['low', 'medium', 'high'])[t %% 4], -- of four tasks one has none
       CASE WHEN t %% 3 > 0 THEN timestamptz '2026-12-01T09:00Z' + t * interval '1 hour' END, moment, moment
FROM generate_series(0, %(users)s - 1) u, generate_series(0, %(tasks)s - 1) t,
     LATERAL (SELECT 'What there is to do about task ' || t || ', in a sentence of the usual length.' AS text,
                     timestamptz '2026-11-01Z' + (t * 7919 + u) * interval '1 second 1 microsecond' AS moment) _;
"""
# Tasks to delete, spread over the users.
SPARE = """
INSERT INTO tasks (user_id, id, title, title_folded)
SELECT 'user-' || n %% %(users)s, md5(%(batch)s || n)::uuid, 'spare', 'spare' FROM generate_series(0, %(count)s - 1) n
"""


def user(number: int) -> str:
    """Return a user's id."""
    return f"user-{number}"


def task(number: int, of: int) -> str:
    """Return the id of a user's task."""
    return _uuid(f"{user(of)}/{number}")


def token(subject: str, secret: str = SECRET, lifetime: int = 24 * 60 * 60) -> str:
    """Return a user's token."""
    now = int(time.time())
    claims = {"sub": subject, "email": f"{subject}@example.com", "name": subject, "iat": now, "exp": now + lifetime}
    return jwt.encode(claims, secret, "HS256")


@contextmanager
def prepared(superuser_url: str | None) -> Iterator["Data"]:
    """Make the template on the PostgreSQL given, or on one that lives as long as this context.

    What the latter writes is not flushed to disk, and nothing but the load works in it: the servers are measured, not
    the disk.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped too
    if superuser_url:
        yield Data(superuser_url)
        return
    with Postgres(autovacuum="off") as server:
        yield Data(server.superuser_url)


class Data:
    """The databases on the server that `superuser_url` leads to, over TCP; `version` is the server's."""

    def __init__(self, superuser_url: str) -> None:
        self._superuser_url = superuser_url
        self._password = secrets.token_hex(16)
        with self._superuser() as connection:
            self.version = str(connection.info.parameter_status("server_version"))
        self._make_template()

    def _make_template(self) -> None:
        """Make the roles and the template, in place of those of an earlier run."""
        with self._superuser() as connection:
            for name in (NAME, TEMPLATE):
                _execute(connection, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)
            for role in (OWNER, BYPASS):
                _execute(connection, "DROP ROLE IF EXISTS {}", role)
                _execute(connection, f"CREATE ROLE {{}} LOGIN PASSWORD '{self._password}'", role)
            _execute(connection, "ALTER ROLE {} BYPASSRLS", BYPASS)
            _execute(connection, "CREATE DATABASE {} OWNER {}", TEMPLATE, OWNER)
            _execute(connection, "ALTER ROLE {} SET timezone = 'UTC'", BYPASS)
        database = Database(self._url(OWNER, TEMPLATE))
        schema.migrate(database)
        database.dispose()
        with self._superuser(TEMPLATE) as connection, connection.cursor() as cursor:
            for statement in SEED.split(";\n")[:-1]:
                cursor.execute(statement, {"users": USERS, "tasks": TASKS})
            _execute(connection, "GRANT ALL ON ALL TABLES IN SCHEMA public TO {}", BYPASS)
            cursor.execute("VACUUM ANALYZE")

    def refresh(self) -> None:
        """Put a copy of the template in the place of the database."""
        with self._superuser() as connection:
            _execute(connection, "DROP DATABASE IF EXISTS {} WITH (FORCE)", NAME)
            _execute(connection, "CREATE DATABASE {} OWNER {} TEMPLATE {}", NAME, OWNER, TEMPLATE)
            connection.execute("CHECKPOINT")

    def add_spare(self, batch: str, count: int) -> list[tuple[str, str]]:
        """Add tasks to delete; return each one's user and id."""
        with self._superuser(NAME) as connection:
            connection.execute(SPARE, {"users": USERS, "batch": batch, "count": count})
            connection.execute("VACUUM ANALYZE tasks")
        return [(user(number % USERS), _uuid(f"{batch}{number}")) for number in range(count)]

    def url(self, role: str) -> str:
        """Return the database's URL for a role."""
        return self._url(role, NAME)

    def _url(self, role: str, database: str) -> str:
        server = conninfo_to_dict(self._superuser_url)
        host, port = server.get("host", "127.0.0.1"), server.get("port", 5432)
        return f"postgresql://{role}:{self._password}@{host}:{port}/{database}"

    def _superuser(self, database: str | None = None) -> psycopg.Connection[tuple[Any, ...]]:
        url = make_conninfo(self._superuser_url, dbname=database) if database else self._superuser_url
        return psycopg.connect(url, autocommit=True)


def _execute(connection: psycopg.Connection[Any], statement: str, *names: str) -> None:
    connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))  # type: ignore[arg-type]


def _uuid(text: str) -> str:
    """Return the UUID that PostgreSQL makes of a text's MD5."""
    return str(UUID(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()))

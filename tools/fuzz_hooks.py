"""What Schemathesis cannot make up by itself; `schemathesis.toml` names this module."""

import os
from functools import cache
from typing import Any

import psycopg
import schemathesis
from hypothesis import strategies
from schemathesis.generation.meta import TestPhase

# A task of each identity: alice's is the one that the contract's examples speak of.
TASKS = {"alice": "8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11", "bob": "1f0de4b6-52a0-4f0f-8f35-6f2f6d3a9c55"}

# For headers Schemathesis makes letters and digits only, of which no entity tag is made.
schemathesis.openapi.format("if-match", strategies.sampled_from(["*", '"1"', '"1", "2"', "*", 'W/"1"', '"x"', '""']))
schemathesis.openapi.format("if-none-match", strategies.sampled_from(['"x"', '""', 'W/"99", "98"', '"1"', "*"]))


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case[Any], __: dict[str, Any]) -> None:
    """Let every request that stands alone meet the same tasks, whatever the ones before it did."""
    if case.meta is None or case.meta.phase.name != TestPhase.STATEFUL:
        make_tasks(connection())


@cache
def connection() -> psycopg.Connection:
    """Return a connection to the database of the server."""
    return psycopg.connect(
        os.environ["FUZZ_DATABASE"],
        autocommit=True,
        cursor_factory=psycopg.ClientCursor,  # for several statements at once, which are one transaction
        options="-c synchronous_commit=off",
    )


def make_tasks(database: psycopg.Connection) -> None:
    """Make the identities and their tasks anew."""
    for user, task_id in TASKS.items():
        database.execute(
            "SELECT set_config('app.user_id', %(user)s, true);"
            "INSERT INTO users (id) VALUES (%(user)s) ON CONFLICT DO NOTHING;"
            "DELETE FROM idempotency_keys;"  # row-level security leaves the others' alone
            "DELETE FROM tasks WHERE id = %(task)s;"
            "INSERT INTO tasks (user_id, id, title, title_folded) VALUES (%(user)s, %(task)s, 'A task', 'a task')",
            {"user": user, "task": task_id},
        )

"""The floor: an ASGI function with psycopg and the statements that the service sends, and nothing around them.

It checks the token and nothing else, knows no error but 401 and 404, and stores what it is sent. No framework can do
the same work on this server for less.
"""

import asyncio
import os
import re
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import jwt
import orjson
import psycopg
from psycopg.rows import dict_row

SECRET = os.environ["BETTER_AUTH_SECRET"]
POOL_SIZE = 10

PRELUDE = (
    "SELECT set_config('app.user_id', %s, true), set_config('app.probe', '', true),"
    " set_config('statement_timeout', '5000', true), set_config('lock_timeout', '2000', true)"
)
COLUMNS = (
    "id, version, user_id, title, description, completed, priority, timezone('UTC', due_date) AS due_date,"
    " timezone('UTC', created_at) AS created_at, timezone('UTC', updated_at) AS updated_at"
)
ONE = "user_id = %(user)s AND id = %(id)s"
GET = f"SELECT {COLUMNS} FROM tasks WHERE {ONE}"
LIST = f"SELECT {COLUMNS} FROM tasks WHERE user_id = %(user)s {{}} ORDER BY created_at DESC, id DESC LIMIT %(limit)s"
STATUSES = {"all": "", "pending": "AND NOT completed", "completed": "AND completed"}
INSERT = (
    "WITH new_user AS (INSERT INTO users (id, email, name) VALUES (%(user)s, %(email)s, %(name)s)"
    f" ON CONFLICT DO NOTHING) INSERT INTO tasks (user_id, {{}}) VALUES (%(user)s, {{}}) RETURNING {COLUMNS}"
)
UPDATE = f"UPDATE tasks SET updated_at = now(), version = version + 1, {{}} WHERE {ONE} RETURNING {COLUMNS}"
TOGGLE = UPDATE.format("completed = NOT completed")
DELETE = f"DELETE FROM tasks WHERE {ONE} RETURNING id"
TASK = re.compile("/api/tasks/([0-9a-f-]{36})(/complete)?")

connections: asyncio.LifoQueue[psycopg.AsyncConnection[dict[str, Any]]]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Serve one request."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    try:
        token = dict(scope["headers"])[b"authorization"].removeprefix(b"Bearer ")
        claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"require": ["exp", "iat", "sub"]})
    except (KeyError, jwt.PyJWTError):
        await answer(send, 401, b'{"detail":"no valid token"}')
        return
    status, content = await serve(scope, receive, claims)
    await answer(send, status, b"" if content is None else orjson.dumps(content, option=OPTIONS))


OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


async def serve(scope: Any, receive: Any, claims: dict[str, Any]) -> tuple[int, Any]:
    """Do what method and path say; return status and content."""
    method, path, user = scope["method"], scope["path"], claims["sub"]
    if path == "/api/tasks":
        if method == "POST":
            values = fields(orjson.loads(await body(receive)))
            statement = INSERT.format(", ".join(values), ", ".join(f"%({name})s" for name in values))
            owner = {"user": user, "email": claims.get("email"), "name": claims.get("name")}
            return 201, (await rows(user, statement, values | owner))[0]
        query = parse_qs(scope["query_string"].decode())
        statement = LIST.format(STATUSES[query.get("status", ["all"])[0]])
        return 200, await rows(user, statement, {"user": user, "limit": int(query.get("limit", ["1000"])[0])})
    found = TASK.fullmatch(path)
    if found is None:
        return 404, {"detail": "no such path"}
    parameters: dict[str, Any] = {"user": user, "id": UUID(found[1])}
    if found[2]:
        statement = TOGGLE
    elif method == "PUT":
        values = fields(orjson.loads(await body(receive)))
        statement = UPDATE.format(", ".join(f"{name} = %({name})s" for name in values))
        parameters |= values
    else:
        statement = DELETE if method == "DELETE" else GET
    tasks = await rows(user, statement, parameters)
    if not tasks:
        return 404, {"detail": "no such task"}
    return (204, None) if method == "DELETE" else (200, tasks[0])


def fields(given: dict[str, Any]) -> dict[str, Any]:
    """Return the columns for the fields of a body."""
    values = dict(given)
    for name in ("title", "description"):
        if name in values:
            values[f"{name}_folded"] = values[name].casefold()
    if values.get("due_date"):
        values["due_date"] = datetime.fromisoformat(values["due_date"])
    return values


async def rows(user: str, statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a statement as the user in one round trip."""
    connection = await connections.get()
    try:
        async with connection.pipeline():
            await connection.execute(PRELUDE, (user,))
            cursor = await connection.execute(statement, parameters)
        return await cursor.fetchall()
    finally:
        connections.put_nowait(connection)


async def body(receive: Any) -> bytes:
    """Read the whole body."""
    whole = b""
    while True:
        message = await receive()
        whole += message.get("body", b"")
        if not message.get("more_body"):
            return whole


async def answer(send: Any, status: int, content: bytes) -> None:
    """Send an answer."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers if content else []})
    await send({"type": "http.response.body", "body": content})


async def lifespan(receive: Any, send: Any) -> None:
    """Connect at the start."""
    global connections
    await receive()
    connections = asyncio.LifoQueue()
    for _ in range(POOL_SIZE):
        connection = await psycopg.AsyncConnection.connect(
            os.environ["DATABASE_URL"], autocommit=True, row_factory=dict_row
        )
        connections.put_nowait(connection)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})

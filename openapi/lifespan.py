"""What runs alongside the requests, from the application's start to its end."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from handlers.pages import Cursors
from models import idempotency, schema
from openapi.rate_limiter import RateLimiter
from openapi.request import Services
from postgres.database import Database
from postgres.errors import DatabaseUnavailable, RoleUnbound
from tokens.key_set import KeySet, KeysUnavailable

logger = logging.getLogger(__name__)

START_TIMEOUT = 5  # seconds that the start waits for the schema at most
RETRY_INTERVAL = 1  # seconds between attempts to reach a database that was down at the start
WATCH_INTERVAL = 1  # seconds
SWEEP_INTERVAL = 600  # seconds

Run = Callable[..., Awaitable[Any]]


@contextlib.asynccontextmanager
async def lifespan(
    _app: object, run: Run, services: Services, limiter: RateLimiter | None, is_alone: bool
) -> AsyncIterator[None]:
    """Run what an application needs beside its requests; `run` runs a function that waits for the database."""
    database, key_set, attempted = services.database, services.tokens.key_set, asyncio.Event()
    tasks = [
        asyncio.create_task(migrate(run, database, services.cursors, attempted)),
        asyncio.create_task(sweep(run, database)),
        asyncio.create_task(watch(database)),
    ]
    if key_set:
        await key_set.refresh()
        tasks.append(asyncio.create_task(load(key_set)))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(attempted.wait(), START_TIMEOUT)
    if is_alone:
        gc.freeze()
        gc.enable()
    yield
    for task in tasks:
        task.cancel()
    if limiter:
        await limiter.close()
    await run(database.dispose)


async def migrate(run: Run, database: Database, cursors: Cursors, attempted: asyncio.Event) -> None:
    """Bring the schema up to date as soon as the database can be reached; set `attempted` after the first attempt."""
    told = ""
    while True:
        try:
            await run(schema.migrate, database)
            await run(schema.check, database)
            await run(cursors.prepare)
            return
        except RoleUnbound as error:
            logger.error("no task is served: %s", error)
            return
        except DatabaseUnavailable as error:
            if str(error) != told:  # once, however long it lasts
                logger.warning("the database is not in order, retrying: %s", error)
            told = str(error)
        except Exception as error:
            if str(error) != told:
                logger.exception("the migration failed, retrying")
            told = str(error)
        finally:
            attempted.set()
        await asyncio.sleep(RETRY_INTERVAL)


async def load(key_set: KeySet) -> None:
    """Try until the issuer's keys were read once, since no request may come that asks for them before /ready is 200."""
    while True:
        try:
            key_set.check()
            return
        except KeysUnavailable:
            await asyncio.sleep(RETRY_INTERVAL)
            await key_set.refresh()


async def watch(database: Database) -> None:
    """Abort statements whose database has stopped responding."""
    while True:
        await asyncio.sleep(WATCH_INTERVAL)
        database.watch()


async def sweep(run: Run, database: Database) -> None:
    """Erase expired idempotency keys every SWEEP_INTERVAL seconds."""
    while True:
        await asyncio.sleep(SWEEP_INTERVAL)
        try:
            while await run(idempotency.sweep, database) == idempotency.SWEEP_SIZE:
                pass
        except Exception as error:
            logger.warning("expired idempotency keys were not erased, retrying later: %s", error)

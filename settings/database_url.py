"""The database's URL: taken apart without a doubt, or refused without showing any part of it.

libpq's messages quote what they cannot read, and a password with an unencoded character is read as something else: in
`postgresql://tasks:s3cr/et@host/db` it finds the host `tasks` and the port `s3cr`. Its grammar:
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING
"""

import re
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from settings.values import MASK, InvalidSettings

SCHEMES: Final = ("postgresql://", "postgres://")
EXAMPLE: Final = "Write it like postgresql://user:password@host/name"
ENCODE: Final = (
    "In the user, the password and parameters write % as %25, / as %2F, @ as %40, : as %3A, ? as %3F, # as %23, [ as "
    "%5B and a blank as %20"
)
SEARCH_PATH: Final = "let the role have it: ALTER ROLE ... SET search_path = ..."
# What to do with the parameters of other clients: Prisma, JDBC, node-postgres, asyncpg and SQLAlchemy.
FOREIGN: Final = {
    "schema": SEARCH_PATH,
    "currentSchema": SEARCH_PATH,
    "pgbouncer": "the service works behind a pooler without it",
    "connection_limit": "set DATABASE_POOL_SIZE instead",
    "pool_size": "set DATABASE_POOL_SIZE instead",
    "pool_timeout": "the service has a limit of its own",
    "socket_timeout": "set STATEMENT_TIMEOUT instead",
    "statement_timeout": "set STATEMENT_TIMEOUT instead",
    "command_timeout": "set STATEMENT_TIMEOUT instead",
    "lock_timeout": "set LOCK_TIMEOUT instead",
    "sslaccept": "write sslmode=require or sslmode=verify-full instead",
    "sslidentity": "write sslcert and sslkey instead",
    "ssl": "write sslmode=require instead",
    "statement_cache_size": "the service prepares no statements",
    "prepared_statement_cache_size": "the service prepares no statements",
    "prepareThreshold": "the service prepares no statements",
    "single_use_connections": "the service has a pool of its own",
}
INTEGERS: Final = (
    "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"
)  # fmt: skip
HOST: Final = re.compile(r"[/@].*|[\w.:%-]*")  # a socket's folder, or a name or an address
PORT: Final = re.compile(r"\d{0,5}")
SECRET: Final = re.compile("password|secret|scram_")  # in the names of parameters


def database(name: str, url: str) -> None:
    """Raise InvalidSettings unless libpq can read the URL, and only in one way."""
    if complaint := _complaint(url):
        raise InvalidSettings(f"{name} {complaint}.")


def without_passwords(url: str) -> str:
    """Return a database URL as libpq's parameters, passwords masked."""
    parameters = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    return make_conninfo("", **parameters | {name: MASK for name in parameters if SECRET.search(name)})


def _complaint(url: str) -> str | None:
    """Return what is wrong with a URL and how to mend it; nothing of the URL but names that are in this module."""
    if complaint := _about_scheme(url):
        return complaint
    if url.startswith(SCHEMES) and _is_ambiguous(url):
        return f"has a character in its user, its password or a parameter that means something else in a URL. {ENCODE}"
    try:
        parameters = conninfo_to_dict(url)
    except (psycopg.Error, UnicodeDecodeError) as error:  # the latter for percent-encoded bytes that are no UTF-8
        return _about_parameter(str(error)) or f"is no PostgreSQL URL. {EXAMPLE}. {ENCODE}"
    hosts, ports = (str(parameters.get(one, "")).split(",") for one in ("host", "port"))
    if not parameters or not all(map(HOST.fullmatch, hosts)) or "://" in str(parameters.get("dbname", "")):
        return f"is no PostgreSQL URL. {EXAMPLE}. {ENCODE}"
    if not all(PORT.fullmatch(port) and int(port or 1) in range(1, 65536) for port in ports):
        return f"has no number from 1 to 65535 where its port stands. {EXAMPLE}. {ENCODE}"
    for one in INTEGERS:
        if not re.fullmatch(r"-?\d{1,9}", str(parameters.get(one, 0))):
            return f"has no whole number as {one}. Write one, or remove it"
    return None


def _about_scheme(url: str) -> str | None:
    if url[:1] in "'\"`":
        return "begins with a quote. Remove the quotes around it"
    if url.startswith("psql "):
        return "is a command. Remove psql and the quotes, and leave the URL"
    if url.startswith("jdbc:"):
        return f"is a URL of JDBC. Remove jdbc:, and put the user and the password before the host. {EXAMPLE}"
    if url.startswith(("prisma:", "prisma+postgres:")):
        return f"is a URL of Prisma's own service. Take the one of the database itself. {EXAMPLE}"
    if re.match(r"postgres(ql)?\+[a-z0-9_]+://", url):
        return "names a driver behind a +. Remove the + and the driver, so that it begins with postgresql://"
    return None


def _is_ambiguous(url: str) -> bool:
    """Tell whether an `@` stands anywhere but behind the user and the password, whose end it marks."""
    before, _, behind = url.partition("://")[2].partition("@")
    return "@" in behind or ("@" in url and "/" in before)


def _about_parameter(message: str) -> str | None:
    """Return what to do with the parameter that libpq does not know."""
    found = re.match(
        r'invalid (?:URI query parameter|connection option): "(.*)"|invalid connection option "(.*)"', message
    )
    if not found:
        return None
    parameter = found[1] or found[2]
    if parameter in FOREIGN:
        return f"has the parameter {parameter}, which PostgreSQL's libpq does not know. Remove it; {FOREIGN[parameter]}"
    # Not named: it may be a part of a password.
    return (
        "has a parameter that PostgreSQL's libpq does not know. Remove it, or encode the & in the password as %26; see "
        "https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS"
    )

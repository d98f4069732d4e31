"""A database that another application uses too, or that lacks something: a sentence, or a schema of its own."""

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from models import schema
from models.base import Base
from models.inspection import VERSION_TABLE
from models.schema import HEAD
from postgres.database import Database
from server.cli import main
from settings.settings import Settings
from tests.support.client import Client, Conformance, assert_problem
from tests.support.hosts import HOSTS
from tests.support.pooler import pooler
from tests.support.server import ROOT, SECRET, Server, ServerProcess
from tests.support.waiting import await_true

ALEMBIC = "CREATE TABLE alembic_version (version_num text)"
AUTH_JS = "CREATE TABLE users (id serial PRIMARY KEY, name text, email text)"
OF_ITS_OWN = "give the service a database or a schema of its own, as docs/deployment.md describes"
FOREIGN = {
    "Auth.js": (AUTH_JS, "users"),
    "with all columns": (
        "CREATE TABLE users (id text, email text, name text, created_at timestamptz, updated_at timestamptz)",
        "users",
    ),
    "several": (
        f"{AUTH_JS}; CREATE TABLE tasks (id int); CREATE TABLE service_keys (id int)",
        "service_keys, tasks, users",
    ),
    "with Alembic": (f"{AUTH_JS}; {ALEMBIC}; INSERT INTO alembic_version VALUES ('0003')", "users"),
    "a view": ("CREATE VIEW tasks AS SELECT 1 AS id", "tasks"),
    "a sequence": ("CREATE SEQUENCE tasks", "tasks"),
}
HARMLESS = {
    "Better Auth": 'CREATE TABLE "user" (id text); CREATE TABLE session (id text); CREATE TABLE jwks (id text)',
    "a revision": f"{ALEMBIC}; INSERT INTO alembic_version VALUES ('1f2e3d')",
    "several revisions": f"{ALEMBIC}; INSERT INTO alembic_version VALUES ('0001'), ('x')",
    "a revision like ours": f"{ALEMBIC}; INSERT INTO alembic_version VALUES ('0003')",
    "no revision": ALEMBIC,
    "another version table": "CREATE TABLE alembic_version (n int)",
    "a table that is not ours to read": f"{ALEMBIC}; REVOKE ALL ON alembic_version FROM tasks_api",
}


def run(command: str, url: str) -> Result:
    return CliRunner().invoke(main, [command], env={"DATABASE_URL": url, "BETTER_AUTH_SECRET": SECRET})


def execute(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements)


@pytest.mark.parametrize("what", FOREIGN)
def test_tables_of_another_application_are_told_in_a_sentence(empty_database_url: str, what: str) -> None:
    statements, names = FOREIGN[what]
    execute(empty_database_url, statements)
    sentence = f"the schema public has {names} of another application; {OF_ITS_OWN}\n"
    for command, start in (
        ("check", "The database is not in order"),
        ("migrate", "The schema cannot be brought up to date"),
    ):
        result = run(command, empty_database_url)
        assert (result.exit_code, result.stderr) == (1, f"{start}: {sentence}")


def test_something_else_of_the_same_name_is_told_in_a_sentence(empty_database_url: str) -> None:
    execute(empty_database_url, "CREATE TYPE tasks AS ENUM ('a')")
    result = run("migrate", empty_database_url)
    assert (result.exit_code, result.stderr) == (
        1,
        f'The schema cannot be brought up to date: in the schema public type "tasks" already exists; {OF_ITS_OWN}\n',
    )


@pytest.mark.parametrize("what", HARMLESS)
def test_another_applications_revision_is_neither_read_nor_changed(empty_database_url: str, what: str) -> None:
    execute(empty_database_url, HARMLESS[what])
    assert run("check", empty_database_url).exit_code == 1
    result = run("migrate", empty_database_url)
    assert (result.exit_code, result.output) == (0, f"The schema is at revision {HEAD}.\n")
    assert run("check", empty_database_url).exit_code == 0


def test_check_tells_whose_revision_it_found(empty_database_url: str) -> None:
    execute(empty_database_url, HARMLESS["a revision"])
    assert run("check", empty_database_url).stderr == (
        f"The database is not in order: the schema is at revision none, this version needs {HEAD}; "
        "alembic_version in public is another application's\n"
    )


@pytest.mark.parametrize("framework", HOSTS)
def test_a_service_beside_another_application_is_not_ready_and_says_so_once(
    empty_database_url: str, tmp_path: Path, conformance: Conformance, framework: str
) -> None:
    execute(empty_database_url, AUTH_JS)
    environment = {"DATABASE_URL": empty_database_url, "BETTER_AUTH_SECRET": SECRET, "SERVER_FRAMEWORK": framework}
    sentence = f"the schema public has users of another application; {OF_ITS_OWN}"
    with ServerProcess(directory=tmp_path, **environment) as server, Client(server.url, conformance) as client:
        detail = f"The service is not ready: {sentence}."
        assert_problem(client.get("/ready"), 503, "unavailable", detail)
        execute(empty_database_url, "DROP TABLE users")
        await_true(lambda: client.get("/ready").status_code == 200)
    log = server.log.read_text()
    assert log.count(f"the database is not in order, retrying: {sentence}") == 1
    assert "Traceback" not in log


LACKS = {
    "DROP TABLE idempotency_keys, tasks": "has no table idempotency_keys, tasks",
    "DROP TABLE service_keys, tasks, idempotency_keys, users": (
        "has no table idempotency_keys, service_keys, tasks, users"
    ),
    "ALTER TABLE tasks RENAME version TO revision": "has no column tasks.version",
    "ALTER TABLE tasks RENAME TO todos; CREATE TABLE tasks (id int)": (
        "has no column tasks.completed, tasks.created_at, tasks.description, tasks.description_folded, tasks.due_date "
        "and 6 more"
    ),
    "ALTER TABLE tasks NO FORCE ROW LEVEL SECURITY": "does not force row-level security on tasks",
    "ALTER TABLE users DISABLE ROW LEVEL SECURITY": "does not force row-level security on users",
}


@pytest.mark.parametrize("statement", LACKS)
def test_what_a_schema_lacks_at_the_right_revision_is_told_by_check_and_by_readiness(
    empty_database_url: str, make_settings: Callable[..., Settings], conformance: Conformance, statement: str
) -> None:
    sentence = f"the schema public is at revision {HEAD} and {LACKS[statement]}"
    with Server(make_settings(database_url=empty_database_url)) as server, Client(server.url, conformance) as client:
        assert client.get("/ready").status_code == 200
        execute(empty_database_url, statement)
        assert_problem(client.get("/ready"), 503, "unavailable", f"The service is not ready: {sentence}.")
    result = run("check", empty_database_url)
    assert (result.exit_code, result.stderr) == (1, f"The database is not in order: {sentence}\n")


# Installations of a release before 0004, whose revision stands in alembic_version

OLD = """
    DROP TABLE service_keys;
    ALTER TABLE tasks_api_version RENAME TO alembic_version;
    ALTER TABLE alembic_version RENAME CONSTRAINT tasks_api_version_pkc TO alembic_version_pkc;
    UPDATE alembic_version SET version_num = '0003'
"""


def revisions(url: str) -> list[tuple[str]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT version_num FROM alembic_version UNION ALL SELECT version_num FROM tasks_api_version"
        ).fetchall()


def test_an_installation_of_the_release_before_is_taken_over_and_its_revision_left(empty_database_url: str) -> None:
    assert run("migrate", empty_database_url).exit_code == 0
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("SELECT set_config('app.user_id', 'old', false)")
        connection.execute("INSERT INTO users (id) VALUES ('old')")
        connection.execute(OLD)
    assert run("check", empty_database_url).stderr == (
        f"The database is not in order: the schema is at revision 0003, this version needs {HEAD}\n"
    )
    assert run("migrate", empty_database_url).exit_code == 0
    assert run("check", empty_database_url).exit_code == 0
    assert revisions(empty_database_url) == [("0003",), (HEAD,)]
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("SELECT set_config('app.user_id', 'old', true)")
        assert connection.execute("SELECT id FROM users").fetchall() == [("old",)]


# A schema of its own


@pytest.fixture
def own_schema(empty_database_url: str) -> tuple[str, str]:
    """The URL of a database with another application's tables, and a schema for the service."""
    name = f"Tasks {secrets.token_hex(2)}"
    execute(empty_database_url, f'{FOREIGN["with Alembic"][0]}; CREATE TABLE tasks (id int); CREATE SCHEMA "{name}"')
    return empty_database_url, name


@pytest.mark.parametrize("path", ['"{}"', '"{}", public'])
@pytest.mark.parametrize("way", ["options", "database", "pooled"])
def test_the_service_works_in_a_schema_of_its_own(
    own_schema: tuple[str, str],
    make_settings: Callable[..., Settings],
    conformance: Conformance,
    need: Callable[..., str],
    tmp_path: Path,
    way: str,
    path: str,
) -> None:
    url, name = own_schema
    search_path = path.format(name)
    if way == "options":
        quoted = search_path.replace(" ", "\\ ")
        url = make_conninfo(url, options=f"-csearch_path={quoted}")
    else:
        execute(url, f"ALTER DATABASE {conninfo_to_dict(url)['dbname']} SET search_path = {search_path}")
    with pooler(need("pgbouncer"), url, tmp_path) if way == "pooled" else nullcontext(url) as reached:
        use(reached, make_settings, conformance)
    with psycopg.connect(own_schema[0]) as connection:
        made = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (name,)).fetchall()
        assert {table for (table,) in made} == {*Base.metadata.tables, VERSION_TABLE}
        assert connection.execute("SELECT count(*) FROM public.users").fetchone() == (0,)


@pytest.fixture
def hosted_database_url(empty_database_url: str) -> Iterator[tuple[str, str]]:
    """The URLs of a database as its owner, who is no superuser and not the service's role, and as that role."""
    database, owner = conninfo_to_dict(empty_database_url)["dbname"], f"owner_{secrets.token_hex(4)}"
    administrator = make_conninfo(empty_database_url, user="postgres")
    execute(administrator, f"CREATE ROLE {owner} LOGIN; ALTER DATABASE {database} OWNER TO {owner}")
    yield make_conninfo(empty_database_url, user=owner), empty_database_url
    execute(administrator, f"REASSIGN OWNED BY {owner} TO tasks_api; DROP OWNED BY {owner}; DROP ROLE {owner}")


@pytest.mark.parametrize("is_pooled", [False, True])
def test_the_service_makes_its_schema_where_the_databases_owner_lets_it(
    hosted_database_url: tuple[str, str],
    make_settings: Callable[..., Settings],
    conformance: Conformance,
    need: Callable[..., str],
    tmp_path: Path,
    is_pooled: bool,
) -> None:
    owner, url = hosted_database_url
    execute(owner, AUTH_JS)
    section = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8").partition("### Beside another")[2]
    printed = re.findall(r"```sql\n(.*?)```", section.partition("###")[0], re.DOTALL)
    for role, block in zip(hosted_database_url, printed, strict=True):
        for statement in block.replace("neondb", str(conninfo_to_dict(url)["dbname"])).splitlines():
            execute(role, statement)
    with pooler(need("pgbouncer"), url, tmp_path) if is_pooled else nullcontext(url) as reached:
        use(reached, make_settings, conformance)
    with psycopg.connect(url) as connection:
        made = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'tasks'").fetchall()
    assert {table for (table,) in made} == {*Base.metadata.tables, VERSION_TABLE}


def use(url: str, make_settings: Callable[..., Settings], conformance: Conformance) -> None:
    """Migrate, serve, list two pages, and see that the walls stand."""
    with (
        Server(make_settings(database_url=url)) as server,
        Client(server.url, conformance, token=server.token(sub="one")) as one,
        Client(server.url, conformance, token=server.token(sub="two")) as two,
    ):
        assert one.get("/ready").status_code == 200
        task = one.create("first")
        one.create("second")
        page = one.get("/api/tasks?limit=1")
        assert [task["title"] for task in one.get(page.links["next"]["url"]).json()] == ["first"]
        assert two.get(f"/api/tasks/{task['id']}").status_code == 403
        assert one.delete("/api/me").status_code == 204


def test_a_search_path_without_a_schema_is_told_in_a_sentence(empty_database_url: str) -> None:
    url = make_conninfo(empty_database_url, options="-csearch_path=nowhere")
    sentence = "search_path names no schema that exists and that the role may use\n"
    assert run("check", url).stderr == f"The database is not in order: {sentence}"
    assert run("migrate", url).stderr == f"The schema cannot be brought up to date: {sentence}"


def test_two_services_in_one_database_keep_apart(own_schema: tuple[str, str]) -> None:
    url, name = own_schema
    execute(url, "DROP TABLE users, tasks, alembic_version")
    both = [url, make_conninfo(url, options=f'-csearch_path="{name}",public'.replace(" ", "\\ "))]
    assert [run("migrate", one).exit_code for one in both] == [0, 0]
    for one in both:
        database = Database(one)
        schema.check(database)
        database.dispose()

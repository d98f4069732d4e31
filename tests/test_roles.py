"""The role that the service connects as: one that row-level security does not bind is refused, loudly."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from server.cli import main
from settings.settings import Settings
from tests.support.client import Client, Conformance, assert_problem
from tests.support.hosts import HOSTS
from tests.support.postgres import another_database
from tests.support.problems import UNAVAILABLE
from tests.support.server import SECRET, Server, ServerProcess, sign
from tests.support.waiting import await_true

IDENTIFIER = "8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11"
REASONS = {"SUPERUSER": "is a superuser", "BYPASSRLS": "has BYPASSRLS"}


class Role:
    """A role that owns an empty database of its own."""

    def __init__(self, database_url: str, name: str) -> None:
        self._administrator = make_conninfo(database_url, user="postgres")
        self.name = name
        self.url = make_conninfo(database_url, user=name)

    def alter(self, attribute: str) -> None:
        """Give the role an attribute, or take one away."""
        with psycopg.connect(self._administrator, autocommit=True) as connection:
            connection.execute(f"ALTER ROLE {self.name} {attribute}")


@pytest.fixture
def role(database_url: str) -> Iterator[Role]:
    name = f"role_{secrets.token_hex(4)}"
    administrator = make_conninfo(database_url, user="postgres")
    with another_database(database_url) as url, psycopg.connect(administrator, autocommit=True) as connection:
        dbname = conninfo_to_dict(url)["dbname"]
        connection.execute(f"CREATE ROLE {name} LOGIN; ALTER DATABASE {dbname} OWNER TO {name}")
        yield Role(url, name)
        with psycopg.connect(make_conninfo(url, user="postgres"), autocommit=True) as owner:
            owner.execute(f"REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name}")
        connection.execute(f"DROP ROLE {name}")


@pytest.fixture(params=REASONS)
def unbound(request: pytest.FixtureRequest, role: Role) -> tuple[Role, str]:
    """A role that row-level security does not bind, and the sentence that says so."""
    role.alter(request.param)
    reason = REASONS[request.param]
    return role, (
        f"the role {role.name} {reason}, so that row-level security does not bind it; connect as a role without either"
    )


def run(command: str, url: str) -> Result:
    return CliRunner().invoke(main, [command], env={"DATABASE_URL": url, "BETTER_AUTH_SECRET": SECRET})


def test_check_says_that_row_level_security_does_not_bind_the_role(unbound: tuple[Role, str]) -> None:
    role, sentence = unbound
    run("migrate", role.url)
    result = run("check", role.url)
    assert (result.exit_code, result.stderr) == (1, f"The database is not in order: {sentence}\n")


def test_the_schema_may_be_migrated_by_a_role_that_is_not_bound(unbound: tuple[Role, str]) -> None:
    assert run("migrate", unbound[0].url).exit_code == 0


@pytest.mark.parametrize("framework", HOSTS)
def test_a_service_whose_role_is_not_bound_serves_no_task_and_says_why(
    unbound: tuple[Role, str],
    make_settings: Callable[..., Settings],
    conformance: Conformance,
    caplog: pytest.LogCaptureFixture,
    framework: str,
) -> None:
    role, sentence = unbound
    with (
        Server(make_settings(database_url=role.url, server_framework=framework)) as server,
        Client(server.url, conformance, token=server.token(sub="unbound")) as client,
    ):
        for method, path, body in (
            ("GET", "/ready", None),
            ("GET", "/api/tasks", None),
            ("POST", "/api/tasks", {"title": "x"}),
            ("GET", f"/api/tasks/{IDENTIFIER}", None),
            ("PUT", f"/api/tasks/{IDENTIFIER}", {"title": "x"}),
            ("PATCH", f"/api/tasks/{IDENTIFIER}/complete", None),
            ("DELETE", f"/api/tasks/{IDENTIFIER}", None),
            ("GET", "/api/me", None),
            ("GET", "/api/me/export", None),
            ("DELETE", "/api/me", None),
        ):
            caplog.clear()
            response = client.request(method, path, json=body)
            assert_problem(response, 503, "unavailable", UNAVAILABLE)
            assert sentence in caplog.text
        assert client.get("/health").status_code == 200
        role.alter("NOSUPERUSER NOBYPASSRLS")
        assert client.get("/ready").status_code == 200
        client.create()


def test_a_server_whose_role_is_not_bound_logs_an_error_at_start(unbound: tuple[Role, str], tmp_path: Path) -> None:
    role, sentence = unbound
    environment = {"DATABASE_URL": role.url, "BETTER_AUTH_SECRET": SECRET}
    with ServerProcess(directory=tmp_path, **environment) as server:
        await_true(lambda: f"ERROR openapi.lifespan no task is served: {sentence}" in server.log.read_text())


def test_readiness_finds_a_role_that_is_no_longer_bound_and_no_task_is_served_from_then_on(
    role: Role, make_settings: Callable[..., Settings], conformance: Conformance
) -> None:
    with (
        Server(make_settings(database_url=role.url)) as server,
        Client(server.url, conformance, token=server.token(sub="unbound")) as client,
    ):
        client.create()
        role.alter("BYPASSRLS")
        assert_problem(client.get("/ready"), 503, "unavailable", UNAVAILABLE)
        assert_problem(client.get("/api/tasks"), 503, "unavailable", UNAVAILABLE)


@pytest.fixture
def without_create(role: Role) -> Iterator[str]:
    """The URL of a role that may use a database and create nothing there."""
    name = f"{role.name}_user"
    with psycopg.connect(make_conninfo(role.url, user="postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
        yield make_conninfo(role.url, user=name)
        connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_a_role_without_the_right_to_create_is_told_so(without_create: str) -> None:
    result = run("migrate", without_create)
    assert (result.exit_code, result.stderr) == (
        1,
        "The schema cannot be brought up to date: permission denied for schema public;"
        " grant the role what it lacks, or migrate as the role that owns the schema\n",
    )


def test_a_role_without_the_right_to_read_the_schema_is_told_so(without_create: str, role: Role) -> None:
    assert run("migrate", role.url).exit_code == 0
    for command, start in (
        ("check", "The database is not in order"),
        ("migrate", "The schema cannot be brought up to date"),
    ):
        result = run(command, without_create)
        assert (result.exit_code, result.stderr) == (
            1,
            f"{start}: permission denied for table tasks_api_version;"
            " grant the role what it lacks, or migrate as the role that owns the schema\n",
        )


def test_a_role_without_the_right_to_write_is_told_so_and_gets_a_503(
    without_create: str,
    role: Role,
    make_settings: Callable[..., Settings],
    conformance: Conformance,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert run("migrate", role.url).exit_code == 0
    user = conninfo_to_dict(without_create)["user"]
    with psycopg.connect(role.url, autocommit=True) as owner:
        owner.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}")
        owner.execute(f"GRANT INSERT, UPDATE, DELETE ON users, tasks TO {user}")
        grant = "grant the role what it lacks, or migrate as the role that owns the schema"
        rights = ", ".join(f"{right} on idempotency_keys" for right in ("DELETE", "INSERT", "UPDATE"))
        lacking = f"the role has no {rights}, INSERT on service_keys; {grant}"
        result = run("check", without_create)
        assert (result.exit_code, result.stderr) == (1, f"The database is not in order: {lacking}\n")
        with (
            Server(make_settings(database_url=without_create)) as server,
            Client(server.url, conformance, token=server.token(sub="lacking")) as client,
        ):
            assert_problem(client.get("/ready"), 503, "unavailable", UNAVAILABLE)
            caplog.clear()
            response = client.post("/api/tasks", json={"title": "x"}, headers={"Idempotency-Key": "k"})
            assert_problem(response, 503, "unavailable", UNAVAILABLE)
            assert f"permission denied for table idempotency_keys; {grant}" in caplog.text
            client.create()
            owner.execute(f"GRANT INSERT, UPDATE, DELETE ON idempotency_keys TO {user}")
            owner.execute(f"GRANT INSERT ON service_keys TO {user}")
            assert client.get("/ready").status_code == 200


def test_a_server_without_the_right_to_create_logs_the_sentence_and_starts_when_the_schema_is_there(
    without_create: str, role: Role, tmp_path: Path, conformance: Conformance
) -> None:
    environment = {"DATABASE_URL": without_create, "BETTER_AUTH_SECRET": SECRET}
    token = sign(Settings.load(environment), sub="granted")
    with ServerProcess(directory=tmp_path, **environment) as server, Client(server.url, conformance, token=token) as c:
        await_true(lambda: "permission denied for schema public; grant the role" in server.log.read_text())
        assert "Traceback" not in server.log.read_text()
        assert_problem(c.get("/api/tasks"), 503, "unavailable", UNAVAILABLE)
        assert run("migrate", role.url).exit_code == 0
        with psycopg.connect(role.url) as connection:
            user = conninfo_to_dict(without_create)["user"]
            connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}")
        await_true(lambda: c.get("/ready").status_code == 200)
        c.create()

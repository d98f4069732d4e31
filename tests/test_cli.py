"""The command line, `tasks-api`, and the server that it runs."""

import logging
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import click
import httpx
import jwt
import psycopg
import pytest
import uvicorn
from click.testing import CliRunner, Result
from connexion.apps.asynchronous import AsyncApp
from connexion.apps.flask import FlaskApp

from models import schema
from models.schema import HEAD
from openapi.app import create_app
from postgres.database import Database
from server.cli import main
from settings.development_secret import ensure_token_secret
from settings.settings import Settings
from tests.support.client import Client, Conformance
from tests.support.hosts import HOSTS
from tests.support.server import ROOT, SECRET, Server, ServerProcess

COMMANDS = {"serve", "token", "migrate", "check"}
DAY = 24 * 60 * 60
SECONDS = 30  # to wait for a process
Run = Callable[..., Result]
TAKEN = "Another program listens on port {} of 127.0.0.1. Stop it, or set PORT to another one.\n"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command line in an empty directory, with no setting but those given."""
    for one in fields(Settings):
        monkeypatch.delenv(one.metadata["name"], raising=False)
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(main, arguments, env=environment, prog_name="tasks-api")

    return invoke


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What `serve` asks of uvicorn, which does not run."""
    level, handlers = logging.root.level, list(logging.root.handlers)
    asked: dict[str, Any] = {}

    class Runs:
        has_failed = False

        def __init__(self, config: uvicorn.Config, *arguments: Any) -> None:
            asked.update(vars(config))
            self._announcement = arguments[-1]

        def run(self, *_: Any) -> None:
            click.echo(self._announcement)

    def listen(host: str, port: int) -> list[Any]:
        return [MagicMock(getsockname=lambda: (host, port))]

    monkeypatch.setattr("server.cli.listen", listen)
    monkeypatch.setattr("server.processes.shared", lambda sockets: sockets)
    monkeypatch.setattr("server.processes.Server", Runs)
    monkeypatch.setattr("server.processes.Workers", Runs)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for name in ("DATABASE_URL", "HOST"):  # so that what `serve` sets ends with the test
        monkeypatch.setenv(name, "")
    yield asked
    logging.root.setLevel(level)  # uvicorn's configuration has set them
    logging.root.handlers[:] = handlers


@pytest.fixture
def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def process(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own until it ends."""
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def wait_for(condition: Callable[[], Any]) -> Any:
    """Wait until the condition holds and return its value."""
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.02)
    return value


def answers(server: ServerProcess) -> bool:
    """Tell whether the server answers; with several workers it says that it runs before it listens."""
    try:
        return httpx.get(f"{server.url}/health", trust_env=False).status_code == 200
    except httpx.ConnectError:
        return False


# Help


def test_the_command_is_installed() -> None:
    command = [str(Path(sys.executable).with_name("tasks-api")), "--version"]
    assert subprocess.check_output(command, text=True) == "tasks-api, version 1.0.0\n"


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_the_help_lists_the_commands(run: Run, option: str) -> None:
    result = run(option)
    assert result.exit_code == 0
    assert set(re.findall(r"^  (\w+)  +[A-Z]", result.stdout.partition("Commands:")[2], re.MULTILINE)) == COMMANDS


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("serve", {"--host", "--port", "--workers", "--reload"}),
        ("token", {"--user", "--email", "--name", "--ttl"}),
        ("migrate", set()),
        ("check", set()),
    ],
)
def test_the_help_of_a_command_explains_its_options(run: Run, command: str, options: set[str]) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: tasks-api {command} [OPTIONS]\n\n  ")
    assert set(re.findall(r"^  (?:-h, )?(--\w+)", result.stdout, re.MULTILINE)) == options | {"--help"}
    assert re.findall(r"^  (?:-h, )?--\w+( [A-Z]+)?( RANGE)?$", result.stdout, re.MULTILINE) == []


def test_the_version_is_the_one_of_the_project(run: Run) -> None:
    (version,) = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert run("--version").stdout.split()[-1] == version


def test_an_unknown_command_is_a_usage_error(run: Run) -> None:
    result = run("nothing")
    assert result.exit_code == 2
    assert "No such command 'nothing'" in result.stderr


# token


def test_a_printed_token_is_accepted_by_a_server_with_the_same_secret(
    run: Run, server: Server, conformance: Conformance
) -> None:
    result = run("token", "--user", "cli-user", BETTER_AUTH_SECRET=SECRET)
    assert (result.exit_code, result.stderr) == (0, "")
    with Client(server.url, conformance, token=result.stdout.strip()) as client:
        assert client.create()["user_id"] == "cli-user"


def test_a_printed_token_is_refused_by_a_server_with_another_secret(run: Run, anonymous: Client) -> None:
    token = run("token", "--user", "cli-user", BETTER_AUTH_SECRET="another-secret-that-is-long-enough").stdout.strip()
    response = anonymous.get("/api/tasks", headers={"Authorization": f"Bearer {token}"})
    assert (response.status_code, response.json()["detail"]) == (401, "The token's signature is not valid.")


def test_a_user_made_by_a_printed_token_has_its_email_and_name(
    run: Run, server: Server, conformance: Conformance, database_url: str
) -> None:
    user = f"cli-{server.settings.server_framework}"
    arguments = ("token", "--user", user, "--email", "cli@example.com", "--name", "Clara Inez")
    token = run(*arguments, BETTER_AUTH_SECRET=SECRET).stdout.strip()
    with Client(server.url, conformance, token=token) as client:
        client.create()
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT set_config('app.user_id', %s, true)", (user,))
        stored = connection.execute("SELECT email, name FROM users WHERE id = %s", (user,)).fetchone()
    assert stored == ("cli@example.com", "Clara Inez")


@pytest.mark.parametrize(("arguments", "lifetime"), [((), DAY), (("--ttl", "60"), 60)])
def test_a_printed_token_lasts_a_day_or_as_asked(run: Run, arguments: tuple[str, ...], lifetime: int) -> None:
    token = run("token", "--user", "u", *arguments, BETTER_AUTH_SECRET=SECRET).stdout.strip()
    claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    assert claims == {"sub": "u", "iat": claims["iat"], "exp": claims["iat"] + lifetime}
    assert abs(claims["iat"] - time.time()) < 10


def test_without_a_secret_no_token_is_printed(run: Run) -> None:
    result = run("token", "--user", "u", BETTER_AUTH_URL="https://app.example.com")
    assert result.exit_code == 1
    assert result.stderr == "BETTER_AUTH_SECRET is not set, so only the issuer can sign tokens.\n"


def test_a_printed_token_has_the_configured_issuer_and_audience(run: Run) -> None:
    own = {"JWT_ISSUER": "https://issuer.example", "JWT_AUDIENCE": "tasks"}
    token = run("token", "--user", "u", BETTER_AUTH_SECRET=SECRET, **own).stdout.strip()
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], issuer=own["JWT_ISSUER"], audience=own["JWT_AUDIENCE"])
    assert (claims["iss"], claims["aud"]) == (own["JWT_ISSUER"], own["JWT_AUDIENCE"])


def test_a_token_printed_in_development_has_the_secret_of_the_data_directory(run: Run, tmp_path: Path) -> None:
    token = run("token", "--user", "u", DATA_DIR="data").stdout.strip()
    secret = ensure_token_secret(Settings.load({"DATA_DIR": str(tmp_path / "data")}))
    assert secret
    assert jwt.decode(token, secret, algorithms=["HS256"])["sub"] == "u"


@pytest.mark.parametrize("arguments", [(), ("--user", "u", "--ttl", "0"), ("--user", "u", "--ttl", "x")])
def test_a_token_without_a_user_or_a_lifetime_is_a_usage_error(run: Run, arguments: tuple[str, ...]) -> None:
    result = run("token", *arguments, BETTER_AUTH_SECRET=SECRET)
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize("user", ["", "x" * 256])
def test_no_token_is_printed_that_the_server_would_refuse(run: Run, user: str) -> None:
    result = run("token", "--user", user, BETTER_AUTH_SECRET=SECRET)
    assert result.exit_code != 0
    assert result.stdout == ""


# migrate


def test_migrate_makes_the_schema_of_an_empty_database(run: Run, empty_database_url: str) -> None:
    result = run("migrate", DATABASE_URL=empty_database_url)
    assert (result.exit_code, result.output) == (0, f"The schema is at revision {HEAD}.\n")
    assert _revision(empty_database_url) == HEAD


def test_migrate_leaves_a_schema_that_is_in_order_as_it_is(run: Run, empty_database_url: str) -> None:
    first, second = (run("migrate", DATABASE_URL=empty_database_url) for _ in range(2))
    assert (second.exit_code, second.output) == (0, first.output)
    assert _revision(empty_database_url) == HEAD


def test_migrate_says_that_the_database_is_away(run: Run, closed_port: int) -> None:
    result = run("migrate", DATABASE_URL=f"postgresql://u@127.0.0.1:{closed_port}/db")
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"The schema cannot be brought up to date: .*\n", result.stderr)


def _revision(url: str) -> str | None:
    database = Database(url)
    try:
        return schema.revision(database)
    finally:
        database.dispose()


# check


def test_check_succeeds_when_the_database_is_in_order(run: Run, empty_database_url: str) -> None:
    run("migrate", DATABASE_URL=empty_database_url)
    result = run("check", DATABASE_URL=empty_database_url)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.endswith(f"\nThe database is reachable, and its schema is at revision {HEAD}.\n")


def test_check_fails_when_the_schema_is_missing(run: Run, empty_database_url: str) -> None:
    result = run("check", DATABASE_URL=empty_database_url)
    assert (result.exit_code, result.stderr) == (
        1,
        f"The database is not in order: the schema is at revision none, this version needs {HEAD}\n",
    )


def test_check_does_not_change_the_database(run: Run, empty_database_url: str) -> None:
    run("check", DATABASE_URL=empty_database_url)
    assert _revision(empty_database_url) is None


def test_check_fails_when_the_database_is_away(run: Run, closed_port: int) -> None:
    result = run("check", DATABASE_URL=f"postgresql://u@127.0.0.1:{closed_port}/db")
    assert result.exit_code == 1
    assert re.fullmatch(r"The database is not in order: .*\n", result.stderr)


def test_check_prints_every_setting(run: Run, empty_database_url: str) -> None:
    lines = run("check", DATABASE_URL=empty_database_url, PORT="8123").stdout.splitlines()
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert set(shown) == {one.metadata["name"] for one in fields(Settings)}
    assert shown["PORT"] == "8123"


@pytest.mark.parametrize("form", ["postgresql://u:pa55word@{}/db", "postgresql://u@{}/db?password=pa55word"])
def test_check_prints_no_secret(run: Run, closed_port: int, form: str) -> None:
    url = form.format(f"127.0.0.1:{closed_port}")
    result = run("check", DATABASE_URL=url, NEON_DB_URL=url, BETTER_AUTH_SECRET=SECRET)
    assert str(closed_port) in result.stdout
    assert [secret for secret in ("pa55word", SECRET) if secret in result.output] == []


# Wrong settings


@pytest.mark.parametrize("command", [("serve",), ("token", "--user", "u"), ("migrate",), ("check",)])
def test_every_command_refuses_wrong_settings_with_a_sentence(run: Run, command: tuple[str, ...]) -> None:
    result = run(*command, LOG_LEVEL="loud")
    assert (result.exit_code, result.output) == (
        1,
        "LOG_LEVEL is 'loud'. Set it to debug, info, warning or error.\n",
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--port", "65536"), "PORT is 65536. Set it to a port number, at most 65535."),
        (("--workers", "0"), "WEB_CONCURRENCY is 0. Set it to a number from 1 to 1000."),
        (
            ("--host", "0.0.0.0"),
            "HOST is 0.0.0.0, which others can reach, and neither BETTER_AUTH_SECRET nor BETTER_AUTH_URL is set. "
            "Set one, or bind to 127.0.0.1.",
        ),
    ],
)
def test_serve_refuses_wrong_options_with_a_sentence(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    result = run("serve", *arguments)
    assert (result.exit_code, result.output) == (1, f"{sentence}\n")


@pytest.mark.parametrize("command", [("serve",), ("migrate",), ("check",)])
def test_every_command_refuses_a_url_that_is_none_of_postgresql(run: Run, command: tuple[str, ...]) -> None:
    result = run(*command, DATABASE_URL="mysql://u:pa55word@127.0.0.1/db", BETTER_AUTH_SECRET=SECRET)
    assert isinstance(result.exception, SystemExit)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("DATABASE_URL ")
    assert "pa55word" not in result.stderr


def test_serve_ends_with_the_sentence_and_no_traceback(tmp_path: Path) -> None:
    result = process(tmp_path, "serve", BETTER_AUTH_SECRET="short")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "BETTER_AUTH_SECRET is shorter than 32 bytes. Make one with: "
        'python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
    ]


# serve


def test_serve_listens_where_the_environment_says(run: Run, served: dict[str, Any], database_url: str) -> None:
    environment = {"HOST": "127.0.0.2", "PORT": "8123", "WEB_CONCURRENCY": "3"}
    result = run("serve", DATABASE_URL=database_url, BETTER_AUTH_SECRET=SECRET, **environment)
    assert result.exit_code == 0, result.output
    assert (served["host"], served["port"], served["workers"]) == ("127.0.0.2", 8123, 3)


def test_options_of_serve_win_over_the_environment(run: Run, served: dict[str, Any], database_url: str) -> None:
    environment = {"HOST": "127.0.0.2", "PORT": "8123", "WEB_CONCURRENCY": "3"}
    arguments = ("--host", "127.0.0.3", "--port", "8124", "--workers", "4")
    result = run("serve", *arguments, DATABASE_URL=database_url, BETTER_AUTH_SECRET=SECRET, **environment)
    assert result.exit_code == 0, result.output
    assert (served["host"], served["port"], served["workers"]) == ("127.0.0.3", 8124, 4)


def test_serve_listens_on_port_8000_of_loopback_by_itself(run: Run, served: dict[str, Any], database_url: str) -> None:
    result = run("serve", DATABASE_URL=database_url)
    assert result.exit_code == 0, result.output
    assert (served["host"], served["port"], served["workers"]) == ("127.0.0.1", 8000, 1)
    assert "Documentation: http://127.0.0.1:8000/docs\n" in result.output


@pytest.mark.usefixtures("served")
def test_an_ipv6_address_stands_in_brackets_in_the_printed_url(run: Run, database_url: str) -> None:
    result = run("serve", "--host", "::1", DATABASE_URL=database_url)
    assert "Documentation: http://[::1]:8000/docs\n" in result.output


def test_serve_in_development_prints_the_url_of_the_documentation(
    tmp_path: Path, database_url: str, closed_port: int
) -> None:
    with ServerProcess("--port", str(closed_port), directory=tmp_path, DATABASE_URL=database_url) as server:
        assert f"Documentation: http://127.0.0.1:{closed_port}/docs\n" in server.log.read_text()
        assert httpx.get(f"{server.url}/docs", trust_env=False).status_code == 200


@pytest.mark.slow
def test_new_connections_do_not_wait_one_by_one_while_others_send_requests_in_a_row(
    tmp_path: Path, database_url: str
) -> None:
    with ServerProcess(directory=tmp_path, DATABASE_URL=database_url) as server, ExitStack() as stack:
        url = httpx.URL(server.url)
        for _ in range(200):
            flood = stack.enter_context(socket.create_connection((url.host, url.port)))
            flood.setblocking(False)
            flood.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 4000)
        assert httpx.get(f"{server.url}/health", trust_env=False, timeout=8).is_success


def test_serve_on_any_free_port_prints_the_one_that_it_got(tmp_path: Path, database_url: str) -> None:
    with ServerProcess(directory=tmp_path, DATABASE_URL=database_url) as server:
        printed = wait_for(lambda: re.search(r"Documentation: (\S+)", server.log.read_text()))
        assert printed[1] == f"{server.url}/docs"


def test_serve_in_development_prints_a_token_that_works_at_once(
    tmp_path: Path, database_url: str, conformance: Conformance
) -> None:
    with ServerProcess(directory=tmp_path, DATABASE_URL=database_url) as server:
        (token,) = re.findall(r"A token .*: (\S+)\n", server.log.read_text())
        with Client(server.url, conformance, token=token) as client:
            assert client.create()["user_id"] == "demo"


def test_serve_with_a_configured_secret_prints_no_token(tmp_path: Path, database_url: str) -> None:
    with ServerProcess(directory=tmp_path, DATABASE_URL=database_url, BETTER_AUTH_SECRET=SECRET) as server:
        assert httpx.get(f"{server.url}/health", trust_env=False).status_code == 200
    log = server.log.read_text()
    assert "token" not in log
    assert "eyJ" not in log  # as every token begins


def test_without_any_setting_serve_has_a_database_of_its_own(tmp_path: Path, conformance: Conformance) -> None:
    with ServerProcess(directory=tmp_path) as server:
        (token,) = re.findall(r"A token .*: (\S+)\n", server.log.read_text())
        with Client(server.url, conformance, token=token) as client:
            task = client.create()
    assert (server.process.returncode, list(tmp_path.rglob("postmaster.pid"))) == (0, [])
    with ServerProcess(directory=tmp_path) as server, Client(server.url, conformance, token=token) as client:
        assert client.get(f"/api/tasks/{task['id']}").json() == task


def test_serve_makes_the_schema_of_an_empty_database(
    tmp_path: Path, empty_database_url: str, conformance: Conformance
) -> None:
    with ServerProcess(directory=tmp_path, DATABASE_URL=empty_database_url) as server:
        with Client(server.url, conformance) as client:
            assert client.get("/ready").status_code == 200
        assert _revision(empty_database_url) == HEAD


@pytest.mark.parametrize("framework", HOSTS)
@pytest.mark.parametrize("arguments", [(), ("--workers", "2")], ids=["one process", "two workers"])
def test_sigterm_ends_the_server_in_good_order(
    tmp_path: Path, database_url: str, framework: str, arguments: tuple[str, ...]
) -> None:
    environment = {"DATABASE_URL": database_url, "BETTER_AUTH_SECRET": SECRET, "SERVER_FRAMEWORK": framework}
    with ServerProcess(*arguments, directory=tmp_path, **environment) as server:
        wait_for(lambda: answers(server))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=15) == 0
    assert "Traceback" not in server.log.read_text()
    assert not answers(server)


def test_ctrl_c_ends_the_server_without_a_traceback(tmp_path: Path, database_url: str) -> None:
    with ServerProcess(directory=tmp_path, DATABASE_URL=database_url) as server:
        server.process.send_signal(signal.SIGINT)
        server.process.wait(timeout=15)
    assert "Traceback" not in server.log.read_text()


def test_two_workers_share_the_connections(tmp_path: Path, database_url: str) -> None:
    with ServerProcess("--workers", "2", directory=tmp_path, DATABASE_URL=database_url) as server:
        (token,) = re.findall(r"A token .*: (\S+)\n", server.log.read_text())
        wait_for(lambda: server.log.read_text().count("Application startup complete") == 2)
        (stopped, _) = map(int, re.findall(r"Started server process \[(\d+)\]", server.log.read_text()))
        request = f"GET /api/tasks HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        with ExitStack() as open_connections:
            os.kill(stopped, signal.SIGSTOP)  # what comes to it waits
            try:
                connections = [open_connections.enter_context(socket.create_connection(address)) for _ in range(100)]
                for connection in connections:
                    connection.sendall(request)
                time.sleep(2)
                by_the_other, *_ = select.select(connections, [], [], 0)
            finally:
                os.kill(stopped, signal.SIGCONT)
            assert 25 <= len(by_the_other) <= 75
            for connection in connections:
                connection.settimeout(SECONDS)
                assert connection.recv(15) == b"HTTP/1.1 200 OK"


def test_a_port_that_another_server_has_is_refused(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "other").mkdir()
    with ServerProcess("--workers", "2", directory=tmp_path, DATABASE_URL=database_url) as server:
        port = server.url.rpartition(":")[2]
        for workers in ("1", "2"):
            arguments = ("--port", port, "--workers", workers)
            result = process(tmp_path / "other", "serve", *arguments, DATABASE_URL=database_url)
            assert (result.returncode, result.stdout, result.stderr) == (1, "", TAKEN.format(port))


def test_the_process_that_watches_over_workers_imports_neither_connexion_nor_sqlalchemy() -> None:
    code = "import sys, server.cli; print({'connexion', 'sqlalchemy', 'jwt'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT) == "set()\n"


def test_serve_starts_again_when_a_file_changes(tmp_path: Path, database_url: str) -> None:
    with ServerProcess("--reload", directory=tmp_path, DATABASE_URL=database_url) as server:
        wait_for(lambda: "Application startup complete" in server.log.read_text())
        (tmp_path / "changed.py").write_text("")
        wait_for(lambda: server.log.read_text().count("Application startup complete") == 2)
        wait_for(lambda: answers(server))


@pytest.mark.parametrize(("framework", "host"), [("asgi", AsyncApp), ("flask", FlaskApp)])
def test_the_framework_is_the_configured_one(
    make_settings: Callable[..., Settings], framework: str, host: type
) -> None:
    assert type(create_app(make_settings(server_framework=framework))) is host


@pytest.mark.second_host
def test_serve_runs_on_flask(tmp_path: Path, database_url: str, conformance: Conformance) -> None:
    environment = {"DATABASE_URL": database_url, "SERVER_FRAMEWORK": "flask"}
    with ServerProcess(directory=tmp_path, **environment) as server:
        (token,) = re.findall(r"A token .*: (\S+)\n", server.log.read_text())
        with Client(server.url, conformance, token=token) as client:
            task = client.create()
            assert client.get(f"/api/tasks/{task['id']}").json() == task


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_log_level_holds_for_the_server(run: Run, served: dict[str, Any], database_url: str, level: str) -> None:
    result = run("serve", DATABASE_URL=database_url, LOG_LEVEL=level)
    assert result.exit_code == 0, result.output
    assert served["log_config"]["root"]["level"] == level.upper()


@pytest.mark.parametrize("options", [(), ("--workers", "2"), ("--reload",)])
def test_a_port_that_is_taken_is_told_before_anything_is_started_or_printed(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = process(tmp_path, "serve", "--port", port, *options)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", TAKEN.format(port))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_what_stops_the_application_ends_serve_with_one_sentence(
    tmp_path: Path, database_url: str, options: tuple[str, ...]
) -> None:
    # A module in front of the project's, in whose application a setting is found wrong.
    (tmp_path / "sitecustomize.py").write_text(
        "import openapi.contract_checks as checks\n"
        "from settings.values import InvalidSettings\n"
        "def refuse(*_): raise InvalidSettings('No good.')\n"
        "checks.check = refuse\n"
    )
    environment = {"DATABASE_URL": database_url, "BETTER_AUTH_SECRET": SECRET, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    result = process(tmp_path, "serve", "--port", "0", *options, **environment)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("No good.\n") == 1
    assert "Traceback" not in result.stderr


def test_a_host_without_an_address_is_named_in_a_sentence(run: Run) -> None:
    result = run("serve", HOST="nowhere.invalid", PORT="0", BETTER_AUTH_SECRET=SECRET)
    assert result.exit_code == 1
    assert "nowhere.invalid" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", [("token", "--user", "u"), ("migrate",), ("check",), ("serve",)])
def test_a_data_folder_that_is_a_file_is_named_in_a_sentence(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    path = tmp_path / "data"
    path.write_text("")
    result = run(*command, DATA_DIR=str(path))
    assert result.exit_code == 1
    assert str(path) in result.output
    assert "Traceback" not in result.output


def test_an_env_file_that_is_not_utf_8_is_named_in_a_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"LOG_LEVEL=\xff\n")
    result = run("check")
    assert result.exit_code == 1
    assert "The file .env is not UTF-8. Save it in that encoding." in result.output


def test_a_secret_that_the_frontend_may_read_differently_is_told_at_the_start(
    run: Run, served: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"BETTER_AUTH_SECRET='{SECRET}$X'\n")
    result = run("serve", DATABASE_URL="postgresql://localhost/none")
    assert served["port"] == 8000
    assert "Next.js and Vite replace $NAME" in result.stderr

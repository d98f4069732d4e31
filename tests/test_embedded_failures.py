"""What keeps the embedded PostgreSQL from starting is said in one sentence."""

import os
import pwd
import socket
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from unittest.mock import Mock

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo

from openapi.app import application
from postgres import embedded
from postgres.embedded.failure import EmbeddedFailure
from postgres.embedded.installation import server_account
from server.cli import main
from settings.settings import Settings
from tests.support.embedded import fake_programs, value

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def sentence(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """What `tasks-api check` prints about the data, which is one sentence or more in a line, and not a traceback."""
    for one in fields(Settings):
        monkeypatch.delenv(one.metadata["name"], raising=False)
    monkeypatch.chdir(cluster.parent.parent)
    monkeypatch.setenv("DATA_DIR", str(cluster.parent))

    def printed() -> str:
        result = CliRunner().invoke(main, ["check"])
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1), result.output
        return result.stderr.strip()

    return printed


def test_a_server_of_somebody_else_with_the_same_data_is_left_alone(
    made: Path, sentence: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postgres.embedded.data.PATIENCE", 0.2)
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(".s.PGSQL.5432")
        other.listen()
        (made / "postmaster.pid").write_text(f"{os.getpid()}\n{made}\n1\n5432\n.\n\n1 1\nready\n")
        assert sentence() == (
            f"Another PostgreSQL, process {os.getpid()}, runs with the data in {made}. End it: kill -INT {os.getpid()}"
        )


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o770, 0o701])
def test_data_that_are_open_to_others_are_refused(made: Path, sentence: Callable[[], str], mode: int) -> None:
    made.chmod(mode)
    assert sentence() == (
        f"{made} is open to other users of this machine, who may have changed what is in it. "
        f"If you trust it, close it: chmod -R go-rwx {made}"
    )
    subprocess.run(["chmod", "-R", "go-rwx", made], check=True)
    assert value(embedded.start(made), "SELECT 1") == 1


@pytest.mark.parametrize("version", ["16", "19", ""])
def test_data_of_another_version_are_refused(made: Path, sentence: Callable[[], str], version: str) -> None:
    (made / "PG_VERSION").write_text(f"{version}\n")
    assert sentence().startswith(f"{made} was made by PostgreSQL {version}, and the embedded one is 18. Move it away")


@pytest.mark.parametrize("missing", ["PG_VERSION", "global/pg_control"])
def test_data_that_are_not_whole_are_refused(made: Path, sentence: Callable[[], str], missing: str) -> None:
    (made / missing).unlink()
    assert sentence() == (f"{made} is not a whole data folder of PostgreSQL. Move it away, and a new one is made.")


def test_an_empty_data_folder_is_filled(cluster: Path) -> None:
    cluster.mkdir(parents=True)
    assert value(embedded.start(cluster), "SELECT 1") == 1


@pytest.mark.parametrize("path", ["data", "data/postgres", "data/postgres.run"])
def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path, sentence: Callable[[], str], path: str) -> None:
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text("")
    assert str(tmp_path / path) in sentence()


def test_data_that_the_server_itself_refuses_are_told_with_its_words(made: Path, sentence: Callable[[], str]) -> None:
    with (made / "postgresql.conf").open("a") as file:
        file.write("shared_buffers = plenty\n")
    assert sentence() == (
        'The embedded PostgreSQL does not start: configuration file "/proc/self/cwd/postgresql.conf" contains errors. '
        f"Its log is {made.with_name('postgres.run') / 'log'}."
    )
    assert not list(made.with_name("postgres.run").glob("room"))


def test_a_database_that_cannot_be_used_is_told(made: Path, sentence: Callable[[], str]) -> None:
    url = make_conninfo(embedded.start(made), user="postgres", dbname="postgres")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
        connection.execute("DROP DATABASE tasks_api")
    embedded.stop(made)
    expected = "The embedded PostgreSQL is of no use: cannot execute CREATE DATABASE in a read-only transaction."
    assert sentence() == expected


def test_a_failure_to_make_the_data_is_told_and_leaves_nothing(
    cluster: Path, tmp_path: Path, sentence: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = "could not write file: No space left on device"
    fake_programs(tmp_path, f'echo "initdb: error: {full}" >&2; exit 1')
    monkeypatch.syspath_prepend(tmp_path)
    assert sentence() == f"The embedded PostgreSQL cannot make {cluster}: {full}."
    assert not cluster.exists()
    assert not (cluster.with_name("postgres.run") / "room").exists()


def test_a_disk_without_room_for_the_record_leaves_no_room_behind(
    cluster: Path, sentence: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr("postgres.embedded.room.Path.rename", full)
    make = tempfile.mkdtemp
    rooms: list[str] = []

    def mkdtemp(**options: str) -> str:
        rooms.append(make(**options))
        return rooms[-1]

    monkeypatch.setattr("tempfile.mkdtemp", mkdtemp)
    assert sentence() == f"The embedded PostgreSQL cannot use {cluster.parent}: No space left on device."
    assert rooms
    assert not any(Path(one).exists() for one in rooms)


def test_a_platform_without_the_programs_is_told(sentence: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert sentence() == ("There is no embedded PostgreSQL 18 for this platform. Set DATABASE_URL to another server's.")


def test_a_machine_without_a_place_for_the_socket_is_told(
    sentence: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    assert sentence().startswith("There is no folder for PostgreSQL's socket")


def test_a_service_without_a_command_line_ends_with_the_sentence_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("openapi.app.create_app", Mock(side_effect=EmbeddedFailure("It is full.")))
    with pytest.raises(SystemExit):
        application()
    assert capsys.readouterr().err == "It is full.\n"


def accounts(monkeypatch: pytest.MonkeyPatch, me: int, owner: int) -> None:
    """Make this process's user the one given, and every folder the property of another."""
    monkeypatch.setattr("os.geteuid", lambda: me)
    monkeypatch.setattr("postgres.embedded.installation.owner_of", lambda _: owner)


def test_data_of_another_user_are_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts(monkeypatch, NOBODY.pw_uid, 0)
    with pytest.raises(EmbeddedFailure, match=r"belongs to another user, root\. Start the service as that user"):
        server_account(made)
    accounts(monkeypatch, NOBODY.pw_uid, NOBODY.pw_uid)
    assert server_account(made) is None


def test_data_of_root_are_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts(monkeypatch, 0, 0)
    with pytest.raises(EmbeddedFailure, match="belongs to root, as whom PostgreSQL does not run"):
        server_account(made)


def test_root_runs_it_as_the_owner_of_the_data(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts(monkeypatch, 0, NOBODY.pw_uid)
    assert server_account(made) == (NOBODY.pw_uid, NOBODY.pw_gid, "nobody")
    accounts(monkeypatch, 0, 54321)
    assert server_account(made) == (54321, 54321, "")
    accounts(monkeypatch, 0, 0)
    assert server_account(made.with_name("none")) == (NOBODY.pw_uid, NOBODY.pw_gid, "nobody")
    monkeypatch.setattr("pwd.getpwnam", Mock(side_effect=KeyError))
    with pytest.raises(EmbeddedFailure, match="no user nobody"):
        server_account(made.with_name("none"))


def test_a_user_without_a_name_is_told(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts(monkeypatch, 54321, 54321)
    with pytest.raises(EmbeddedFailure, match=r"The user 54321 has no name"):
        server_account(cluster)

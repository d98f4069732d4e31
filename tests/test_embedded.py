"""The embedded PostgreSQL starts everywhere, lets in nobody else, and changes nothing that was there before."""

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from postgres import embedded
from postgres.embedded.installation import PACKAGE, Account, programs, server_account
from postgres.embedded.room import leave
from postgres.embedded.room import url as url_of
from tests.support.embedded import modes, parent, postmaster, room, user, value
from tests.support.server import ROOT

NOBODY = pwd.getpwnam("nobody")
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
# Each would lead libpq or the server elsewhere, or stop them.
SHELL = {
    "PGHOST": "nowhere.invalid",
    "PGHOSTADDR": "192.0.2.1",
    "PGPORT": "1",
    "PGSERVICE": "none",
    "PGOPTIONS": "--no_such_setting=1",
    "PGDATA": "/nowhere",
    "PGSSLMODE": "verify-full",
    "PGGSSENCMODE": "require",
    "PGREQUIREPEER": "somebody",
    "PGTZ": "nowhere",
    "PGCLIENTENCODING": "nothing",
    "LC_ALL": "en_US.UTF-8",
    "LANG": "xx_YY.UTF-8",
    "TMPDIR": "/nowhere",
}
FOLDERS = ["a b", "it's", "100% & more", "Zoë's Ordner 🗂", 'quote"d', "$HOME", "`id`", "two\nlines", "a,b", "x" * 200]


@pytest.mark.parametrize("name", [*FOLDERS, "/".join(["long"] * 200)], ids=range(len(FOLDERS) + 1))
def test_any_name_of_a_folder_will_do(tmp_path: Path, name: str) -> None:
    data = tmp_path / name / "postgres"
    url = embedded.start(data)
    assert value(url, "SELECT current_user::text") == "tasks_api"
    assert len(str(room(url))) < 40
    embedded.stop(data)


def test_what_the_shell_says_does_not_reach_it(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **SHELL}
    environment |= {name: text for name, text in os.environ.items() if name.startswith("COVERAGE_")}
    for command in ("migrate", "check"):
        result = subprocess.run(
            [sys.executable, "-m", "server", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")


def test_its_environment_is_bare_and_it_listens_in_its_room_alone(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "of the shell")
    url = embedded.start(cluster)
    server = postmaster(cluster)
    assert Path(f"/proc/{server}/environ").read_bytes().split(b"\0")[0] == b"LC_ALL=C"
    assert b"A_SECRET" not in Path(f"/proc/{server}/environ").read_bytes()
    superuser = url.replace("user=tasks_api", "user=postgres")
    assert value(superuser, "SHOW listen_addresses") == ""
    assert value(superuser, "SHOW unix_socket_directories") == str(room(url))
    found = room(url).stat()
    assert stat.S_IMODE(found.st_mode) == 0o700
    assert found.st_uid == cluster.stat().st_uid == (os.geteuid() or NOBODY.pw_uid)


@only_root
def test_an_account_that_can_enter_the_room_does_not_get_in(cluster: Path) -> None:
    url = embedded.start(cluster)
    for name in ("postgres", "tasks_api"):
        os.seteuid(NOBODY.pw_uid)
        try:
            with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
                psycopg.connect(url.replace("user=tasks_api", f"user={name}"))
        finally:
            os.seteuid(0)


def test_no_mode_of_a_folder_that_was_there_is_changed(tmp_path: Path) -> None:
    closed = tmp_path / "closed" / "checkout"
    closed.mkdir(parents=True)
    closed.parent.chmod(0o700)
    before = modes(closed)
    url = embedded.start(closed / "data" / "postgres")
    assert value(url, "SELECT 1") == 1
    assert modes(closed) == before
    embedded.stop(closed / "data" / "postgres")


@pytest.mark.parametrize("name", ["a $HOME", pytest.param("closed", marks=only_root)])
def test_programs_that_cannot_be_run_where_they_are_are_copied(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir(mode=0o700)
    installed = programs(None, tmp_path).parent.parent
    for original in (installed, installed.with_name(f"{PACKAGE}.libs")):
        (folder / original.name).symlink_to(original)
    monkeypatch.syspath_prepend(folder)
    url = embedded.start(cluster)
    assert (room(url) / "programs" / PACKAGE).is_dir()
    assert value(url, "SELECT 1") == 1
    os.kill(parent(postmaster(cluster)), signal.SIGKILL)  # the next keeper finds them
    embedded.stop(cluster)
    assert embedded.start(cluster)
    embedded.stop(cluster)
    assert not room(url).exists()


@pytest.mark.parametrize(
    "content", ["", "\n", "nonsense\n", "{process}\n", "{process}\n/x\n1\n5432\n{socket}\n\n1 1\nready\n"]
)
def test_a_postmaster_pid_that_is_left_behind_does_no_harm(made: Path, content: str) -> None:
    stranger = subprocess.Popen(["sleep", "300"])
    for place in ("", "/nowhere", "/" + "x" * 200):
        (made / "postmaster.pid").write_text(content.format(process=stranger.pid, socket=place))
        assert value(embedded.start(made), "SELECT 1") == 1
        embedded.stop(made)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


SHAPES = ["open", "link", "name", "relative", "nul", "empty", "none", pytest.param("another's", marks=only_root)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_room_that_others_have_made_is_neither_entered_nor_removed(made: Path, shape: str) -> None:
    theirs = Path(tempfile.mkdtemp(prefix="home-" if shape == "name" else "tasks-api-", dir="/tmp"))
    kept = theirs / "kept"
    kept.write_text("theirs")
    if shape == "open":
        theirs.chmod(0o777)
    if shape in ("link", "name"):
        os.chown(theirs, *made.stat()[4:6])
    target = theirs
    if shape == "link":
        target = theirs.with_name(f"{theirs.name}_link")
        target.symlink_to(theirs)
        os.chown(target, *made.stat()[4:6], follow_symlinks=False)
    record = made.with_name("postgres.run") / "room"
    texts = {"relative": f"..{target}", "nul": f"{target}\0", "empty": "", "none": "/nowhere/at/all/tasks-api-x"}
    text = texts.get(shape, str(target))
    record.write_text(text)
    assert str(room(embedded.start(made))) != text
    record.write_text(text)
    embedded.stop(made)
    record.write_text(text)
    leave(record, server_account(made))
    assert not record.exists()
    assert kept.read_text() == "theirs"
    if shape == "link":
        target.unlink()
    shutil.rmtree(theirs)


def test_a_server_of_another_account_is_not_spoken_to(cluster: Path) -> None:
    started = embedded.start(cluster)
    other = make_conninfo(started, requirepeer="daemon")
    record = cluster.with_name("postgres.run") / "room"
    assert conninfo_to_dict(started)["requirepeer"] == pwd.getpwuid(cluster.stat().st_uid).pw_name
    for theirs in (other, url_of(record, Account(*pwd.getpwnam("daemon")[2:4], "daemon"))):
        with pytest.raises(psycopg.OperationalError, match=r'requirepeer specifies "daemon"'):
            psycopg.connect(theirs)
    assert "requirepeer" not in url_of(record, Account(54321, 54321, ""))


def test_a_room_that_is_swept_away_comes_back_under_its_name(made: Path) -> None:
    url = embedded.start(made)
    shutil.rmtree(room(url))
    os.kill(parent(postmaster(made)), signal.SIGKILL)
    with user(made) as other:
        assert other.url == url

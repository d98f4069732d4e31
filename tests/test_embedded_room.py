"""The folders beside the data: who may have written to them, and what is done for an account that is not root."""

import errno
import fcntl
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from postgres import embedded
from postgres.embedded import data, keeper, room
from postgres.embedded.failure import EmbeddedFailure
from postgres.embedded.installation import PACKAGE, Account, programs, server_account
from postgres.embedded.use import Use
from tests.support.embedded import fake_programs, value

ME = pwd.getpwuid(os.geteuid())
NOBODY = pwd.getpwnam("nobody")
FAILS_ONCE = """
import os, sys
if not os.path.exists({failed!r}):
    open({failed!r}, "w").close()
    sys.exit("FATAL:  pre-existing shared memory block is still in use")
os.execv(sys.executable, [sys.executable, "-I", {keeper!r}, sys.argv[1]])
"""
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def opened(run: Path) -> None:
    """Let everybody write to the folder."""
    run.chmod(0o777)


def given_away(run: Path) -> None:
    """Make the folder another user's."""
    os.chown(run, 54321, 54321)


def linked(run: Path) -> None:
    """Put a symbolic link to a closed folder in its place."""
    run.rename(run.with_name("elsewhere"))
    run.symlink_to(run.with_name("elsewhere"))


@pytest.mark.parametrize("change", [opened, pytest.param(given_away, marks=only_root), linked])
def test_locks_that_others_may_have_changed_are_refused(made: Path, change: Callable[[Path], None]) -> None:
    run = made.with_name("postgres.run")
    change(run)
    with pytest.raises(EmbeddedFailure) as failure:
        embedded.start(made)
    assert str(failure.value) == (
        f"{run} is not a folder that is closed to other users of this machine. "
        "Stop the service and remove it; it is made again."
    )
    run.rename(run.with_name("removed"))
    assert value(embedded.start(made), "SELECT 1") == 1


@only_root
def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("root's")
    record = tmp_path / "room"
    record.with_suffix(".new").symlink_to(precious)
    account = Account(NOBODY.pw_uid, NOBODY.pw_gid, "nobody")
    place = room.enter(record, account)
    (place / "pg_hba.conf").unlink()
    (place / "pg_hba.conf").symlink_to(precious)
    assert room.enter(record, account) == place
    assert record.read_text() == str(place)
    assert (precious.read_text(), precious.stat().st_uid) == ("root's", 0)
    files = (record, place, place / "pg_hba.conf", place / "pg_ident.conf")
    assert {file.stat().st_uid for file in files} == {NOBODY.pw_uid}
    room.leave(record, account)
    assert not place.exists()


def test_without_an_account_all_belongs_to_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chown = Mock()
    monkeypatch.setattr("os.chown", chown)
    record = tmp_path / "room"
    place = room.enter(record, None)
    assert (place / "pg_ident.conf").read_text() == f'owner "{ME.pw_name}" all\n'
    installed = fake_programs(tmp_path / "a $HOME", "echo 18 > PG_VERSION")
    monkeypatch.syspath_prepend(tmp_path / "a $HOME")
    copied = programs(None, place)
    assert copied.parent.parent == place / "programs" / PACKAGE
    assert (copied / "initdb").read_text() == (installed / "initdb").read_text()
    with (tmp_path / "lock").open("w") as lock:
        data.make(tmp_path / "postgres", tmp_path / "new", copied, None, lock.fileno())
    assert (tmp_path / "postgres" / "PG_VERSION").read_text() == "18\n"
    room.leave(record, None)
    assert not place.exists()
    chown.assert_not_called()


def test_who_is_not_root_gives_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chown = Mock()
    monkeypatch.setattr("os.chown", chown)
    monkeypatch.setattr("os.geteuid", lambda: NOBODY.pw_uid)
    use = Use(tmp_path / "postgres")
    use.end()
    assert sorted(file.name for file in (tmp_path / "postgres.run").iterdir()) == ["keeper", "use"]
    chown.assert_not_called()


def test_a_room_stays_as_long_as_anybody_uses_it(tmp_path: Path) -> None:
    use = Use(tmp_path / "postgres")
    record = tmp_path / "postgres.run" / "room"
    place = room.enter(record, server_account(tmp_path / "postgres"))
    with (tmp_path / "postgres.run" / "use").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # as another user holds it before it starts a keeper
        use.end()
    assert place.exists()
    Use(tmp_path / "postgres").end()
    assert not place.exists()
    with pytest.raises(FileNotFoundError, match="names no room"):
        room.url(record, None)


def test_programs_that_do_not_fit_on_the_disk_are_told(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_programs(tmp_path / "a $HOME", "")
    monkeypatch.syspath_prepend(tmp_path / "a $HOME")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "from", None, "to")
    monkeypatch.setattr("shutil.copyfile", Mock(side_effect=full))
    with pytest.raises(EmbeddedFailure, match=r"programs cannot be copied to /\S+: No space left on device\.$"):
        embedded.start(cluster)
    assert not (cluster.with_name("postgres.run") / "room").exists()


def test_a_keeper_that_failed_while_a_killed_server_ended_is_followed_by_another(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "keeper.py"
    script.write_text(FAILS_ONCE.format(failed=str(tmp_path / "failed"), keeper=keeper.__file__))
    monkeypatch.setattr("postgres.embedded.keeper.__file__", str(script))
    assert value(embedded.start(made), "SELECT 1") == 1
    assert (tmp_path / "failed").exists()

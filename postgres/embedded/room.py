"""The room: a folder for the server's socket, which only its account and root can enter.

Its name is short and safe, as the path of a socket has at most 103 bytes, and libpq and PostgreSQL read commas and
quotes in it. In it PostgreSQL itself asks the kernel who comes, so that of the accounts that can enter only those named
get in.
"""

import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

from postgres.embedded.failure import EmbeddedFailure
from postgres.embedded.installation import Account, user_name

SAFE = re.compile(r"/[A-Za-z0-9/._-]{,60}")
PORT = 5432  # names the socket; nothing listens on TCP
RULE = "local all all peer map=owner\n"


def enter(record: Path, account: Account | None) -> Path:
    """Return the room that the file `record` names, or a new one, which it then names. Raises EmbeddedFailure, OSError.

    Whoever may write to the folder of rooms can have made one by the recorded name: it is taken only from its owner.
    """
    uid = account.uid if account else os.geteuid()
    room = Path(record.read_text()) if record.exists() else None
    if room is None or not _is_ours(room, uid):
        room = Path(tempfile.mkdtemp(prefix="tasks-api-", dir=_parent()))
        try:
            if account:
                os.chown(room, account.uid, account.gid)
            draft = record.with_suffix(".new")
            draft.write_text(str(room))
            draft.rename(record)
        except OSError:  # such as a full disk
            room.rmdir()
            raise
    names = {user_name(os.geteuid())} | ({account.name} if account and account.name != "nobody" else set())
    _write(room / "pg_hba.conf", RULE, account)
    _write(room / "pg_ident.conf", "".join(f'owner "{name}" all\n' for name in sorted(names) if name), account)
    return room


def leave(record: Path) -> None:
    """Remove the room that the file names, and the file."""
    if record.exists():
        shutil.rmtree(record.read_text(), ignore_errors=True)
        record.unlink(missing_ok=True)


def options(room: Path) -> list[str]:
    """Return what tells the server to listen in the room and nowhere else, whatever the data's own files say."""
    values = {
        "listen_addresses": "",
        "unix_socket_directories": room,
        "unix_socket_permissions": "0700",
        "port": PORT,
        "hba_file": room / "pg_hba.conf",
        "ident_file": room / "pg_ident.conf",
        "logging_collector": "off",
        "log_destination": "stderr",
    }
    return [f"--{name}={value}" for name, value in values.items()]


def url(room: Path) -> str:
    """Return the superuser's URL."""
    return f"host={room} port={PORT} user=postgres dbname=postgres"


def _is_ours(room: Path, uid: int) -> bool:
    try:
        found = room.lstat()
    except FileNotFoundError:  # swept away; whoever uses the server still knows the name
        return _make(room, uid)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077


def _make(room: Path, uid: int) -> bool:
    try:
        room.mkdir(mode=0o700)
    except OSError:
        return False
    os.chown(room, uid, -1)
    return True


def _parent() -> str:
    for folder in ("/tmp", tempfile.gettempdir()):  # noqa: S108  the room itself has a random name and is closed
        if SAFE.fullmatch(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise EmbeddedFailure("There is no folder for PostgreSQL's socket: neither /tmp nor TMPDIR is writable and short.")


def _write(file: Path, text: str, account: Account | None) -> None:
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)
    if account:
        os.chown(file, account.uid, account.gid)

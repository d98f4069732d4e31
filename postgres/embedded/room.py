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

from psycopg.conninfo import make_conninfo

from postgres.embedded.failure import EmbeddedFailure
from postgres.embedded.installation import Account, user_name

SAFE = re.compile(r"/[A-Za-z0-9/._-]{,60}")
PREFIX = "tasks-api-"
ROOM = re.compile(rf"{SAFE.pattern}/{PREFIX}[a-z0-9_]+")
PORT = 5432  # names the socket; nothing listens on TCP
RULE = "local all all peer map=owner\n"


def enter(record: Path, account: Account | None) -> Path:
    """Return the room that the file `record` names, or a new one, which it then names. Raises EmbeddedFailure, OSError.

    Whoever may write to the folder of rooms can have made one by the recorded name: it is taken only from its owner.
    """
    uid = _uid(account)
    room = _recorded(record)
    if room is None or not (_is_ours(room, uid) or _make(room, uid)):
        room = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_parent()))
        try:
            if account:
                os.chown(room, account.uid, account.gid)
            draft = record.with_suffix(".new")
            write_file(draft, str(room), account)
            draft.rename(record)
        except OSError:  # such as a full disk
            room.rmdir()
            raise
    names = {user_name(os.geteuid())} | ({account.name} if account and account.name != "nobody" else set())
    write_file(room / "pg_hba.conf", RULE, account)
    write_file(room / "pg_ident.conf", "".join(f'owner "{name}" all\n' for name in sorted(names) if name), account)
    return room


def leave(record: Path, account: Account | None) -> None:
    """Remove the room that the file names, if it is one of ours, and the file."""
    room = _recorded(record)
    if room and _is_ours(room, _uid(account)):
        shutil.rmtree(room, ignore_errors=True)
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


def url(record: Path, account: Account | None) -> str:
    """Return the superuser's URL, with which only a server of the account is spoken to. Raises FileNotFoundError."""
    room = _recorded(record)
    if room is None:
        raise FileNotFoundError(f"{record} names no room")
    name = user_name(_uid(account))
    peer = {} if name.isdigit() else {"requirepeer": name}  # libpq knows accounts by their names
    return make_conninfo(host=str(room), port=PORT, user="postgres", dbname="postgres", **peer)


def _recorded(record: Path) -> Path | None:
    try:
        text = record.read_text(errors="replace")
    except FileNotFoundError:
        return None
    return Path(text) if ROOM.fullmatch(text) else None


def _uid(account: Account | None) -> int:
    return account.uid if account else os.geteuid()


def _is_ours(room: Path, uid: int) -> bool:
    try:
        found = room.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077


def _make(room: Path, uid: int) -> bool:
    """Make a room again that was swept away: whoever uses the server still knows the name."""
    try:
        room.mkdir(mode=0o700)
    except OSError:
        return False
    os.chown(room, uid, -1, follow_symlinks=False)
    return True


def _parent() -> str:
    for folder in ("/tmp", tempfile.gettempdir()):  # noqa: S108  the room itself has a random name and is closed
        if SAFE.fullmatch(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise EmbeddedFailure("There is no folder for PostgreSQL's socket: neither /tmp nor TMPDIR is writable and short.")


def write_file(file: Path, text: str, account: Account | None) -> None:
    """Write a new file that only its owner can read, whatever was there before. Raises OSError."""
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        if account:
            os.fchown(opened.fileno(), account.uid, account.gid)
        opened.write(text)

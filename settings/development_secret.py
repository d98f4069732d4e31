"""The secret that signs tokens; in development one that is kept in a file."""

import os
import secrets
import tempfile
from contextlib import suppress

from settings.settings import Settings
from settings.values import MIN_SECRET, InvalidSettings


def ensure_token_secret(settings: Settings) -> str | None:
    """Return the secret that signs tokens, None if only the issuer's keys count. Raises InvalidSettings, OSError.

    In development it is random, and kept in a file in `data_dir` that only its owner can read.
    """
    if not settings.is_development:
        return settings.better_auth_secret
    path = settings.data_dir / "development-secret"
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        descriptor, draft = tempfile.mkstemp(dir=settings.data_dir)  # with mode 0600
        with open(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
        with suppress(FileExistsError):  # another process was faster; both use its secret
            os.link(draft, path)
        os.unlink(draft)
    secret = path.read_text().strip()
    if len(secret.encode()) < MIN_SECRET:
        raise InvalidSettings(f"{path} has less than {MIN_SECRET} bytes. Delete it, and a new one is made.")
    return secret

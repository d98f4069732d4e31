"""What a statement may see: the settings that the policies in `models/policies.sql` read."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

# All settings are local to the statement's transaction, so none stays on a pooled connection.
PRELUDE: Final = (
    b"SELECT set_config('app.user_id', $1, true), set_config('app.probe', $2, true),"
    b" set_config('statement_timeout', $3, true), set_config('lock_timeout', $4, true)"
)
READ_PRELUDE: Final = PRELUDE + b", set_config('transaction_read_only', 'on', true)"
# The next statement then sees all that was committed before the lock was there.
EXCLUSIVE_PRELUDE: Final = PRELUDE + b", pg_advisory_xact_lock(hashtextextended($1, 0))"
EXPIRED_KEYS: Final = "expired-keys"
SERVICE_KEYS: Final = "service-keys"


@dataclass(frozen=True, slots=True)
class Scope:
    """The values of `app.user_id` and `app.probe` for one statement, and whether it waits for others of its user."""

    user_id: str
    probe_id: str = ""
    is_exclusive: bool = False

    @classmethod
    def user(cls, user_id: str, *, is_exclusive: bool = False) -> "Scope":
        """See the rows of one user; exclusively, while no other exclusive statement of that user runs."""
        return cls(user_id, is_exclusive=is_exclusive)

    def prelude(self, is_read: bool) -> bytes:
        """Return the statement that makes the settings."""
        if is_read:
            return READ_PRELUDE
        return EXCLUSIVE_PRELUDE if self.is_exclusive else PRELUDE

    @classmethod
    def probe(cls, user_id: str, task_id: UUID) -> "Scope":
        """See the rows of one user, and the task with this id, whoever owns it."""
        return cls(user_id, str(task_id))

    @classmethod
    def sweep(cls) -> "Scope":
        """See the expired idempotency keys of all users, and nothing else."""
        return cls("", EXPIRED_KEYS)

    @classmethod
    def service_keys(cls) -> "Scope":
        """See the service's own keys, and nothing else."""
        return cls("", SERVICE_KEYS)

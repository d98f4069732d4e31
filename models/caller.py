"""Who calls."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """The user of a request, from the token alone; None for what the token leaves out."""

    id: str
    email: str | None
    name: str | None

"""The caller of a request."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """The user of a request, from the token alone; None for claims that it leaves out."""

    id: str
    email: str | None
    name: str | None

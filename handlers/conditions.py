"""Entity tags and the conditions that requests make of them (RFC 9110, sections 8.8.3 and 13.1)."""

import re
from typing import Final

from models.task_operations import Precondition

ENTITY_TAG: Final = re.compile(r'(W/)?"([^"]*)"')
VERSION: Final = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
MAX_VERSION: Final = 2**31 - 1


def entity_tag(version: int) -> str:
    """Return the strong entity tag of a version."""
    return f'"{version}"'


def precondition(if_match: str | None, if_none_match: str | None) -> Precondition:
    """Return the condition of a write; the headers are already validated."""
    if if_none_match == "*":  # never true of a task that exists
        return Precondition(versions=())
    return Precondition(
        versions=None if if_match in (None, "*") else _versions(if_match, weak=False),
        other_than=_versions(if_none_match, weak=True) if if_none_match else (),
    )


def is_current(version: int, if_none_match: str | None) -> bool:
    """Tell whether a client that sends this `If-None-Match` already has the version."""
    return if_none_match is not None and (if_none_match == "*" or version in _versions(if_none_match, weak=True))


def _versions(tags: str, *, weak: bool) -> tuple[int, ...]:
    """Return the versions that the tags stand for; `weak` includes weak tags, as weak comparison does."""
    return tuple(
        int(tag)
        for weakness, tag in ENTITY_TAG.findall(tags)
        if (weak or not weakness) and VERSION.fullmatch(tag) and int(tag) <= MAX_VERSION
    )

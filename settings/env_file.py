"""The file `.env`, whose secret is read as the frontend's readers read it, so that both sides have the same."""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from settings.values import LITERAL as SECRET
from settings.values import InvalidSettings

# The grammar of the npm package dotenv, which Next.js and Vite use, and which Node.js follows. python-dotenv differs in
# comments, escapes and quotes.
LINE: Final = re.compile(
    r"""
    ^\s* (?:export\s+)? ([A-Za-z0-9_.-]+) (?:\s*=\s*?|:\s+?)
    ( \s*'(?:\\'|[^'])*' | \s*"(?:\\"|[^"])*" | \s*`(?:\\`|[^`])*` | [^\#\n]+ )?
    \s* (?:\#.*)? $
    """,
    re.MULTILINE | re.VERBOSE,
)
QUOTED: Final = re.compile(r"""^(['"`])(.*)\1$""", re.MULTILINE | re.DOTALL)
# Next.js and Vite replace `$NAME`, and readers disagree about a quote within quotes.
DOUBTFUL: Final = frozenset("$'\"`")


def read(path: Path) -> dict[str, str]:
    """Return the values in the file, none if there is no file. Raises InvalidSettings, OSError.

    `$NAME` stays as it is.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise InvalidSettings(f"The file {path} is not UTF-8. Save it in that encoding.") from None
    values = {
        name: value for name, value in dotenv_values(stream=io.StringIO(text), interpolate=False).items() if value
    }
    return values | {name: _value(raw.strip()) for name, raw in LINE.findall(text) if name == SECRET}


def _value(raw: str) -> str:
    value = QUOTED.sub(r"\2", raw)
    return value.replace(r"\n", "\n").replace(r"\r", "\r") if raw.startswith('"') else value


def doubt(path: Path, environment: Mapping[str, str]) -> str | None:
    """Return what to say of a secret in the file that the frontend may read differently; None if it cannot."""
    secret = "" if environment.get(SECRET, "").strip() else read(path).get(SECRET, "")
    if DOUBTFUL.isdisjoint(secret):
        return None
    return (
        f"{SECRET} in {path} has a $ or a quote in it, and is taken as it stands there. Next.js and Vite replace "
        "$NAME, and then the frontend has another secret. Letters, digits, - and _ are the same for all."
    )

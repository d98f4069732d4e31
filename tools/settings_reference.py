"""Write the reference of the settings, `.env.example` and docs/settings.md, from settings/settings.py."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import NamedTuple

from settings.settings import Settings

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "settings.md"
EXAMPLE = ROOT / ".env.example"
WRITTEN = DOCUMENT, EXAMPLE
BEGIN, END = "<!-- settings: make settings writes this part -->", "<!-- /settings -->"
WIDTH = 118  # characters
# Which setting begins each part.
PARTS = {"DATABASE_URL": "Database", "BETTER_AUTH_SECRET": "Tokens", "CORS_ORIGINS": "Server"}
ABOUT = """\
The settings of the Tasks API. `make settings` writes this file from settings/settings.py. Copy it to .env and remove \
the # in front of what you want to change; a copy works as it is. The environment wins over .env."""


class Entry(NamedTuple):
    """What the reference says of a setting; Markdown, each sentence with its full stop."""

    name: str
    meaning: str
    default: str
    example: str


def entries() -> Iterator[Entry]:
    """Yield every setting in the order of its declaration."""
    described = descriptions()
    for one in fields(Settings):
        meaning, _, default = described[one.name].partition(" Default: ")
        limits = getattr(one.metadata["check"], "text", "")
        if limits:
            meaning = f"{meaning} Allowed: {limits}."
        shown = _default(one)
        yield Entry(
            one.metadata["name"],
            meaning,
            default.removesuffix(".") or f"`{shown}`",
            one.metadata["example"] or shown,
        )


def descriptions() -> dict[str, str]:
    """Return the text below each setting's declaration, on one line."""
    (declared,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(declared, ast.ClassDef)
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in zip(declared.body, declared.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def table() -> str:
    """Return the settings as tables in Markdown, one for each part."""
    lines: list[str] = []
    for one in entries():
        if one.name in PARTS:
            lines += ["", f"### {PARTS[one.name]}", "", "| name | default | meaning |", "|---|---|---|"]
        lines.append(f"| `{one.name}` | {one.default} | {one.meaning} |")
    return "\n".join([BEGIN, *lines[1:], END])


def document(text: str) -> str:
    """Return the document with the tables in their place."""
    return re.sub(f"{BEGIN}.*{END}", lambda _: table(), text, flags=re.DOTALL)


def example() -> str:
    """Return the file that a `.env` starts from."""
    lines = _comment(ABOUT)
    for one in entries():
        if one.name in PARTS:
            lines += ["", f"# --- {PARTS[one.name]}"]
        lines += ["", *_comment(one.meaning), *_comment(f"Default: {one.default}"), f"# {one.name}={one.example}"]
    return "\n".join(lines) + "\n"


def _default(one: "Field[object]") -> str:
    if one.default is None:
        return ""
    return ",".join(one.default) if isinstance(one.default, tuple) else str(one.default)


def _comment(text: str) -> list[str]:
    """Return lines of a comment; a command stays in one piece, so that it can be copied."""
    whole = re.sub("`(.*?)`", lambda code: code[1].replace(" ", "\0"), text)
    lines = textwrap.wrap(whole, WIDTH, break_long_words=False, break_on_hyphens=False)
    return [f"# {line}".replace("\0", " ") for line in lines]


if __name__ == "__main__":
    DOCUMENT.write_text(document(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    EXAMPLE.write_text(example(), encoding="utf-8")

"""Layers import downwards only, and every operation is one small function."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openapi.contract import Contract
from tests.support.server import ROOT

# From the socket down to the database: what each folder may import beside itself.
MAY_IMPORT = {
    "server": {"settings", "openapi", "tokens", "models", "postgres"},
    "settings": set(),
    "openapi": {"settings", "tokens", "handlers", "models", "postgres"},
    "tokens": set(),
    "handlers": {"models", "postgres"},
    "models": {"postgres"},
    "postgres": set(),
}
OUTSIDE = ("tests", "tools", "bench")
DATABASE_MAY_IMPORT = {
    *("models", "postgres", "sqlalchemy", "alembic", "psycopg"),
    *sys.stdlib_module_names,
}
MAX_LINES = 12


def modules(*folders: str) -> list[Path]:
    """Return every module in the folders, relative to the root."""
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(module: Path) -> set[str]:
    """Return the top-level name of everything that a module imports, wherever in it."""
    return {name.partition(".")[0] for name in _imported(module)}


def _imported(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level < len(module.parts), "leads out of the package"
            yield module.parts[0] if node.level else node.module or ""


def operations() -> list[str]:
    """Return the handler of every operation."""
    return [operation.handler for operation in Contract().operations]


def function(identifier: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """Return the function with a dotted name."""
    module, _, name = identifier.rpartition(".")
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    found = [
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    ]
    assert len(found) == 1, f"{path} has {len(found)} functions {name}"
    return found[0]


@pytest.mark.parametrize("module", modules(*MAY_IMPORT), ids=str)
def test_a_layer_imports_only_the_layers_below(module: Path) -> None:
    assert imported(module) & {*MAY_IMPORT, *OUTSIDE} <= {module.parts[0], *MAY_IMPORT[module.parts[0]]}


@pytest.mark.parametrize("module", modules("models", "postgres"), ids=str)
def test_what_talks_to_the_database_imports_nothing_of_the_web(module: Path) -> None:
    assert imported(module) - DATABASE_MAY_IMPORT == set()


@pytest.mark.parametrize("module", modules("tests", "tools", "bench"), ids=str)
def test_what_tests_share_stands_in_their_support(module: Path) -> None:
    named = [name for name in _imported(module) if f"{name}.".startswith("tests.")]
    assert [name for name in named if not name.startswith("tests.support.")] == []


@pytest.mark.parametrize("module", modules("tests"), ids=str)
def test_a_test_reaches_into_private_state_only_where_borrowed_internals_are_tested(module: Path) -> None:
    assert module.name == "test_borrowed_internals.py" or private(module) == []


def private(module: Path) -> list[str]:
    """Return the private names of others that a module uses, as attributes or in what it gives to `setattr`."""
    nodes = list(ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr")]
    named = [one.attr for one in attributes if ast.unparse(one.value) not in ("self", "cls")]
    named += [str(one.value).rpartition(".")[2] for call in calls for one in call.args if isinstance(one, ast.Constant)]
    return [name for name in named if name.startswith("_") and not name.endswith("__")]


@pytest.mark.parametrize("module", modules("tests"), ids=str)
def test_what_runs_on_both_hosts_takes_them_with_their_marker(module: Path) -> None:
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        values = node.elts if isinstance(node, ast.List | ast.Tuple | ast.Set) else []
        named = {one.value for one in values if isinstance(one, ast.Constant)}
        assert not ("asgi" in named and "flask" in named), "take HOSTS from tests.support.hosts"


@pytest.mark.parametrize("identifier", operations())
def test_every_operation_is_a_handler_with_a_docstring(identifier: str) -> None:
    assert identifier.startswith("handlers.")
    assert ast.get_docstring(function(identifier))


@pytest.mark.parametrize("identifier", operations())
def test_every_handler_is_short(identifier: str) -> None:
    node = function(identifier)
    docstring = node.body[0]
    lines = (ROOT.joinpath(*identifier.split(".")[:-1]).with_suffix(".py")).read_text(encoding="utf-8").splitlines()
    code = [
        line
        for number, line in enumerate(lines, start=1)
        if (docstring.end_lineno or 0) < number <= (node.end_lineno or 0)
        and line.strip()
        and not line.strip().startswith("#")
    ]
    assert 1 <= len(code) <= MAX_LINES

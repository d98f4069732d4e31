"""What the repository may not hold: addresses of registries, paths of one machine, unpinned packages, large files."""

import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.server import ROOT
from tools.mutate import every_mutant
from tools.survivors import SURVIVORS

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


LOCKS = ("requirements.lock", "requirements-bench.lock")


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
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for lock, extra in zip(LOCKS, ("dev", "bench"), strict=True):
        named = {re.split(r"[\[<>=!~ ;]", one)[0].lower() for one in [*project["dependencies"], *extras.pop(extra)]}
        assert named - set(pins(lock)) == set()
    assert extras == {}


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
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    for job in workflow(path)["jobs"].values():
        first, *others = job["strategy"]["matrix"]["python"]
        assert f">={first}" == oldest
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

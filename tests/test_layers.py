"""The house: which package may import which, what is public, and how large a room may be."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import furu

SOURCE = Path(furu.__file__).parent

# Bottom first: a module imports only from its own package and from those above this line in the list.
HOUSE = [
    "errors",
    "retry",
    "settings",
    "context",
    "_common",
    "report",
    "events",
    "store",
    "codecs",
    "node",
    "observing",
    "execution",
    "planning",
    "service",
    "",  # furu itself: the public names
    "graph",
    "drawing",
    "testing",
    "pytest_plugin",
    "demo",
    "cli",
    "web",
]
# Modules that know nothing of disks, threads and clocks.
PURE = ["execution.plan", "execution.window", "execution.workers.serial"]
IMPURE = {"anyio", "asyncio", "os", "pathlib", "threading", "time", "furu.store", "furu.node"}
MOST_OF_THE_HOUSE = 0.25


def modules() -> dict[str, Path]:
    """Every module of the package by its name below furu."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


def package(module: str) -> str:
    """The room of the house that a module is in."""
    return module.partition(".")[0]


def imports(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module or "")
    return found


def own_imports(module: str) -> set[str]:
    """The modules of furu that a module imports, by their names below furu."""
    names = {name for name in imports(MODULES[module]) if package(name) == "furu"}
    return {name.removeprefix("furu").removeprefix(".") for name in names}


def test_every_package_has_its_place() -> None:
    assert set(HOUSE) == {package(module) for module in MODULES}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    """Also those inside of functions."""
    here = HOUSE.index(package(module))
    below = {*HOUSE[:here], package(module)} if module else set(HOUSE[:here])
    assert set() == {name for name in own_imports(module) if package(name) not in below}


def test_no_modules_import_each_other() -> None:
    """Not even within a package: what is left of any circle cannot be ordered."""
    left = {module: own_imports(module) - {module} for module in MODULES}
    while free := {module for module, needed in left.items() if not needed & set(left)}:
        for module in free:
            del left[module]
    assert {} == left


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_touch_neither_disk_nor_clock_nor_threads(name: str) -> None:
    """They can be tested, and simulated, without any."""
    own = imports(MODULES[name])
    assert set() == {module for module in own if any(module.startswith(bad) for bad in IMPURE)}


def test_no_package_holds_more_than_a_quarter_of_the_lines() -> None:
    lines: Counter[str] = Counter()
    for module, path in MODULES.items():
        lines[package(module)] += len(path.read_text(encoding="utf-8").splitlines())
    largest, count = lines.most_common(1)[0]
    assert count <= MOST_OF_THE_HOUSE * lines.total(), f"{largest}: {count} of {lines.total()} lines"


def test_public_names_are_those_that_are_there() -> None:
    """No underscore means public, and __all__ says all of it, in order."""
    there = {
        name
        for name, value in vars(furu).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("furu")
    }
    there -= {"import_module"}
    assert sorted(there | {"EXEC_CONTEXT"} | set(furu._ON_DEMAND)) == furu.__all__
    assert all(getattr(furu, name).__module__.startswith("furu.") for name in furu._ON_DEMAND)


def test_every_module_says_its_job() -> None:
    """In its first line."""
    for path in MODULES.values():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_importing_furu_imports_neither_extras_nor_what_few_runs_need() -> None:
    """A script that only loads results does not wait for what it does not use."""
    code = "import furu, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unwanted = {"rich", "typer", "distributed", "starlette", "opentelemetry", "multiprocessing", "trio"}
    unwanted |= {"furu.execution.workers.processes", "furu.execution.workers.dask", "furu.cli"}
    assert set() == unwanted & set(loaded.stdout.split())


def test_version_is_that_of_the_distribution() -> None:
    """Said once where it is said twice."""
    metadata = importlib.import_module("importlib.metadata")
    try:
        version = metadata.version("furu")
    except metadata.PackageNotFoundError:
        pytest.skip("furu is not installed, only on the path")
    assert version == furu.__version__

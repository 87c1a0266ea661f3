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
from tests.house import lines, modules, package, parsed, public_names

# Bottom first: a module imports only from its own package and from those above this line in the list.
HOUSE = [
    "errors",
    "_common",
    "retry",
    "settings",
    "context",
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
# What users import beside `furu` itself, or what docs/reference/api.md describes.
PUBLIC = [
    "errors",
    "retry",
    "settings",
    "context",
    "report",
    "events",
    "node.furu",
    "node.file",
    "store.catalog",
    "store.removal",
    "observing.trace",
    "observing.otel",
    "execution.local",
    "execution.stream",
    "execution.workers.base",
    "execution.workers.threads",
    "execution.workers.processes",
    "execution.workers.dask",
    "planning.summary",
    "service.runs",
    "service.run",
    "graph",
    "drawing",
    "testing",
]


MODULES = modules()


def imports(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
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
    """Also imports inside functions."""
    here = HOUSE.index(package(module))
    below = {*HOUSE[:here], package(module)} if module else set(HOUSE[:here])
    assert set() == {name for name in own_imports(module) if package(name) not in below}


def test_modules_do_not_import_each_other() -> None:
    """Not even within a package."""
    left = {module: own_imports(module) - {module} for module in MODULES}
    while free := {module for module, needed in left.items() if not needed & set(left)}:
        for module in free:
            del left[module]
    assert {} == left


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_touch_neither_disk_nor_clock_nor_threads(name: str) -> None:
    own = imports(MODULES[name])
    assert set() == {module for module in own if any(module.startswith(bad) for bad in IMPURE)}


def test_no_package_holds_more_than_a_quarter_of_the_lines() -> None:
    sizes: Counter[str] = Counter()
    for module, path in MODULES.items():
        sizes[package(module)] += lines(path)
    largest, count = sizes.most_common(1)[0]
    assert count <= MOST_OF_THE_HOUSE * sizes.total(), f"{largest}: {count} of {sizes.total()} lines"


def test_public_names_are_complete() -> None:
    """`dir(furu)` is exactly `__all__`, including names that are imported on demand."""
    names = [name for name in dir(furu) if not name.startswith("__")]
    assert sorted(furu.__all__) == names
    assert all(hasattr(furu, name) for name in names)
    packages = {package(module) for module in MODULES}
    there = {name for name in vars(furu) if name.isidentifier() and not name.startswith("_")}
    assert set() == there - set(names) - packages - {"Any", "TYPE_CHECKING", "import_module"}


def test_every_module_has_a_docstring() -> None:
    for path in MODULES.values():
        assert ast.get_docstring(parsed(path)), path


def test_importing_furu_imports_no_extras_and_no_rare_modules() -> None:
    code = "import furu, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unwanted = {"rich", "typer", "distributed", "starlette", "opentelemetry", "multiprocessing", "trio"}
    unwanted |= {"furu.execution.workers.processes", "furu.execution.workers.dask", "furu.cli"}
    assert set() == unwanted & set(loaded.stdout.split())


def test_version_is_that_of_the_distribution() -> None:
    metadata = importlib.import_module("importlib.metadata")
    try:
        version = metadata.version("furu")
    except metadata.PackageNotFoundError:
        pytest.skip("furu is not installed, only on the path")
    assert version == furu.__version__


@pytest.mark.parametrize("name", PUBLIC)
def test_public_module_lists_its_names(name: str) -> None:
    listed = importlib.import_module(f"furu.{name}").__all__
    assert sorted(public_names(MODULES[name])) == sorted(listed)

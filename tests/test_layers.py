"""The structure of furu: allowed imports, public names, and the maximum size of a package."""

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

# Lowest layer first: a module imports only from its own package and from packages listed before it.
HOUSE = [
    "errors",
    "_common",
    "provenance",
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
# Modules that do not use the disk, threads or the clock.
PURE = ["execution.plan", "execution.window", "execution.workers.serial"]
IMPURE = {"anyio", "asyncio", "os", "pathlib", "threading", "time", "furu.store", "furu.node"}
MOST_OF_THE_HOUSE = 0.25
# Modules that users import directly, or that docs/reference/api.md describes.
PUBLIC = [
    "errors",
    "retry",
    "settings",
    "context",
    "report",
    "events",
    "node.furu",
    "node.file",
    "node.results",
    "store.catalog",
    "store.removal",
    "store.table",
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
    """Return the modules that a file imports, including imports inside functions."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module or "")
    return found


def own_imports(module: str) -> set[str]:
    """Return the modules of furu that a module imports, by their names without the prefix `furu.`."""
    names = {name for name in imports(MODULES[module]) if package(name) == "furu"}
    return {name.removeprefix("furu").removeprefix(".") for name in names}


def test_every_package_is_in_the_list_of_layers() -> None:
    assert set(HOUSE) == {package(module) for module in MODULES}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    """Imports inside functions are checked too."""
    here = HOUSE.index(package(module))
    below = {*HOUSE[:here], package(module)} if module else set(HOUSE[:here])
    assert set() == {name for name in own_imports(module) if package(name) not in below}


def test_modules_have_no_import_cycles() -> None:
    """Modules of the same package do not form cycles either."""
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
    """`dir(furu)` equals `__all__`, which includes the names that are imported on demand."""
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


def test_version_matches_the_distribution() -> None:
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

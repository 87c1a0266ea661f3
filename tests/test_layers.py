"""The layers: imports point down only; public names are those that are said to be."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import furu

SOURCE = Path(furu.__file__).parent

# Bottom first: a module imports only from the lines above its own.
LAYERS = [
    "errors",
    "retry",
    "settings",
    "context",
    "steps",
    "node_threads",
    "loops",
    "logs",
    "origin",
    "shapes",
    "identity",
    "text",
    "dependencies",
    "class_settings",
    "pickling",
    "waiting",
    "codec",
    "store.layout",
    "store.record",
    "store.sync",
    "store.trust",
    "store.owner",
    "store.local",
    "store.artifact",
    "store.attempt",
    "store.claim",
    "store.catalog",
    "store.removal",
    "compare",
    "core",
    "file",
    "execution.events",
    "execution.plan",
    "execution.window",
    "execution.workers.base",
    "execution.workers.call",
    "execution.workers.wake",
    "execution.workers.places",
    "execution.workers.tasks",
    "execution.workers.serial",
    "execution.workers.threads",
    "execution.workers.event_loop",
    "execution.workers.crossing",
    "execution.workers.remote",
    "execution.workers.child",
    "execution.workers.children",
    "execution.workers.processes",
    "execution.workers.dask",
    "execution.workers",
    "execution.discovery",
    "execution.elsewhere",
    "execution.scheduler",
    "execution.simulate",
    "execution.reasons",
    "execution.report",
    "execution.estimate",
    "execution.trace",
    "otel",
    "progress",
    "execution.options",
    "execution.plan_summary",
    "execution.interrupts",
    "execution.local",
    "execution.stream",
    "",  # furu itself: the public names
    "testing",
    "pytest_plugin",
    "demo",
    "drawing",
    "cli.output",
    "cli.roots",
    "cli.running",
    "cli.run",
    "cli.plan",
    "cli.look",
    "cli.graph",
    "cli.gc",
    "cli.demo",
    "cli.app",
    "cli",
    "cli.__main__",
    "web.progress",
    "web.runs",
    "web.jobs",
    "web.graph",
    "web.html",
    "web.drawing",
    "web.reading",
    "web.pages",
    "web.events",
    "web.asgi",
    "web",
]
# Modules that know nothing of disks, threads and clocks.
PURE = ["execution.plan", "execution.window", "execution.workers.serial"]
IMPURE = {"anyio", "asyncio", "os", "pathlib", "threading", "time", "furu.store", "furu.core"}


def modules() -> dict[str, Path]:
    """Every module of the package by its name below furu."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


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


def test_every_module_has_its_place_in_the_layers() -> None:
    """Packages without code of their own need none."""
    packages = {name for name, path in modules().items() if not imports(path)}
    assert set(modules()) - packages <= set(LAYERS)
    assert set(LAYERS) <= set(modules())


@pytest.mark.parametrize("name", LAYERS)
def test_imports_point_down_only(name: str) -> None:
    """A module knows nothing of those above it."""
    below = {f"furu.{layer}".rstrip(".") for layer in LAYERS[: LAYERS.index(name)]}
    own = {module for module in imports(modules()[name]) if module.split(".")[0] == "furu"}
    assert set() == own - below


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_touch_neither_disk_nor_clock_nor_threads(name: str) -> None:
    """They can be tested, and simulated, without any."""
    own = imports(modules()[name])
    assert set() == {module for module in own if any(module.startswith(bad) for bad in IMPURE)}


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
    for path in modules().values():
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

"""The nox sessions of the project: `nox -s tests lint typing docs`; `nox -l` lists them all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "lint", "typing", "docs"]
nox.options.error_on_missing_interpreters = True

# uv does not compile what it installs. Where Python writes no bytecode, each of the hundreds of processes
# that the tests start would compile furu and its dependencies again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

OLDEST = (3, 11)
PYPROJECT = nox.project.load_toml("pyproject.toml")


def find_pythons() -> dict[str, str]:
    """Return one working interpreter for each CPython version from the oldest supported version on.

    Searches the path and the versions of pyenv. The shims of pyenv are on the path for every installed
    version, but only the shim of the active version runs.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which(name) for name in ("python3", *(f"python3.{n}" for n in range(11, 20)))]
    candidates += [str(path) for path in sorted(pyenv.glob("versions/*/bin/python"))]
    found: dict[tuple[int, int], str] = {}
    for candidate in filter(None, candidates):
        version = _version(candidate)
        if version is not None and version >= OLDEST:
            found.setdefault(version, candidate)
    return {f"{major}.{minor}": found[major, minor] for major, minor in sorted(found)}


def _version(python: str) -> tuple[int, int] | None:
    code = "import sys; print(sys.implementation.name, *sys.version_info[:2], sys.version_info[3])"
    try:
        answer = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, check=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.fullmatch(r"cpython (\d+) (\d+) final", answer.strip())
    return (int(match[1]), int(match[2])) if match else None


# If no interpreter is found, nox reports that the oldest is missing instead of passing without tests.
PYTHONS = find_pythons() or {"3.11": "python3.11"}


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group of pyproject.toml."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


# Two processes, each of which runs whole files. If a process dies, the session fails. `-n0`: one process.
SIDE_BY_SIDE = ("-n", "2", "--dist", "loadfile", "--max-worker-restart=0")


def ignore(*paths: str) -> list[str]:
    """Return the options with which pytest does not run these files and directories of `tests`."""
    return [f"--ignore=tests/{path}" for path in paths]


# The oldest Python runs all tests, with the newest dependencies. Slow tests that do not depend on the
# versions of Python or of the dependencies run only there.
ONCE = ["faults", "test_costs.py", "test_digits.py", "test_csv_folder.py", "web/test_server.py"]
NOT_OF_PYTHON = ignore(*ONCE, "web", "service", "mutants", "observing", "planning", "cli", "test_graph.py")
NOT_OF_PYTHON += ignore("workers/test_children.py", "workers/test_streams.py", "workers/test_dask.py")

# What a version of Python changes is nearly always in later versions too. So the versions between the
# oldest and the newest run only what depends on the language: annotations, dataclasses, threads, pickles.
BETWEEN = [f"tests/node/test_{name}.py" for name in ("fields", "furu", "identity", "normalised_records")]
BETWEEN += ["tests/common", "tests/execution/test_run.py", "tests/workers/test_threads.py"]

# The tests in which the dependencies take part.
WITH_DEPENDENCIES = [
    f"tests/{name}" for name in ("codecs", "workers", "web", "service", "observing", "node/test_forms.py")
]
WITH_DEPENDENCIES += ["tests/cli/test_commands.py", "tests/execution/test_run.py", "tests/common"]
WITH_DEPENDENCIES += ["tests/execution/test_cancellation.py", *ignore(*ONCE)]
WITH_DEPENDENCIES += ignore("workers/test_children.py", "workers/test_streams.py", "common/test_origin.py")


@nox.session
@nox.parametrize("python", [nox.param(path, id=version) for version, path in PYTHONS.items()])
def tests(session: nox.Session) -> None:
    """Run the tests on every CPython that is found. Arguments are passed to pytest."""
    session.install(".[all]", *group("test"))
    pythons = list(PYTHONS.values())
    chosen = {pythons[-1]: NOT_OF_PYTHON, pythons[0]: []}.get(str(session.python), BETWEEN)
    session.run("pytest", "-q", *SIDE_BY_SIDE, *chosen, *session.posargs)


@nox.session(venv_backend="uv", python=PYTHONS.get("3.11", "3.11"))
def lowest(session: nox.Session) -> None:
    """Run the tests on the oldest Python with the lowest allowed version of every dependency.

    Needs uv, because only uv resolves to lowest versions: `pip install uv`.
    """
    session.install("--resolution", "lowest-direct", ".[all]", *group("test"))
    session.run("pytest", "-q", *SIDE_BY_SIDE, *WITH_DEPENDENCIES, *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Inject faults into the store for some minutes, and print the number of faults of each kind."""
    session.install(".[all]", *group("test"))
    session.run("pytest", "-q", "tests/faults", *session.posargs, env={"FURU_FAULTS": "long"})


@nox.session
def mutants(session: nox.Session) -> None:
    """Break one line of the sources at a time, and check that the named tests fail."""
    session.install(".[all]", *group("test"))
    session.run("python", "-m", "tests.mutants", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Do thousands of runs in one process, and check that its resources do not grow."""
    session.install(".[all]", *group("test"))
    session.run("python", "-m", "tests.faults.soak", *session.posargs)


@nox.session
def storm(session: nox.Session) -> None:
    """Let eight processes work at random on one store while they are killed, paused and interrupted."""
    session.install(".[all]", *group("test"))
    session.run("python", "-m", "tests.faults.storm", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and layout."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("python", "-m", "tests.house")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types of the sources and the type tests with mypy (strict) and pyright."""
    session.install(".[all]", *group("typing"))
    session.run("mypy")
    session.run("pyright", "--pythonpath", f"{session.bin}/python")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, with warnings as errors. The tests run its examples."""
    session.install(".[all]", *group("docs"))
    session.run("sphinx-build", "-W", "-n", "-q", "--keep-going", "docs", "docs/_build")


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo twice in a new store: the second run computes nothing."""
    session.install(".[cli]")
    store = session.create_tmp()
    for _ in range(2):
        session.run("furu", "demo", *session.posargs, env={"FURU_PATH": f"{store}/store"})


@nox.session
def bench(session: nox.Session) -> None:
    """Compare the cost of a node with baselines and other engines. Arguments: see tests/benchmarks."""
    session.install(".")
    for peer in group("bench"):  # an engine that cannot be installed on this Python is not measured
        session.install(peer, success_codes=[0, 1, 2], silent=True)
    session.run("python", "-m", "tests.benchmarks", *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """Test the pages in Chromium. Install it (`apt-get install chromium`), or name it with CHROMIUM."""
    session.install(".[all]", *group("test"), *group("browser"))
    session.run("pytest", "-q", "tests/web/browser.py", *session.posargs)


@nox.session
def torch(session: nox.Session) -> None:
    """Test the codec of torch, which is too large to be installed for every run of the tests."""
    session.install(".[all]", *group("torch"))
    session.run("pytest", "-q", "tests/codecs/test_torch.py", *session.posargs)


@nox.session
def load(session: nox.Session) -> None:
    """Measure a service under load: its latencies, its leaks and its shutdown."""
    session.install(".[all]", *group("test"))
    session.run("python", "-m", "tests.web.load")

"""The origin of classes: a class has the same name however its file is run."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import furu
from furu import FuruLoadError, FuruUsageError, run_local
from furu._common import origin

# A program with node classes, and with values whose classes define no functions.
PROGRAM = """
from __future__ import annotations
import dataclasses, enum, json, sys, threading
import furu
from furu import Furu

class Colour(enum.Enum):
    RED = 1

@dataclasses.dataclass(frozen=True)
class Point:
    x: int

class Bare(Furu[int]):
    pass

class Model(Furu["Result"]):
    value: object
    def _create(self) -> Result:
        return Result(1)

@dataclasses.dataclass(frozen=True)
class Result:
    x: int

def inside():
    class Local(Furu[int]):
        point: object = None
    @dataclasses.dataclass(frozen=True)
    class Inner:
        x: int
    return Local(point=Inner(1))

def hashes():
    nodes = [Bare(), Model(value=Colour.RED), Model(value=Point(1)), Model(value=Point), inside()]
    return [node.furu_hash for node in nodes]

if __name__ in ("__main__", "<run_path>"):
    in_thread = []
    thread = threading.Thread(target=lambda: in_thread.extend(hashes()))
    thread.start()
    thread.join()
    assert hashes() == in_thread
    with furu.use_settings(store="store"):
        assert Result(1) == Model(value=1).get()
    print("hashes", json.dumps(hashes()))
"""


@functools.cache
def hashes(*arguments: str, folder: Path) -> list[str]:
    """Run Python in a folder once, and return the hashes that the program prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(furu.__file__).parent.parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("hashes ")]
    assert lines, done.stderr
    found: list[str] = json.loads(lines[0].removeprefix("hashes "))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two scripts, a package and a program directory, which all define the same classes.

    The tests of this module share it, so that `hashes` starts each program once.
    """
    tmp_path = tmp_path_factory.mktemp("programs")
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / "program").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "inner" / "__init__.py").touch()
    for name in (
        "train.py",
        "other.py",
        "package/train.py",
        "package/inner/train.py",
        "package/__main__.py",
        "program/__main__.py",
    ):
        (tmp_path / name).write_text(PROGRAM)
    return tmp_path


RUN_PATH = "import runpy; runpy.run_path({file!r}{name})"


@pytest.mark.parametrize(
    "how",
    [
        ["-m", "cProfile", "{file}"],
        ["-m", "profile", "{file}"],
        ["-m", "trace", "--count", "-C", ".", "{file}"],
        ["-m", "pdb", "-c", "continue", "{file}"],
        ["-c", RUN_PATH.format(file="{file}", name="")],
        ["-c", RUN_PATH.format(file="{file}", name=", run_name='__main__'")],
    ],
    ids=["cProfile", "profile", "trace", "pdb", "run_path", "run_path as main"],
)
def test_script_has_the_same_hashes_whatever_runs_it(how: list[str], folder: Path) -> None:
    """A profiled script finds its earlier artifacts. Different scripts do not share artifacts."""
    found = {}
    for file in ("train.py", "other.py"):
        found[file] = hashes(file, folder=folder)
        assert found[file] == hashes(*(part.format(file=file) for part in how), folder=folder)
    assert not set(found["train.py"]) & set(found["other.py"])


@pytest.mark.parametrize(
    ("script", "module"),
    [
        ("package/train.py", "package.train"),
        ("package/inner/train.py", "package.inner.train"),
        ("package/__main__.py", "package"),
        ("package", "package"),
        ("train.py", "train"),
        ("program", "program"),
        ("program/__main__.py", "program"),
    ],
)
def test_file_in_a_package_is_named_as_its_module(script: str, module: str, folder: Path) -> None:
    """The hashes are equal if the file is run by its path or with `-m`, profiled, or imported."""
    expected = hashes("-m", module, folder=folder)
    assert expected == hashes(script, folder=folder)
    assert expected == hashes("-m", "cProfile", "-m", module, folder=folder)
    name = f"{module}.__main__" if script.startswith(f"{module}/__main__") or script == module else module
    code = "import json; from {} import hashes; print('hashes', json.dumps(hashes()))"
    assert expected == hashes("-c", code.format(name), folder=folder)


def test_script_in_a_package_and_its_import_by_a_neighbour_have_the_same_hashes(folder: Path) -> None:
    """Python puts the script's directory on the path, so a script next to it imports plain `train`."""
    (folder / "package" / "evaluate.py").write_text(
        "import json, train; print('hashes', json.dumps(train.hashes()))"
    )
    assert hashes("package/train.py", folder=folder) == hashes("package/evaluate.py", folder=folder)


def test_child_process_gives_a_script_the_same_name_as_its_parent(folder: Path) -> None:
    """In a child process, Python calls the script `__mp_main__`."""
    (folder / "spawning.py").write_text(
        PROGRAM.replace("if __name__ in", "if False and __name__ in")
        + """
class OfParent:
    __module__ = "__main__"

def hash_of_parent():
    return Model(value=OfParent).furu_hash

if __name__ == "__main__":
    import multiprocessing
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert hashes() == pool.apply(hashes)
        assert hash_of_parent() == pool.apply(hash_of_parent)
    print("hashes", json.dumps(hashes()))
"""
    )
    code = "import json, spawning; print('hashes', json.dumps(spawning.hashes()))"
    assert hashes("spawning.py", folder=folder) == hashes("-c", code, folder=folder)


# ---- two files with the same name ----

MODEL = """
import sys
from furu import Furu, FuruError, run_local

class Model(Furu[str]):
    n: int
    def _create(self) -> str:
        return {value!r}

class Report(Furu[str]):
    model: Model
    def _create(self) -> str:
        return self.model.get()

def main():
    node = Report(model=Model(n=1)) if sys.argv[1] == "report" else Model(n=1)
    if sys.argv[1] == "run":
        return run_local([node]).reused
    return node.status() if sys.argv[1] == "status" else node.get()

if __name__ == "__main__":
    try:
        print(main())
    except FuruError as error:
        print(type(error).__name__, error)
"""


def in_store(*arguments: str, folder: Path, path: str = "") -> str:
    """Run Python in a folder, with the store in that folder, and return the output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([path, str(Path(furu.__file__).parent.parent)]),
            "FURU_PATH": str(folder / "store"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def projects(tmp_path: Path) -> Path:
    """Two projects, each with a script `train.py` and a package `package`."""
    for name in ("x", "y"):
        (tmp_path / name / "package").mkdir(parents=True)
        (tmp_path / name / "package" / "__init__.py").touch()
        (tmp_path / name / "package" / "train.py").write_text(MODEL.format(value=name))
        (tmp_path / name / "train.py").write_text(MODEL.format(value=name))
    return tmp_path


@pytest.mark.parametrize(
    ("what", "file"),
    [
        ("get", "train.py"),
        ("run", "train.py"),
        ("status", "train.py"),
        ("report", "train.py"),
        ("get", "package/train.py"),
    ],
)
def test_artifact_of_another_script_of_the_same_name_is_an_error(
    what: str, file: str, projects: Path
) -> None:
    """The error of every kind of call names both files. The first script can still load its artifact."""
    assert "x" == in_store(f"x/{file}", "get", folder=projects)
    said = in_store(f"y/{file}", what, folder=projects)
    assert "Error" in said
    assert str(projects / "x" / file) in said
    assert str(projects / "y" / file) in said
    assert "Rename one of the files" in said
    assert "x" == in_store(f"x/{file}", "get", folder=projects)


@pytest.mark.parametrize("importer", ["x", "y"])
def test_script_and_imported_module_of_the_same_name_do_not_share_artifacts(
    importer: str, projects: Path
) -> None:
    """Either the script or the module computes its artifact first."""
    other = "x" if importer == "y" else "y"
    code = "import sys, train; print(train.main())"
    imported = ("-c", code, "get")
    if importer == "x":
        assert "x" == in_store(*imported, folder=projects, path=str(projects / "x"))
        assert "FuruLoadError" in in_store("y/train.py", "get", folder=projects)
    else:
        assert other == in_store(f"{other}/train.py", "get", folder=projects)
        with pytest.raises(subprocess.CalledProcessError) as caught:
            in_store(*imported, folder=projects, path=str(projects / "y"))
        assert "FuruLoadError" in caught.value.stderr


def test_program_run_with_m_from_two_directories_is_two_scripts(projects: Path) -> None:
    """`python -m train` runs the file `train.py` in the current working directory."""
    assert "x" == in_store("x/train.py", "get", folder=projects)
    code = "import os, runpy; os.chdir('y'); runpy.run_module('train', run_name='__main__')"
    assert "FuruLoadError" in in_store("-c", code, "get", folder=projects)


def test_project_that_was_moved_keeps_its_artifacts(projects: Path) -> None:
    """The artifacts record a source file that no longer exists, so the file counts as moved."""
    assert "x" == in_store("x/train.py", "get", folder=projects)
    (projects / "x").rename(projects / "moved")
    assert "x" == in_store("moved/train.py", "get", folder=projects)
    assert "1" == in_store("moved/train.py", "run", folder=projects)


def test_script_that_is_reached_by_a_link_is_the_same_script(projects: Path) -> None:
    """Both paths lead to the same file."""
    assert "x" == in_store("x/train.py", "get", folder=projects)
    (projects / "link").symlink_to(projects / "x")
    assert "1" == in_store("link/train.py", "run", folder=projects)


def test_package_that_is_installed_in_two_places_shares_artifacts(projects: Path) -> None:
    """Both copies have the same full name, so they count as one package."""
    code = "import sys; from package import train; print(train.main())"
    assert "x" == in_store("-c", code, "get", folder=projects, path=str(projects / "x"))
    assert "x" == in_store("-c", code, "get", folder=projects, path=str(projects / "y"))
    assert "1" == in_store("-m", "package.train", "run", folder=projects, path=str(projects / "y"))


# ---- files that a command imports by their paths ----


def import_file(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_of_the_same_name_that_a_command_imports_are_scripts(
    projects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module name of the second file contains its path. The path does not count in hashes."""
    x, y = projects / "x" / "train.py", projects / "y" / "train.py"
    names = ["train", f"train{origin.FILE_MARK}{y}"]
    monkeypatch.setattr(origin, "SCRIPTS", {str(x)})
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)
    one, other = (import_file(*both).Model(n=1) for both in zip(names, [x, y], strict=True))
    assert one.furu_hash == other.furu_hash
    assert "x" == one.get()
    with pytest.raises(FuruLoadError, match=re.escape(str(x))):
        other.get()
    with pytest.raises(FuruUsageError, match="two classes in one graph"):
        run_local([one, other])

"""Where classes come from: one class has one name, however its file is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import furu

# A node, and values whose classes define no function.
PROGRAM = """
from __future__ import annotations
import dataclasses, enum, json, sys, threading
from furu import Furu

class Colour(enum.Enum):
    RED = 1

@dataclasses.dataclass(frozen=True)
class Point:
    x: int

class Bare(Furu[int]):
    pass

class Model(Furu[int]):
    value: object
    def _create(self) -> int:
        return 1

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
    print("hashes", json.dumps(hashes()))
"""


def hashes(*arguments: str, folder: Path) -> list[str]:
    """Run Python in a folder and return the hashes that the program prints."""
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A script, another one, and a package with the same classes."""
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "inner" / "__init__.py").touch()
    for name in (
        "train.py",
        "other.py",
        "package/train.py",
        "package/inner/train.py",
        "package/__main__.py",
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
    """What `python train.py` has computed is found under a profiler, and two scripts share nothing."""
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
    ],
)
def test_file_of_a_package_is_named_as_its_module(script: str, module: str, folder: Path) -> None:
    """Run by its path or with `-m`, profiled either way, or imported: it is one class."""
    expected = hashes("-m", module, folder=folder)
    assert expected == hashes(script, folder=folder)
    assert expected == hashes("-m", "cProfile", "-m", module, folder=folder)
    name = module if module != "package" else "package.__main__"
    code = "import json; from {} import hashes; print('hashes', json.dumps(hashes()))"
    assert expected == hashes("-c", code.format(name), folder=folder)


def test_script_in_a_package_and_a_script_beside_it_that_imports_it_agree(folder: Path) -> None:
    """Python puts the script's own directory on the path, so its neighbours have no package."""
    (folder / "package" / "evaluate.py").write_text(
        "import json, train; print('hashes', json.dumps(train.hashes()))"
    )
    assert hashes("package/train.py", folder=folder) == hashes("package/evaluate.py", folder=folder)


def test_child_process_gives_a_script_the_name_that_its_parent_gave(folder: Path) -> None:
    """Python calls the script `__mp_main__` there."""
    (folder / "spawning.py").write_text(
        PROGRAM.replace("if __name__ in", "def main():\n    pass\n\nif False and __name__ in")
        + """
if __name__ == "__main__":
    import multiprocessing
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert hashes() == pool.apply(hashes)
    print("hashes", json.dumps(hashes()))
"""
    )
    code = "import json, spawning; print('hashes', json.dumps(spawning.hashes()))"
    assert hashes("spawning.py", folder=folder) == hashes("-c", code, folder=folder)

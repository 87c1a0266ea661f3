"""Classes in the `__main__` module of a script, of `python -m`, and of a program without a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import furu

SOURCE = """
from __future__ import annotations
import dataclasses, enum, json, sys
from furu import Furu, run_local

class Colour(enum.Enum):
    RED = "red"

@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    colour: Colour = Colour.RED

class Points(Furu[list[Point]]):
    count: int
    def _create(self) -> list[Point]:
        return [Point(x) for x in range(self.count)]

class Total(Furu["Result"]):
    points: tuple[Points, ...]
    origin: Point = Point(0)
    kind: type = Point
    def _create(self) -> Result:
        return Result(sum(point.x for node in self.points for point in node.get()))

@dataclasses.dataclass(frozen=True)
class Result:
    total: int

class Pickled(Furu[Result]):
    _codec = "pickle"
    def _create(self) -> Result:
        return Result(-1)

def main() -> None:
    total = Total(points=(Points(count=3), Points(count=4)))
    report = run_local([total, Pickled()])
    again = run_local([total, Pickled()])
    print(json.dumps({
        "hash": total.furu_hash,
        "computed": [report.computed, again.computed],
        "total": total.get().total,
        "same class": type(total.get()) is Result and type(Pickled().get()) is Result,
        "directory": total.furu_dir.parent.parent.parent.name,
        "class directory": total.furu_dir.parent.parent.name,
    }))
"""

SCRIPT = SOURCE + '\nif __name__ == "__main__":\n    main()\n'


def run(*arguments: str, folder: Path, standard_input: str | None = None) -> Any:
    """Run Python in a folder, and return its output, decoded from JSON."""
    paths = [str(folder), str(Path(furu.__file__).parent.parent), *(path for path in sys.path if path)]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "FURU_PATH": str(folder / "store")},
        input=standard_input,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "" == done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a script, and with a package whose modules have the same content."""
    (tmp_path / "script.py").write_text(SCRIPT)
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "module.py").write_text(SCRIPT)
    (package / "__main__.py").write_text(SCRIPT)
    return tmp_path


EXPECTED = {"computed": [4, 0], "total": 9, "same class": True, "class directory": "Total"}


def told(result: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that do not depend on the module of the classes."""
    return {key: result[key] for key in EXPECTED}


def test_classes_of_a_script_run_and_are_found_again(folder: Path) -> None:
    """This includes quoted types, enums and pickles. The directory in the store has the script's name."""
    first = run("script.py", folder=folder)
    assert EXPECTED == told(first)
    assert "script" == first["directory"]
    assert {**first, "computed": [0, 0]} == run("script.py", folder=folder)


def test_script_and_a_module_that_imports_it_share_artifacts(folder: Path) -> None:
    first = run("script.py", folder=folder)
    code = """
        import json, script
        node = script.Total(points=(script.Points(count=3), script.Points(count=4)))
        print(json.dumps([node.furu_hash, node.status(), node.get().total]))
    """
    assert [first["hash"], "DONE", 9] == run("-c", textwrap.dedent(code), folder=folder)


def test_script_is_the_same_by_any_path(folder: Path) -> None:
    first = run("script.py", folder=folder)
    other = run(str(folder / "package" / ".." / "script.py"), folder=folder)
    assert [first["hash"], [0, 0]] == [other["hash"], other["computed"]]


def test_module_run_with_m_is_the_module_that_others_import(folder: Path) -> None:
    """With `python -m package.module`, the classes have the full name of the module."""
    first = run("-m", "package.module", folder=folder)
    assert EXPECTED == told(first)
    assert "package.module" == first["directory"]
    code = """
        import json
        from package.module import Points, Total
        node = Total(points=(Points(count=3), Points(count=4)))
        print(json.dumps([node.furu_hash, node.get().total]))
    """
    assert [first["hash"], 9] == run("-c", textwrap.dedent(code), folder=folder)


def test_package_run_with_m_is_its_main_module(folder: Path) -> None:
    first = run("-m", "package", folder=folder)
    assert EXPECTED == told(first)
    assert "package.__main__" == first["directory"]


def test_two_scripts_with_the_same_classes_do_not_collide(folder: Path) -> None:
    """A script and a module of a package do not collide either."""
    (folder / "other.py").write_text(SCRIPT)
    runs = [
        run("script.py", folder=folder),
        run("other.py", folder=folder),
        run("-m", "package.module", folder=folder),
        run("-m", "package", folder=folder),
        run("-", folder=folder, standard_input=SCRIPT),
    ]
    assert [[4, 0]] * 5 == [result["computed"] for result in runs]
    assert 5 == len({result["hash"] for result in runs})


@pytest.mark.parametrize(("how", "directory"), [("-", "<stdin>"), ("-c", "__main__")])
def test_main_without_a_file_works_as_in_a_notebook(how: str, directory: str, folder: Path) -> None:
    """The program is read from standard input, or passed with `-c`."""
    arguments, text = ([how], SCRIPT) if how == "-" else ([how, SCRIPT], None)
    first = run(*arguments, folder=folder, standard_input=text)
    assert EXPECTED == told(first)
    assert directory == first["directory"]
    assert [first["hash"], [0, 0]] == [
        (again := run(*arguments, folder=folder, standard_input=text))["hash"],
        again["computed"],
    ]


def test_class_defined_again_in_a_notebook_is_the_same_class(folder: Path) -> None:
    """A cell that runs twice finds its artifacts. If `_version` was raised, the cell computes again."""
    cell = """
from furu import Furu
calls = globals().get("calls", [])
class Cell(Furu[int]):
    _version = VERSION
    x: int
    def _create(self):
        calls.append(self.x)
        return len(calls)
"""
    program = f"""
import json, sys, types
cell = {cell!r}
del sys.modules["__main__"].__file__
names = vars(sys.modules["__main__"])
values = []
for version in ("1", "1", "2"):
    exec(compile(cell.replace("VERSION", version), "<cell>", "exec"), names)
    values.append(names["Cell"](x=1).get())
print(json.dumps([values, names["calls"], names["Cell"](x=1).furu_dir.parent.parent.parent.name]))
"""
    (folder / "kernel.py").write_text(program)
    assert [[1, 1, 2], [1, 1], "__main__"] == run("kernel.py", folder=folder)


def test_class_inside_a_function_of_a_script_has_a_directory(folder: Path) -> None:
    (folder / "local.py").write_text(
        """
import json
from furu import Furu, run_local
def make():
    class Local(Furu[int]):
        x: int
        def _create(self): return self.x
    return Local(x=5)
run_local([make()])
print(json.dumps([make().get(), make().status(), make().furu_dir.parent.parent.name]))
"""
    )
    assert [5, "DONE", "make.<locals>.Local"] == run("local.py", folder=folder)


# ---- pickles ----

PICKLES = """
import enum, functools, sys
from furu import Furu, run_local

class Value:
    class Inner:
        pass
    def __init__(self, number):
        self.number, self.kind, self.inner = number, Kind.GOOD, Value.Inner()
        self.call = functools.partial(double, number)

class Kind(enum.Enum):
    GOOD = 1

def double(number):
    return 2 * number

class Made(Furu[object]):
    _codec = "pickle"
    number: int
    def _create(self):
        return Value(self.number)

def look(value):
    same = [type(value) is Value, value.kind is Kind.GOOD, type(value.inner) is Value.Inner]
    return [*same, value.call.func is double, value.call()]

def main():
    from furu.execution.workers import ProcessWorkers
    import json
    node = Made(number=3)
    if sys.argv[1:] == ["processes"]:
        run_local([node], workers=ProcessWorkers(), progress=False)
    elif sys.argv[1:] == ["get"]:
        node.get()
    else:
        assert node.exists()
    print(json.dumps(look(node.get())))

if __name__ == "__main__":
    main()
"""
READ_BY_IMPORT = "import {0}, json; print(json.dumps({0}.look({0}.Made(number=3).get())))"
SEEN = [True, True, True, True, 6]


@pytest.fixture
def pickles(folder: Path) -> Path:
    """A folder with a script and a module, whose pickles refer to classes and functions by name."""
    (folder / "values.py").write_text(PICKLES)
    (folder / "package" / "values.py").write_text(PICKLES)
    return folder


@pytest.mark.parametrize("how", ["processes", "get"])
def test_pickle_of_a_script_is_read_by_the_script_and_by_its_importers(how: str, pickles: Path) -> None:
    """The pickle is written in a child process, or in the script itself."""
    assert SEEN == run("values.py", how, folder=pickles)
    assert SEEN == run("values.py", folder=pickles)
    assert SEEN == run("-c", READ_BY_IMPORT.format("values"), folder=pickles)


@pytest.mark.parametrize("how", ["processes", "get"])
def test_pickle_of_a_module_run_with_m_is_read_by_its_importers(how: str, pickles: Path) -> None:
    """The module itself reads it too."""
    assert SEEN == run("-m", "package.values", how, folder=pickles)
    assert SEEN == run("-m", "package.values", folder=pickles)
    code = READ_BY_IMPORT.format("values").replace("import values", "from package import values")
    assert SEEN == run("-c", code.replace(", json", "; import json"), folder=pickles)


def test_script_reads_the_pickle_of_a_program_that_imported_it(pickles: Path) -> None:
    """The values have the script's own classes, because the script is not imported a second time."""
    code = "import values, json; values.Made(number=3).get(); print(json.dumps(1))"
    assert 1 == run("-c", code, folder=pickles)
    assert SEEN == run("values.py", folder=pickles)


def test_pickle_of_a_script_is_readable_without_furu(pickles: Path) -> None:
    """Other programs can read it with `pickle` alone."""
    run("values.py", "processes", folder=pickles)
    (path,) = (pickles / "store").rglob("*.pickle")
    code = """
        import json, pathlib, pickle, sys, values
        print(json.dumps(values.look(pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()))))
    """
    assert SEEN == run("-c", textwrap.dedent(code), str(path), folder=pickles)
    assert b"furu" not in path.read_bytes()
    assert b"__m" not in path.read_bytes()


def test_class_of_a_script_in_a_function_cannot_be_pickled(pickles: Path) -> None:
    """The node fails, as it does if the class is in a module."""
    (pickles / "local.py").write_text(
        """
import json
from furu import Furu, FuruComputeError
class Bad(Furu[object]):
    _codec = "pickle"
    def _create(self):
        class Local: pass
        return Local()
try:
    Bad().get()
except FuruComputeError as error:
    print(json.dumps(str(error.__cause__)))
"""
    )
    assert "cannot be pickled" in run("local.py", folder=pickles)

"""Roots from files: the modules that the command imports for FILE.py, and errors in these files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from furu._common.origin import class_name
from furu.cli.app import app
from furu.cli.output import UserCodeError
from furu.cli.roots import load_roots

STEP = """
from furu import Furu
class Step{name}(Furu[str]):
    n: int
    def _create(self): return "{name}"
roots = [Step{name}(n=1)]
if __name__ == "__main__":
    print(roots[0].get(), roots[0].furu_hash)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory. Modules imported from it are forgotten afterwards."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield folder
    forget(folder)


def forget(folder: Path) -> None:
    """Forget the modules that were imported from a directory."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]


def write(path: Path, text: str) -> Path:
    """Write a file, and create its parent directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def furu(*arguments: str) -> Result:
    """Run the command in this process, after forgetting all modules of the working directory."""
    forget(Path.cwd())
    return CliRunner().invoke(app, arguments, prog_name="furu")


def names_in(store: Path, pattern: str) -> list[str]:
    """Return the class directories of the store entries that match a pattern."""
    return sorted(str(path.parent.relative_to(store)) for path in store.glob(pattern))


# ---- keeping ----


def test_gc_keeps_the_nodes_of_two_files_with_the_same_name(folder: Path, store: Path) -> None:
    for name in "ab":
        write(folder / name / "pipeline.py", STEP.format(name=name.upper()))
        assert 0 == furu("run", f"{name}/pipeline.py:roots").exit_code
    done = furu("gc", "--keep", "a/pipeline.py:roots", "--keep", "b/pipeline.py:roots", "--yes")
    assert ": 0 nodes to remove" in done.stdout, done.stderr
    assert ["pipeline/StepA", "pipeline/StepB"] == names_in(store, "pipeline/*/*")


def test_gc_keeps_the_nodes_of_files_whose_helpers_have_the_same_name(folder: Path, store: Path) -> None:
    """Each file imports the helper in its own directory."""
    for name in "ab":
        write(folder / name / "steps.py", STEP.format(name=name.upper()))
        write(folder / name / f"{name}.py", f"from steps import Step{name.upper()}, roots\n")
        assert 0 == furu("run", f"{name}/{name}.py:roots").exit_code
    done = furu("gc", "--keep", "a/a.py:roots", "--keep", "b/b.py:roots", "--yes")
    assert ": 0 nodes to remove" in done.stdout, done.stderr
    assert ["steps/StepA", "steps/StepB"] == names_in(store, "steps/*/*")


def test_gc_keeps_the_nodes_of_a_file_that_prints(folder: Path) -> None:
    """The command does not mistake the printed lines for hashes."""
    write(folder / "loud.py", "print('hello')\n" + STEP.format(name="A") + "print('0' * 32)\n")
    assert 0 == furu("run", "loud.py:roots").exit_code
    assert ": 0 nodes to remove" in furu("gc", "--keep", "loud.py:roots", "--yes").stdout


@pytest.mark.parametrize(
    ("target", "code", "says"),
    [
        ("broken.py:roots", 1, "Broken(n=1)._dependencies() raised ValueError: no list"),
        ("broken.py:nosuch", 2, "has no 'nosuch'"),
        ("nofile.py:roots", 2, "there is no file nofile.py"),
        ("raises.py:roots", 1, "ZeroDivisionError: division by zero"),
    ],
)
def test_gc_removes_nothing_if_the_nodes_to_keep_are_unknown(
    folder: Path, store: Path, capfd: pytest.CaptureFixture[str], target: str, code: int, says: str
) -> None:
    """The target cannot be loaded, or its dependencies cannot be found."""
    write(folder / "other.py", STEP.format(name="B"))
    write(
        folder / "broken.py",
        "from furu import Furu\n"
        "class Broken(Furu[int]):\n"
        "    n: int\n"
        "    def _create(self): return 1\n"
        "    def _dependencies(self): raise ValueError('no list')\n"
        "roots = [Broken(n=1)]\n",
    )
    write(folder / "raises.py", "1 / 0\n")
    furu("run", "other.py:roots")
    done = furu("gc", "--keep", target, "--yes")
    assert code == done.exit_code
    assert says in " ".join(capfd.readouterr().err.replace("│", "").split())
    assert f"nothing was removed, because the nodes of --keep {target} are not known" in done.stderr
    assert ["other/StepB"] == names_in(store, "*/*/*")


# ---- importing ----


def test_classes_of_a_file_are_named_as_in_the_script(folder: Path) -> None:
    """`furu run FILE.py:NAME` finds the nodes that `python FILE.py` computed."""
    path = write(folder / "deep" / "pipeline.py", STEP.format(name="A"))
    ran = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True)
    (node,) = load_roots("deep/pipeline.py:roots")
    assert ["A", node.furu_hash] == ran.stdout.split()
    assert node.exists()


def test_two_files_with_the_same_name_are_two_modules(folder: Path) -> None:
    """Their classes have different names and compute different values."""
    for name in "ab":
        write(folder / name / "pipeline.py", STEP.format(name=name.upper()))
    nodes = [load_roots(f"{name}/pipeline.py:roots")[0] for name in "ab"]
    assert ["pipeline:StepA", "pipeline:StepB"] == [class_name(type(node)) for node in nodes]
    assert ["A", "B"] == [node.get() for node in nodes]
    again = [load_roots(f"{folder}/{name}/pipeline.py:roots")[0] for name in "ab"]
    assert [type(node) for node in nodes] == [type(node) for node in again]


def test_file_with_the_name_of_a_library_is_loaded(folder: Path) -> None:
    """The library's module is not replaced, and quoted types are found in the file."""
    source = STEP.format(name="A").replace("Furu[str]", 'Furu["Text"]') + "Text = str\n"
    write(folder / "json.py", "from __future__ import annotations\n" + source)
    (node,) = load_roots("json.py:roots")
    assert sys.modules["json"] is json
    assert "json:StepA" == class_name(type(node))
    assert "A" == node.get()


def test_processes_import_a_file_from_its_own_directory(folder: Path) -> None:
    """The file may import modules from its directory."""
    write(folder / "deep" / "beside.py", "value = 'beside'\n")
    source = STEP.format(name="A").replace('return "A"', "import beside; return beside.value")
    write(folder / "deep" / "pipeline.py", source)
    command = [sys.executable, "-m", "furu.cli", "run", "deep/pipeline.py:roots", "--workers", "processes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("computed 1, "), done.stderr


# ---- errors ----


@pytest.mark.parametrize("target", ["sweep/nofile.py:roots", "work:roots", "sweep/nofile:roots"])
def test_missing_target_exits_with_2(folder: Path, target: str) -> None:
    """The message says whether a file or a module is missing."""
    done = furu("run", target)
    assert 2 == done.exit_code
    kind = "file" if ".py" in target else "module"
    assert f"there is no {kind} " in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("source", "line", "says"),
    [
        ("import nosuch\n", 1, "ModuleNotFoundError: No module named 'nosuch'"),
        ("import models.nosuch\n", 1, "ModuleNotFoundError: No module named 'models"),
        ("\ndef f(:\n", 2, "SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(0)\n", 2, "SystemExit: 0"),
        ("def roots():\n    return [1 / 0]\n", 2, "ZeroDivisionError: division by zero"),
        ("roots = (1 / n for n in [0])\n", 1, "ZeroDivisionError: division by zero"),
        (
            "from furu import Furu\nclass Bad(Furu[int]):\n    furu_dir: int\n",
            2,
            "FuruUsageError: the field",
        ),
    ],
)
def test_error_in_a_file_is_shown_with_the_traceback_of_the_file(
    folder: Path, source: str, line: int, says: str
) -> None:
    """The traceback has no frames of the command itself."""
    write(folder / "models.py", source)
    done = furu("run", "models.py:roots")
    assert 1 == done.exit_code
    first = next(text for text in done.stderr.splitlines() if text.startswith("  File "))
    assert f'models.py", line {line}' in first
    assert says in done.stderr
    assert "furu: " in done.stderr.splitlines()[-1]


def test_file_that_failed_to_load_is_not_kept_half_loaded(folder: Path) -> None:
    """The next attempt reads the file again."""
    path = write(folder / "pipeline.py", "x = 1\nraise ValueError('no')\n")
    with pytest.raises(UserCodeError, match="ValueError: no"):
        load_roots("pipeline.py:roots")
    path.write_text(STEP.format(name="A"))
    assert 1 == len(load_roots("pipeline.py:roots"))


def test_two_files_with_the_same_name_do_not_share_artifacts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names both files."""
    text = STEP.replace("Step{name}", "Step").replace("{name}", "{}")
    one, other = (write(folder / name / "step.py", text.format(name)) for name in ("a", "b"))
    assert 0 == furu("run", "a/step.py:roots").exit_code
    assert 0 == furu("run", "a/step.py:roots").exit_code
    for directory, target in [(folder, "b/step.py:roots"), (folder / "b", "step:roots")]:
        forget(folder)
        monkeypatch.chdir(directory)
        result = furu("run", target)
        assert 0 != result.exit_code
        said = "".join(f"{result.output}{result.exception or ''}".split())
        assert str(one) in said
        assert str(other) in said

"""The fingerprint of a class's code: what changes it, what does not, and when there is none."""

from __future__ import annotations

import gc
import importlib
import linecache
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import furu
from furu.node.base import artifact_of
from furu.provenance.fingerprint import fingerprint

TRAIN = '''
from __future__ import annotations
import math
from helpers import clean
import settings as config
from furu import Furu

RATE = 0.5

def scaled(value: float) -> float:
    """Scale a value."""
    return value * RATE

class Train(Furu[float]):
    """Trains."""

    of: int = 3

    def _create(self) -> float:
        return scaled(clean(self.of)) + math.sqrt(config.LIMIT)
'''
HELPERS = """
from inner import twice

def clean(value):
    return twice(value) - 1

def unused(value):
    return value
"""
INNER = """
def twice(value):
    return 2 * value
"""
SETTINGS = "LIMIT = 4\nOTHER = 5\n"
FILES = {"train.py": TRAIN, "helpers.py": HELPERS, "inner.py": INNER, "settings.py": SETTINGS}
# Equal in every supported version of Python. Change it only if the definition of the fingerprint changes:
# users then get a warning for each class.
EXPECTED = "1c1cf516ea64f969"

FingerprintOf = Callable[..., str]


@pytest.fixture
def fingerprint_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FingerprintOf]:
    """A function that writes a project to a new directory, imports a class of it, and returns its
    fingerprint. Arguments replace the content of files, given by module name."""
    before = set(sys.modules)
    count = 0

    def find(module: str = "train", cls: str = "Train", **changed: str) -> str:
        nonlocal count
        count += 1
        folder = tmp_path / str(count)
        files = {**FILES, **{f"{name}.py": text for name, text in changed.items()}}
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(textwrap.dedent(text))
        for name in set(sys.modules) - before:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
                del sys.modules[name]
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(folder))
            patch.setattr(sys, "dont_write_bytecode", True)
            found: Any = importlib.import_module(module)
            for part in cls.split("."):
                found = getattr(found, part)
            return fingerprint(found, time.time() + 60)

    yield find
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def test_fingerprint_is_the_same_in_every_version_of_python(fingerprint_of: FingerprintOf) -> None:
    assert EXPECTED == fingerprint_of()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import math\n", "# a comment\nimport math\n"),
        ('"""Trains."""', '"""Trains a model."""'),
        ("value * RATE", "(value\n        * RATE)"),
        ("of: int = 3", "of: int = 4\n    more: str = 'x'"),
        ("class Train", "def unused(): return 1\n\nclass Train"),
        ("value: float) -> float", "value)"),
        ("of: int = 3", "of: int = 3\n    _version = 2\n    _timeout_sec = 3.0"),
        ("    def _create", "    def _validate(self) -> bool:\n        return True\n\n    def _create"),
        ("from helpers import clean\n", "from helpers import clean\nimport json\n"),
    ],
)
def test_changes_without_effect_on_values_do_not_count(
    fingerprint_of: FingerprintOf, before: str, after: str
) -> None:
    """Comments, docstrings, formatting, fields, other functions, annotations, settings, `_validate`."""
    assert before in TRAIN
    assert EXPECTED == fingerprint_of(train=TRAIN.replace(before, after))


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("train", "scaled(clean(self.of))", "scaled(clean(self.of + 1))"),
        ("train", "value * RATE", "value / RATE"),
        ("train", "RATE = 0.5", "RATE = 0.25"),
        ("train", "Furu[float]", "Furu[complex]"),
        ("train", "math.sqrt", "math.cbrt"),
        ("train", "    of: int", "    scale = 7\n    of: int"),
        ("helpers", "twice(value) - 1", "twice(value) - 2"),
        ("inner", "2 * value", "3 * value"),
        ("settings", "LIMIT = 4", "LIMIT = 4.0"),
        ("settings", "LIMIT = 4", "LIMIT = 4\nLIMIT += 1"),
        ("helpers", "def clean", "import functools\n@functools.cache\ndef clean"),
    ],
)
def test_changes_of_code_that_the_class_uses_count(
    fingerprint_of: FingerprintOf, file: str, before: str, after: str
) -> None:
    """Also in another module, in one that only a helper uses, and in constants and decorators."""
    content = FILES[f"{file}.py"]
    assert before in content
    changed = fingerprint_of(**{file: content.replace(before, after)})
    assert changed not in ("", EXPECTED)


MORE = """
import dataclasses, logging, furu
from furu import Furu

@dataclasses.dataclass(frozen=True)
class Config:
    def factor(self): return 1

class Base(Furu[float]):
    def helper(self): return 1

Alias = Base
values = [1]
log = logging.getLogger("x")
log.setLevel(10)

class Train(Alias):
    config: "Config | None" = None
    level: int = furu.field(default=1, counts=False)

    def step(self): return 1
    first = step
    def step(self): return 2

    def _create(self):
        if self.level > 5:
            return None
        return self.config.factor() + sum(values for values in values)
"""


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ("def factor(self): return 1", "def factor(self): return 2", True),
        ("def helper(self): return 1", "def helper(self): return 2", True),
        ("values = [1]", "values = [2]", True),
        ("default=1", "default=2", True),
        ("    first = step", "", True),
        (
            "    first = step\n    def step(self): return 2",
            "    def step(self): return 2\n    first = step",
            True,
        ),
        ("config: ", "more: int = 3\n    config: ", False),
        ("setLevel(10)", "setLevel(20)", False),
        ("return None", "return", False),
    ],
)
def test_code_that_is_reached_in_other_ways(
    fingerprint_of: FingerprintOf, before: str, after: str, changes: bool
) -> None:
    """Classes in the types of fields, aliases of bases, what a comprehension begins with, defaults of
    fields that do not count."""
    assert before in MORE
    first, second = fingerprint_of(train=MORE), fingerprint_of(train=MORE.replace(before, after))
    assert first
    assert second
    assert changes == (first != second)


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("helpers", "def unused(value):\n    return value", "def unused(value):\n    return -value"),
        ("settings", "OTHER = 5", "OTHER = 6"),
        ("inner", "def twice", "class New:\n    pass\n\ndef twice"),
    ],
)
def test_other_code_of_the_same_modules_does_not_count(
    fingerprint_of: FingerprintOf, file: str, before: str, after: str
) -> None:
    content = FILES[f"{file}.py"]
    assert before in content
    assert EXPECTED == fingerprint_of(**{file: content.replace(before, after)})


def test_names_of_files_do_not_count(fingerprint_of: FingerprintOf) -> None:
    """The class's own file, the file of a helper, and a helper that moves to a package."""
    assert EXPECTED == fingerprint_of("other", other=TRAIN)
    assert EXPECTED == fingerprint_of(tools=HELPERS, train=TRAIN.replace("helpers", "tools"))
    moved = {"package/__init__": "", "package/tools": HELPERS}
    assert EXPECTED == fingerprint_of(**moved, train=TRAIN.replace("helpers", "package.tools"))


def test_imports_inside_functions_are_followed(fingerprint_of: FingerprintOf) -> None:
    """Whether or not the module has been imported yet."""
    source = """
        from furu import Furu
        class Train(Furu[int]):
            def _create(self) -> int:
                from inner import twice
                return twice(2)
        """
    before = fingerprint_of(train=source)
    imported = fingerprint_of(train=f"import inner\n{textwrap.dedent(source)}")
    after = fingerprint_of(train=source, inner=INNER.replace("2 *", "3 *"))
    assert before == imported != after


def test_names_reached_through_packages_and_stars_are_followed(fingerprint_of: FingerprintOf) -> None:
    """A name that a package imports from its module, a submodule, and a star import."""
    source = """
        from furu import Furu
        import package.tools
        from package import first
        from package.more import *
        class Train(Furu[int]):
            def _create(self) -> int:
                return first() + package.tools.second() + third()
        """
    files = {
        "train": source,
        "package/__init__": "from .tools import first\n",
        "package/tools": "def first(): return 1\n\ndef second(): return 2\n",
        "package/more": "def third(): return 3\n",
    }
    known = {fingerprint_of(**files)}
    for file, number in (("tools", 1), ("tools", 2), ("more", 3)):
        name = f"package/{file}"
        known.add(fingerprint_of(**{**files, name: files[name].replace(f"return {number}", "return 9")}))
    assert len(known) == 4
    assert "" not in known


def test_renamed_field_with_its_old_name_does_not_count(fingerprint_of: FingerprintOf) -> None:
    """Nor does a class with a `_name` that is called otherwise now."""
    source = TRAIN.replace("import Furu", "import Furu, field")
    renamed = source.replace("of: int = 3", "number: int = field(default=3, known_as='of')")
    assert EXPECTED == fingerprint_of(train=renamed.replace("self.of", "self.number"))
    assert EXPECTED != fingerprint_of(
        train=source.replace("of: int", "number: int").replace("self.of", "self.number")
    )
    named = TRAIN.replace(
        "class Train(Furu[float]):", "class Model(Furu[float]):\n    _name = 'train:Train'"
    )
    assert EXPECTED == fingerprint_of(train=named, cls="Model")


def test_class_that_a_file_defines_twice_counts_as_the_definition_in_use(
    fingerprint_of: FingerprintOf,
) -> None:
    head, mark, body = TRAIN.partition("class Train")
    other = f"{mark}{body}".replace("clean(self.of)", "self.of")
    assert EXPECTED == fingerprint_of(train=f"{head}{other}\n{mark}{body}")
    assert EXPECTED != fingerprint_of(train=f"{TRAIN}\n{other}")


def test_base_classes_count_and_other_node_classes_do_not(fingerprint_of: FingerprintOf) -> None:
    """A node that is used has a fingerprint of its own."""
    source = """
        from furu import Furu
        class Base(Furu[int]):
            def _create(self) -> int:
                return self.number()
        class Data(Furu[int]):
            def _create(self) -> int:
                return 1
        class Train(Base):
            def _dependencies(self):
                return [Data()]
            def number(self) -> int:
                return Data().get()
        """
    before = fingerprint_of(train=source)
    assert before == fingerprint_of(train=source.replace("return 1", "return 2"))
    assert before != fingerprint_of(train=source.replace("return self.number()", "return -self.number()"))


def test_local_names_are_not_mistaken_for_globals(fingerprint_of: FingerprintOf) -> None:
    """Parameters, targets, comprehension variables and nested functions hide names of the module."""
    source = """
        from furu import Furu
        value = 1
        class Train(Furu[int]):
            def _create(self) -> int:
                def inner(value):
                    return value
                return sum(value for value in [inner(2)]) + (lambda value: value)(3)
        """
    assert fingerprint_of(train=source) == fingerprint_of(train=source.replace("value = 1", "value = 2"))


def test_functions_that_call_each_other_and_long_chains_are_followed(fingerprint_of: FingerprintOf) -> None:
    chain = "\n".join(f"def f{number}(): return f{number + 1}()" for number in range(3000))
    source = f"{chain}\ndef f3000(): return f0()\n" + textwrap.dedent(
        """
        from furu import Furu
        class Train(Furu[int]):
            def _create(self) -> int:
                return f0()
        """
    )
    before = fingerprint_of(train=source)
    assert before not in ("", fingerprint_of(train=source.replace("return f0()\n", "return f1()\n", 1)))


def test_classes_in_functions_count_the_values_they_take_from_there(fingerprint_of: FingerprintOf) -> None:
    source = """
        from furu import Furu
        def make(number):
            class Train(Furu[int]):
                def _create(self) -> int:
                    return number
            return Train
        Train = make(1)
        Other = make(2)
        Same = make(1)
        """
    one, other, same = (fingerprint_of(train=source, cls=name) for name in ("Train", "Other", "Same"))
    assert one == same != other


def test_installed_packages_do_not_count(fingerprint_of: FingerprintOf) -> None:
    """The function of a library that is used counts by its name only."""
    source = """
        import sys
        sys.path.append(__file__.replace("train.py", "site-packages"))
        from library import work
        from furu import Furu
        class Train(Furu[int]):
            def _create(self) -> int:
                return work()
        """
    files = {"train": source, "site-packages/library": "def work(): return 1\n"}
    before = fingerprint_of(**files)
    files["site-packages/library"] = "def work(): return 2\n"
    assert "" != before == fingerprint_of(**files)


# ---- the running code and its source ----


def test_source_that_changed_since_the_import_gives_no_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed function is seen in its bytecode, also if the file's time is old. A changed constant is
    seen by its value, and code that cannot be compared by the file's time."""
    source = TRAIN.replace("RATE = 0.5", "RATE = 0.5\nLIST = list('ab')").replace(
        "value * RATE", "RATE, LIST"
    )
    for name, text in {**FILES, "changing.py": source}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("train", "helpers", "inner", "settings", "changing"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    cls = importlib.import_module("changing").Train
    made_at = time.time() + 60
    before = fingerprint(cls, made_at)

    def changed(one: str, other: str, *, newer: bool) -> str:
        (tmp_path / "changing.py").write_text(source.replace(one, other))
        at = made_at + 60 if newer else made_at - 60
        os.utime(tmp_path / "changing.py", (at, at))
        return fingerprint(cls, made_at)

    assert "" == changed("math.sqrt", "math.cbrt", newer=False)
    assert "" == changed("RATE = 0.5", "RATE = 0.7", newer=True)
    assert "" == changed("list('ab')", "list('abc')", newer=True)
    assert "" == changed("return RATE, LIST", "return LIST, RATE", newer=False)
    assert before == changed('"""Trains."""', "# comment", newer=False)
    for name in ("train", "helpers", "inner", "settings", "changing"):
        sys.modules.pop(name, None)


def test_code_without_source_gives_no_fingerprint() -> None:
    names: dict[str, Any] = {"__name__": "nowhere"}
    exec("from furu import Furu\nclass Train(Furu[int]):\n    def _create(self): return 1", names)
    assert "" == fingerprint(names["Train"], time.time())


def test_cells_of_a_notebook_are_read_from_linecache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other cells count too: a function by the cell that made it, a constant by its current value."""
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0

    def cell(text: str) -> None:
        nonlocal count
        count += 1
        name, text = f"<ipython-input-{count}>", textwrap.dedent(text)
        monkeypatch.setitem(linecache.cache, name, (len(text), None, text.splitlines(True), name))
        exec(compile(text, name, "exec"), names)

    cell("from furu import Furu\nNUMBER = 1")
    cell("def helper(): return NUMBER")
    train = """
        class Train(Furu[int]):
            def _create(self):
                return helper()
        """
    cell(train)
    before = fingerprint(names["Train"], time.time())
    cell("def helper(): return NUMBER + 1")
    changed = fingerprint(names["Train"], time.time())
    cell("def helper(): return NUMBER")
    assert before == fingerprint(names["Train"], time.time()) != changed
    cell("NUMBER = 2")
    assert before != fingerprint(names["Train"], time.time())
    cell(train)
    cell("NUMBER = 1")
    assert before == fingerprint(names["Train"], time.time())


def test_node_in_a_notebook_is_recorded_with_the_code_that_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper is defined again between two nodes."""
    names: dict[str, Any] = {"__name__": "__main__"}

    def cell(number: int, text: str) -> None:
        name = f"<ipython-input-{number}>"
        monkeypatch.setitem(linecache.cache, name, (len(text), None, text.splitlines(True), name))
        exec(compile(text, name, "exec"), names)

    def code_of(node: Any) -> str:
        node.get()
        record = artifact_of(node).read()
        assert record is not None
        return record.code

    cell(1, "def helper(): return 1")
    cell(2, "import furu\nclass Uses(furu.Furu[int]):\n    k: int\n    def _create(self): return helper()")
    before = code_of(names["Uses"](k=1))
    cell(3, "def helper(): return 2")
    assert "" != before != code_of(names["Uses"](k=2)) != ""


# ---- the same in every process ----

SCRIPT = (
    TRAIN
    + """
if __name__ == "__main__":
    import sys
    from furu import ProcessWorkers, catalog, current_settings, run_local
    nodes = [Train(of=number) for number in range(2)]
    run_local(nodes, workers=ProcessWorkers() if "processes" in sys.argv else None, max_workers=1)
    print(catalog.find(current_settings(), nodes[0].furu_hash).path.read_text())
"""
)


def run(folder: Path, *arguments: str, cwd: Path | None = None) -> str:
    """Run Python, and return the fingerprint in the record that it prints."""
    paths = [str(folder), str(Path(furu.__file__).parent.parent), *(path for path in sys.path if path)]
    store = folder / f"store-{len(list(folder.iterdir()))}"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "FURU_PATH": str(store)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd or folder,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_scripts_modules_and_processes_give_the_same_fingerprint(tmp_path: Path) -> None:
    """By path from another directory, with `-m`, imported, and in a process worker."""
    for name, text in {**FILES, "train.py": SCRIPT}.items():
        (tmp_path / name).write_text(text)
    code = "import train; print(train.Train._facts.provenance.code)"
    assert EXPECTED in run(tmp_path, "-c", code)
    for arguments in (["-m", "train"], [str(tmp_path / "train.py"), "processes"]):
        assert f'"code":"{EXPECTED}"' in run(tmp_path, *arguments, cwd=tmp_path.parent)


def test_threads_that_ask_at_once_get_the_fingerprint_of_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's parser fails in two threads at once. Classes in several large files are read."""
    monkeypatch.syspath_prepend(str(tmp_path))
    padding = "".join(
        f"def unused_{number}(a, b): return [a + b, (a, b), {{a: b}}]\n" for number in range(400)
    )
    classes = []
    for number in range(4):
        name = f"many_threads_{number}"
        (tmp_path / f"{name}.py").write_text(
            f"from furu import Furu\n{padding}\nclass Many(Furu[int]):\n    a: int\n"
        )
        classes.append(importlib.import_module(name).Many)
        monkeypatch.delitem(sys.modules, name)
    barrier = threading.Barrier(8)

    def read(number: int) -> str:
        barrier.wait()
        return fingerprint(classes[number % 4], time.time() + number // 4)

    def switch(phase: str, info: dict[str, int]) -> None:
        time.sleep(0)  # lets another thread run

    thresholds = gc.get_threshold()
    gc.callbacks.append(switch)  # Python code runs in the middle of parsing
    gc.set_threshold(50)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(read, range(8)))
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(switch)
    assert 1 == len(set(found))
    assert "" not in found

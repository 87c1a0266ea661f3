"""A class that is defined again in the same program, as in the cells of a notebook."""

from __future__ import annotations

import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from furu import use_settings

TRAIN = """
    class Train(Furu[int]):
        number: int = 1
        def _create(self) -> int:
            return self.number
    """

Cell = Callable[[str], None]


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cell]:
    """A function that runs a cell of a program without a file."""
    program = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", program)

    def run(text: str) -> None:
        code = compile(textwrap.dedent(text), "<cell>", "exec")
        exec(code, vars(program))

    with use_settings(store=tmp_path / "store"):
        run("from furu import Furu")
        yield run


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "furu.code"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("return self.number", "return -self.number"),
        ("number: int = 1", "number: int = 1\n        scale = 2"),
        ("def _create", "def helper(self):\n            return 2\n        def _create"),
    ],
)
def test_class_defined_again_with_other_code_warns_once(
    cell: Cell, caplog: pytest.LogCaptureFixture, before: str, after: str
) -> None:
    cell(TRAIN)
    cell("Train().get()")
    cell(TRAIN.replace(before, after))
    [message] = warnings(caplog)
    assert "__main__:Train was defined again with other code" in message
    assert "_version" in message
    cell("assert Train().get() == 1")
    assert 1 == len(warnings(caplog))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("number: int = 1", "number: int = 1"),
        ("number: int = 1", '"A docstring."\n\n        number: int = 2  # and a comment'),
        ("number: int = 1", "number: int = 1\n        _version = 1"),
        ("return self.number", '"A docstring."\n            return self.number'),
    ],
)
def test_same_code_and_another_version_do_not_warn(
    cell: Cell, caplog: pytest.LogCaptureFixture, before: str, after: str
) -> None:
    cell(TRAIN)
    cell("Train().get()")
    cell(TRAIN.replace(before, after))
    assert [] == warnings(caplog)


def test_class_whose_nodes_were_not_used_may_be_defined_again(
    cell: Cell, caplog: pytest.LogCaptureFixture
) -> None:
    cell(TRAIN)
    cell("Train()")
    cell(TRAIN.replace("return self.number", "return -self.number"))
    assert [] == warnings(caplog)

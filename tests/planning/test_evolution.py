"""A plan says how a class was edited, and which line would keep its artifacts."""

from __future__ import annotations

import dataclasses
import enum
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import furu
from furu import Furu, plan_local, run_local


def made(name: str, fields: dict[str, Any], **body: Any) -> type[Furu[Any]]:
    """Return a class with fields, given with their defaults. A default's type is the field's type."""
    annotations = {key: _type_of(default) for key, default in fields.items()}
    names = {"__annotations__": annotations, "__module__": __name__, "_create": lambda self: 1}
    return types.new_class(name, (Furu[Any],), {}, lambda space: space.update({**names, **fields, **body}))


def _type_of(default: Any) -> type:
    if isinstance(default, dataclasses.Field):
        return type(default.default_factory() if callable(default.default_factory) else default.default)
    return type(default)


def only(node: Furu[Any]) -> tuple[str, str]:
    """Return the reason and the advice of a plan for one node."""
    plan = plan_local([node])
    return str(plan.nodes[0]).partition(": ")[2], "".join(plan.advice.values())


def test_added_field_is_named_with_the_line_that_keeps_the_artifacts() -> None:
    before = made("Fit", {"lr": 0.1})
    run_local([before(), before(lr=0.2)])
    after = made("Fit", {"lr": 0.1, "stratify": False})
    line = "stratify: bool = furu.field(default=False, added=True)"
    assert ("field added: stratify", line) == only(after(lr=0.2))
    assert ("missing", "") == only(after(lr=0.3))
    kept = made("Fit", {"lr": 0.1, "stratify": furu.field(default=False, added=True)})
    assert 2 == plan_local([kept(), kept(lr=0.2)]).reused


def test_renamed_field_is_named_with_the_line_that_keeps_the_artifacts() -> None:
    run_local([made("Fit", {"lr": 0.1})()])
    after = made("Fit", {"rate": 0.1})
    line = 'rate: float = furu.field(default=0.1, known_as="lr")'
    assert ("field renamed: lr, rate", line) == only(after())
    kept = made("Fit", {"rate": furu.field(default=0.1, known_as="lr")})
    assert 1 == plan_local([kept()]).reused


SPLIT = """
import furu
class Split(furu.Furu[int]):
    seed: int = 1
    def _create(self):
        return self.seed
"""


def plan_in(directory: Path, source: str, node: str) -> str:
    """Plan a node of a module in another process, and return the reason and the advice."""
    (directory / "sweep.py").write_text(source)
    code = f"import furu, sweep; plan = furu.plan_local([sweep.{node}]); print(plan.nodes[0], plan.advice)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=directory, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture
def split_was_made(tmp_path: Path) -> Path:
    """A directory with a module, of which one node has been computed."""
    (tmp_path / "sweep.py").write_text(SPLIT)
    run = "import furu, sweep; furu.run_local([sweep.Split()])"
    subprocess.run([sys.executable, "-c", run], cwd=tmp_path, check=True)
    return tmp_path


def test_renamed_class_is_named_with_the_line_that_keeps_the_artifacts(split_was_made: Path) -> None:
    halves = SPLIT.replace("Split", "Halves")
    told = plan_in(split_was_made, halves, "Halves()")
    assert "looks renamed: sweep:Split" in told
    assert """'_name = "sweep:Split"'""" in told
    assert "missing" in plan_in(split_was_made, halves, "Halves(seed=2)")


def test_class_that_is_moved_and_changed_is_named(split_was_made: Path) -> None:
    """Its name is the same, and the file that defined it is gone."""
    (split_was_made / "sweep.py").rename(split_was_made / "nodes.py")
    source = "from nodes import Split"
    (split_was_made / "nodes.py").write_text(SPLIT.replace("self.seed", "self.seed + 1"))
    assert "looks renamed: sweep:Split" in plan_in(split_was_made, source, "Split()")


def test_class_that_is_merely_not_imported_is_not_taken_for_a_renamed_one(split_was_made: Path) -> None:
    (split_was_made / "sweep.py").rename(split_was_made / "other.py")
    run = "import furu, other; furu.run_local([other.Split()])"
    subprocess.run([sys.executable, "-c", run], cwd=split_was_made, check=True)
    halves = SPLIT.replace("Split", "Halves").replace("self.seed", "-self.seed")
    assert "missing" in plan_in(split_was_made, halves, "Halves()")


def test_class_with_other_code_is_not_taken_for_a_renamed_one(split_was_made: Path) -> None:
    halves = SPLIT.replace("Split", "Halves").replace("self.seed", "-self.seed")
    assert "missing" in plan_in(split_was_made, halves, "Halves()")


def test_added_field_with_another_value_is_missing() -> None:
    """The older artifacts were computed with the default."""
    run_local([made("Fit", {"lr": 0.1})()])
    after = made("Fit", {"lr": 0.1, "stratify": False})
    assert ("missing", "") == only(after(stratify=True))


class Kind(enum.Enum):
    FAST = 1


def test_printed_lines_are_python() -> None:
    run_local([made("Fit", {"lr": 0.1})()])
    after = made("Fit", {"lr": 0.1, "kind": Kind.FAST})
    assert "kind: Kind = furu.field(default=Kind.FAST, added=True)" == only(after())[1]
    run_local([made("Names", {"one": dataclasses.field(default_factory=list)})()])
    renamed = made("Names", {"other": dataclasses.field(default_factory=list)})
    assert only(renamed())[1].endswith('furu.field(default_factory=list, known_as="one")')


def test_class_that_exists_is_not_taken_for_a_renamed_one() -> None:
    split = made("Split", {"seed": 1})
    run_local([split()])
    assert ("missing", "") == only(made("Halves", {"seed": 1})())


def test_hidden_fields_are_not_compared() -> None:
    """Two nodes may differ in what is not recorded."""
    token = {"token": furu.field(default="a", repr=False)}
    run_local([made("Query", {**token})()])
    assert ("missing", "") == only(made("Query", {**token, "limit": 1})(token="b"))


def test_plan_prints_the_advice_once_for_a_class(capsys: pytest.CaptureFixture[str]) -> None:
    before = made("Fit", {"lr": 0.1})
    run_local([before(), before(lr=0.2)])
    after = made("Fit", {"lr": 0.1, "stratify": False})
    lines = str(plan_local([after(), after(lr=0.2)])).splitlines()
    assert f"  {__name__}:Fit: 2 field added" in lines
    field = "stratify: bool = furu.field(default=False, added=True)"
    advice = f"    to keep the older artifacts, write in the class: {field}"
    assert [advice] == [line for line in lines if "older artifacts" in line]

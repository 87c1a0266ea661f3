"""A plan says how a class was edited, and which line would keep its artifacts."""

from __future__ import annotations

import subprocess
import sys
import types
from typing import Any

import pytest

import furu
from furu import Furu, plan_local, run_local


def made(name: str, fields: dict[str, Any], **body: Any) -> type[Furu[Any]]:
    """Return a class with fields, given with their defaults. A default's type is the field's type."""
    annotations = {key: type(getattr(default, "default", default)) for key, default in fields.items()}
    names = {"__annotations__": annotations, "__module__": __name__, "_create": lambda self: 1}
    return types.new_class(name, (Furu[Any],), {}, lambda space: space.update({**names, **fields, **body}))


def in_another_process(code: str) -> None:
    """Run code in a process whose classes end with it."""
    subprocess.run([sys.executable, "-c", f"import furu\n{code}"], check=True)


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


def test_renamed_class_is_named_with_the_line_that_keeps_the_artifacts() -> None:
    in_another_process(
        "class Split(furu.Furu[int]):\n    seed: int = 1\n    def _create(self): return 1\n"
        f"    __module__ = {__name__!r}\n"
        "furu.run_local([Split()])"
    )
    halves = made("Halves", {"seed": 1})
    assert (f"looks renamed: {__name__}:Split", f'_name = "{__name__}:Split"') == only(halves())
    assert ("missing", "") == only(halves(seed=2))
    kept = made("Halves", {"seed": 1}, _name=f"{__name__}:Split")
    assert 1 == plan_local([kept()]).reused


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

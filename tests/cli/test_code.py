"""What the commands show about the code that made artifacts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from furu import run_local, use_settings
from furu.cli.app import app

SOURCE = """
from furu import Furu
class Train(Furu[int]):
    number: int
    def _create(self) -> int:
        return self.number
roots = [Train(number=number) for number in range(3)]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with use_settings(store=tmp_path / "store"):
        yield tmp_path
    sys.modules.pop("coded", None)


def write(project: Path, text: str) -> Any:
    sys.modules.pop("coded", None)
    (project / "coded.py").write_text(text)
    return __import__("coded")


def output(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, prog_name="furu")
    assert 0 == result.exit_code, result.output
    return " ".join(result.output.split())


def test_show_explain_and_status_describe_the_code(project: Path) -> None:
    first = write(project, SOURCE)
    run_local(first.roots[:2])
    second = write(project, SOURCE.replace("return self.number", "return -self.number"))
    run_local(second.roots)
    shown = output("show", second.roots[2].furu_hash)
    assert "made by code " in shown
    assert f"Python {sys.version.split()[0]}, furu " in shown
    assert "coded.py" in shown
    assert "made by other code: code " in output("explain", second.roots[2].furu_hash)
    assert "coded:Train: made by 2 versions of its code" in output("status")
    assert 2 == json.loads(output("status", "--json"))["classes"]["coded:Train"]["codes"]
    made_by = json.loads(output("show", "--json", second.roots[2].furu_hash))["made_by"]
    assert made_by["source"] == str(project / "coded.py")


def test_plan_and_run_take_the_option(project: Path) -> None:
    run_local(write(project, SOURCE).roots)
    write(project, SOURCE.replace("return self.number", "return -self.number"))
    assert "coded:Train: 3 of 3 made by other code" in output("plan", "coded:roots")
    assert "3 made by other code" in output("plan", "coded:roots", "--on-code-change", "recompute")
    ignored = output("plan", "coded:roots", "--on-code-change", "ignore")
    assert "made by other code" not in ignored
    again = ("run", "coded:roots", "--no-progress", "--on-code-change", "recompute", "--json")
    assert 3 == json.loads(output(*again))["computed"]
    assert 0 == json.loads(output(*again))["computed"]

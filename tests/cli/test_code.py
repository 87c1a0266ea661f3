"""What the commands show about the code that made artifacts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from furu import current_settings, run_local, use_settings
from furu.cli import main

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


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_info:
        main(list(arguments))
    assert exit_info.value.code in (None, 0)
    return " ".join(capsys.readouterr().out.split())


def test_show_explain_and_status_describe_the_code(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write(project, SOURCE)
    run_local(first.roots[:2])
    second = write(project, SOURCE.replace("return self.number", "return -self.number"))
    run_local(second.roots)
    shown = output(capsys, "show", second.roots[2].furu_hash)
    assert "made by code " in shown
    assert f"Python {sys.version.split()[0]}, furu " in shown
    assert "coded.py" in shown
    assert "made by other code: code " in output(capsys, "explain", second.roots[2].furu_hash)
    assert "coded:Train: made by 2 versions of its code" in output(capsys, "status")
    assert 2 == json.loads(output(capsys, "status", "--json"))["classes"]["coded:Train"]["codes"]
    made_by = json.loads(output(capsys, "show", "--json", second.roots[2].furu_hash))["made_by"]
    assert made_by["source"] == str(project / "coded.py")
    assert current_settings().store == project / "store"


def test_plan_and_run_take_the_option(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_local(write(project, SOURCE).roots)
    write(project, SOURCE.replace("return self.number", "return -self.number"))
    assert "coded:Train: 3 of 3 made by other code" in output(capsys, "plan", "coded:roots")
    assert "3 made by other code" in output(capsys, "plan", "coded:roots", "--on-code-change", "recompute")
    ignored = output(capsys, "plan", "coded:roots", "--on-code-change", "ignore")
    assert "made by other code" not in ignored
    again = ("run", "coded:roots", "--no-progress", "--on-code-change", "recompute", "--json")
    assert 3 == json.loads(output(capsys, *again))["computed"]
    assert 0 == json.loads(output(capsys, *again))["computed"]

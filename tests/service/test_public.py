"""The public names of `furu.service`, which needs only the dependencies of furu itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import furu.service

CONSUMER = Path(__file__).parents[2] / "docs" / "examples" / "queue_consumer.py"
EXTRAS = ["distributed", "opentelemetry", "rich", "starlette", "typer"]


def test_queue_consumer_runs_without_any_extra(tmp_path: Path) -> None:
    code = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({EXTRAS}))  # each of these imports would raise
runpy.run_path({str(CONSUMER)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (0, "") == (done.returncode, done.stderr)
    assert "4 messages, 5 nodes computed" in done.stdout


def test_public_names_are_those_in_all() -> None:
    public = {
        name
        for name, value in vars(furu.service).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("furu.service.")
    }
    assert sorted(public) == furu.service.__all__

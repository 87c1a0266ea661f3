"""Helpers that run nodes in child processes or in a separate program."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import furu
from furu import (
    Furu,
    run_local,
)
from furu.execution.workers import ProcessWorkers


def run_in_one_child(*nodes: Furu[Any]) -> furu.RunReport:
    """Run nodes one after another in the same child process."""
    return run_local(nodes, workers=ProcessWorkers(), max_workers=1)


def environment() -> dict[str, str]:
    """Return environment variables with which a program can import furu."""
    paths = [str(Path(furu.__file__).parent.parent), *(path for path in sys.path if path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def run_script(source: str, folder: Path, *options: str, **arguments: Any) -> str:
    """Run a program in a folder, and return its output."""
    (folder / "script.py").write_text(textwrap.dedent(source))
    done = subprocess.run(
        [sys.executable, *options, "script.py"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        **arguments,
    )
    assert (0, "") == (done.returncode, done.stderr), done.stdout
    return done.stdout

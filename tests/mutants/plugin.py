"""A pytest plugin that checks that the tests and their child processes use the copy of the sources."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# The environment variable with the directory of the copy.
VARIABLE = "FURU_MUTANT"
_WHERE = "import furu; print(furu.__file__)"


def pytest_sessionstart() -> None:
    """Raise `UsageError` if another furu is imported, because the tests would not run on the mutant."""
    import furu

    child = subprocess.run([sys.executable, "-c", _WHERE], capture_output=True, text=True, check=True)
    copy = Path(os.environ[VARIABLE], "furu", "__init__.py")
    for file in (furu.__file__, child.stdout.strip()):
        if Path(file) != copy:
            raise pytest.UsageError(f"furu is imported from {file}, not from {copy}")

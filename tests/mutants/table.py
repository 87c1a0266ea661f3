"""The table of all mutants."""

from __future__ import annotations

from tests.mutants.running import RUNNING
from tests.mutants.store import STORE

MUTANTS = (*STORE, *RUNNING)

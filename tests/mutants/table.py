"""The forty mutants."""

from __future__ import annotations

from .running import RUNNING
from .store import STORE

MUTANTS = (*STORE, *RUNNING)

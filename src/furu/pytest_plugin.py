"""Fixtures for tests of nodes. pytest finds them if furu is installed."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def furu_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a store for this test only, also in its threads and processes. The first node that is
    computed makes the store."""
    path = tmp_path / "furu-store"
    monkeypatch.setenv("FURU_PATH", str(path))
    return path

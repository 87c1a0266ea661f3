"""Fixtures for tests of nodes. pytest loads them if furu is installed."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def furu_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a store that only this test uses, with its threads and child processes. The directory is
    created when the first node is computed."""
    path = tmp_path / "furu-store"
    monkeypatch.setenv("FURU_PATH", str(path))
    return path

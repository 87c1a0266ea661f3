"""Fixtures for tests of nodes; pytest finds them where furu is installed."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def furu_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of this test alone: where it is. It is made by the first node that is computed, also in a
    thread or a process of the test's."""
    path = tmp_path / "furu-store"
    monkeypatch.setenv("FURU_PATH", str(path))
    return path

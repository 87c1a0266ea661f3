"""What every test gets: a store of its own, both async backends, and a guard against blocking the loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of this test alone."""
    path = tmp_path / "store"
    monkeypatch.setenv("FURU_PATH", str(path))
    return path


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test runs on both backends."""
    backend: str = request.param
    return backend


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """A blocking call of furu's on an asyncio loop is an error."""
    with blockbuster_ctx("furu") as guard:
        yield guard

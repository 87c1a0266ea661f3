"""Fixtures for all tests: a separate store, both async backends, and a guard against blocking the loop."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from tests.workers.nodes import Gate

# Under nohup, this process and its children would ignore SIGINT, but tests send SIGINT to children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own store, set by FURU_PATH."""
    path = tmp_path / "store"
    monkeypatch.setenv("FURU_PATH", str(path))
    return path


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every async test on both backends."""
    backend: str = request.param
    return backend


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """Raise an error if furu makes a blocking call on an asyncio loop."""
    with blockbuster_ctx("furu") as guard:
        for function in guard.functions.values():
            # The garbage collector may run finalizers of Dask's semaphores while code of furu runs.
            function.can_block_in("multiprocessing/util.py", "__call__")
        yield guard


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate in its own folder."""
    folder = tmp_path / "gate"
    folder.mkdir()
    gate = Gate(folder)
    yield gate
    gate.close()


@pytest.fixture(scope="module")
def dask_cluster() -> Iterator[Any]:
    """A Dask cluster with two worker processes of one thread each."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=":0",
        resources={"GPU": 1},
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def dask_client(dask_cluster: Any) -> Iterator[Any]:
    """A synchronous client of the cluster."""
    distributed = pytest.importorskip("distributed")
    with distributed.Client(dask_cluster, set_as_default=False) as client:
        yield client

"""A Dask cluster of two worker processes: kinds of clients, what is sent, lost workers, and bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from furu import (
    Furu,
    FuruComputeError,
    FuruTimeoutError,
    FuruUsageError,
    FuruWorkerError,
    RunReport,
    Status,
    run_local,
    run_local_async,
)
from furu.execution.workers import DaskWorkers
from tests.workers.nodes import Act, Gate, Late

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")


@pytest.fixture
def anyio_backend() -> str:
    """Dask runs on asyncio only."""
    return "asyncio"


async def run_on(workers: DaskWorkers, *nodes: Furu[Any], **options: Any) -> RunReport:
    return await run_local_async(nodes, workers=workers, **options)


# ---- clients ----


@pytest.mark.anyio
async def test_asynchronous_client_is_used_on_its_own_loop(dask_cluster: Any) -> None:
    address = dask_cluster.scheduler_address
    async with distributed.Client(address, asynchronous=True, set_as_default=False) as client:
        node = Act(does="sum", below=(Act(does="sum a"), Act(does="sum b")))
        assert 3 == (await run_on(DaskWorkers(client), node)).computed


@pytest.mark.anyio
async def test_scheduler_may_be_given_by_address(dask_cluster: Any) -> None:
    """The run creates a client and closes it."""
    before = set(dask_cluster.scheduler.clients)
    assert 1 == (await run_on(DaskWorkers(dask_cluster.scheduler_address), Act(does="sum"))).computed
    assert set() == {
        name for name in set(dask_cluster.scheduler.clients) - before if name != "fire-and-forget"
    }


def test_asynchronous_client_of_a_stopped_loop_is_rejected(dask_cluster: Any) -> None:

    async def make() -> Any:
        address = dask_cluster.scheduler_address
        client = await distributed.Client(address, asynchronous=True, set_as_default=False)
        await client.close()
        return client

    client = anyio.run(make)
    with pytest.raises(FuruUsageError, match="belongs to another event loop"):
        run_local([Act(does="sum")], workers=DaskWorkers(client))


def test_trio_is_rejected(dask_client: Any) -> None:
    with pytest.raises(FuruUsageError, match="need asyncio"):
        anyio.run(run_on, DaskWorkers(dask_client), Act(does="sum"), backend="trio")
    assert Status.TODO == Act(does="sum").status()


# ---- what is sent ----


def test_hash_is_in_the_key_and_resources_go_with_the_spec_key(
    dask_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pure` is false, so that Dask does not mistake a new task for one that it knows."""
    sent: list[dict[str, Any]] = []
    submit = dask_client.submit

    def record(*arguments: Any, **options: Any) -> Any:
        sent.append(options)
        return submit(*arguments, **options)

    monkeypatch.setattr(dask_client, "submit", record)
    plain, special = Act(does="sum"), Act(does="pid", kind="gpu")
    run_local([plain, special], workers=DaskWorkers(dask_client, resources={"gpu": {"GPU": 1}}))
    by_hash = {
        node.furu_hash: options
        for node in (plain, special)
        for options in sent
        if node.furu_hash in options["key"]
    }
    assert [None, {"GPU": 1}] == [by_hash[node.furu_hash]["resources"] for node in (plain, special)]
    assert [False, False] == [options["pure"] for options in sent]


def test_spec_key_without_resources_is_the_nodes_error(dask_client: Any) -> None:
    node = Act(does="sum", kind="gpus")
    with pytest.raises(FuruComputeError, match=r"'gpus'.*only for \['gpu'\]"):
        run_local([node], workers=DaskWorkers(dask_client, resources={"gpu": {"GPU": 1}}))
    assert Status.TODO == node.status()


def test_class_that_workers_cannot_import_is_the_nodes_error(dask_client: Any) -> None:
    """The error suggests threads instead."""

    class Local(Furu[int]):
        def _create(self) -> int:
            return 1

    with pytest.raises(FuruComputeError, match=r"another process cannot import it.*threads"):
        run_local([Local()], workers=DaskWorkers(dask_client))


# ---- runs that fail ----


@pytest.mark.anyio
async def test_failed_run_does_not_wait_for_its_workers(dask_client: Any, gate: Gate) -> None:
    """Running nodes finish on their workers and are published."""
    held, failing = Act(does="gate", folder=gate.folder), Act(does="fail")
    workers = DaskWorkers(dask_client)

    async def run() -> None:
        with pytest.raises(FuruComputeError, match="bad split"):
            await run_on(workers, held, failing)

    await run()
    await gate.wait_for_arrival()
    assert Status.IN_PROGRESS == await anyio.to_thread.run_sync(held.status)
    gate.open()
    assert 0 == (await run_on(workers, held, poll_interval_sec=0.01)).failed
    assert Status.DONE == await anyio.to_thread.run_sync(held.status)


# ---- workers that are lost, or late ----
# These tests kill workers, so they are the last ones that use the cluster.


def test_node_of_a_lost_worker_does_not_fail(dask_client: Any, tmp_path: Path) -> None:
    """Another worker computes the node."""
    node = Act(does="die_once", folder=tmp_path)
    report = run_local([node, Act(does="sum")], workers=DaskWorkers(dask_client), poll_interval_sec=0.01)
    assert (2, 0, 0) == (report.computed, report.failed, report.retried)
    assert "survived" == node.get()


def test_node_that_kills_every_worker_fails(
    dask_cluster: Any, dask_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node fails after the number of lost workers that the cluster allows."""
    monkeypatch.setattr(dask_cluster.scheduler, "allowed_failures", 0)
    node = Act(does="die kill")
    with pytest.raises(FuruComputeError, match="1 Dask worker died while computing it") as caught:
        run_local([node], workers=DaskWorkers(dask_client), poll_interval_sec=0.01)
    assert isinstance(caught.value.__cause__, FuruWorkerError)
    assert Status.FAILED == node.status()


def test_node_that_takes_too_long_is_stopped_with_its_worker(dask_client: Any, gate: Gate) -> None:
    """The time limit counts from the start of the node. The cluster then starts a new worker."""
    node = Late(does="gate", folder=gate.folder)
    with pytest.raises(FuruComputeError) as caught:
        run_local([node], workers=DaskWorkers(dask_client))
    assert isinstance(caught.value.__cause__, FuruTimeoutError)
    assert caught.value.state_path is not None
    assert "failed" == json.loads(caught.value.state_path.read_text())["outcome"]
    assert Status.FAILED == node.status()
    assert 2 == run_local([Act(does="sum"), Act(does="pid")], workers=DaskWorkers(dask_client)).computed


# ---- bad input ----


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(FuruUsageError, match=r"install furu\[dask\]"):
        DaskWorkers("tcp://127.0.0.1:1")


@pytest.mark.parametrize("client", [None, 7, object()])
def test_non_clients_are_rejected(client: Any) -> None:
    with pytest.raises(FuruUsageError, match="Client or the address"):
        DaskWorkers(client)


@pytest.mark.parametrize(
    "resources", ["gpu", {"gpu": 1}, {1: {"GPU": 1}}, {"gpu": {"GPU": 0}}, {"gpu": {"GPU": True}}]
)
def test_bad_resources_are_rejected(resources: Any) -> None:
    with pytest.raises(FuruUsageError, match="resources must map spec keys"):
        DaskWorkers("tcp://127.0.0.1:1", resources=resources)


def test_address_without_a_scheduler_is_the_nodes_error() -> None:
    node = Act(does="sum")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "100ms"}),
        pytest.raises(FuruComputeError, match="no Dask scheduler answers"),
    ):
        run_local([node], workers=DaskWorkers("tcp://127.0.0.1:1"))
    assert Status.TODO == node.status()

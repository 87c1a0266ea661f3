"""Workers on a Dask cluster, for work that is too large for one machine. Dask chooses the worker for each
node; the run's scheduler still decides which nodes are ready and in which order they start. All workers
share the store, which remains the source of truth.

Dask is called on the event loop of its client. An asynchronous client uses the run's loop, a synchronous
client a loop in another thread.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import anyio
from anyio.abc import TaskGroup

from furu._common.loops import in_thread
from furu.context import REPORT_ADVANCE, Advance
from furu.errors import FuruError, FuruUsageError, FuruWorkerError
from furu.execution.workers.base import Crew, Deliver, Job, Outcome
from furu.execution.workers.call import dead_outcome, failed_outcome
from furu.execution.workers.remote import Reply, Request, compute, make_request, outcome_of
from furu.execution.workers.tasks import TaskCrew
from furu.node.base import describe, timeout_sec_of
from furu.node.failure import timeout_error

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["DaskWorkers"]

_CANCEL_POLL_SEC = 0.01


class _TookTooLong(Exception):
    """A node exceeded its `_timeout_sec`, and its worker was killed."""


class DaskWorkers:
    """Computes nodes on the workers of a Dask cluster, at most `max_workers` at once.

    `client_or_address` is a `distributed.Client`, synchronous or asynchronous, or the address of a
    scheduler, such as ``"tcp://10.0.0.1:8786"``. `resources` maps spec keys to the resources that their
    nodes need, in Dask's terms: ``{"gpu": {"GPU": 1}}``. If `resources` is given, it must contain every
    spec key except ``"default"``. Without `resources`, any worker may compute any node.

    All workers must see the store under the same path, and run the same code. Each worker process is an
    owner in the store. The current settings are sent with each node. A node's output goes to the output of
    its worker. If a worker is lost, Dask gives its nodes to other workers. If a node loses more than
    `distributed.scheduler.allowed-failures` workers, it fails with `FuruWorkerError`.

    If the run stops or is cancelled, its Dask tasks are cancelled. Nodes that no worker has begun are not
    computed. Nodes that are being computed finish and publish, but the run does not wait for them.

    If a node exceeds its `_timeout_sec`, the process of its worker is ended. Dask's nanny starts another
    process, and Dask gives the worker's other nodes to other workers.

    Async nodes still run on the event loop of the run. Needs the extra `dask`, and asyncio.

    Raises `FuruUsageError` if `distributed` is not installed, or an argument is wrong.
    """

    def __init__(
        self,
        client_or_address: Client | str,
        *,
        resources: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        distributed = _distributed()
        if not isinstance(client_or_address, (str, distributed.Client)):
            raise FuruUsageError(
                "DaskWorkers takes a distributed.Client or the address of a Dask scheduler, not "
                f"{client_or_address!r}"
            )
        self._client_or_address = client_or_address
        self._resources = _checked(resources)

    def open(self, tasks: TaskGroup, deliver: Deliver, *, max_workers: int, stop_on_failure: bool) -> Crew:
        """Open a crew for a run. If an address was given, the crew connects when the first node is ready.

        Raises `FuruUsageError` if the loop is not asyncio's, or if the client's own loop is not running.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise FuruUsageError("DaskWorkers need asyncio: Dask does not run on trio") from None
        client: Any = self._client_or_address
        if not isinstance(client, str):
            own = client.loop.asyncio_loop
            if own is not loop and not own.is_running():
                raise FuruUsageError(
                    "this distributed.Client belongs to another event loop, which does not run: make it on "
                    "the loop that awaits run_local_async(...), or give DaskWorkers the scheduler's address"
                )
        return _DaskCrew(
            tasks,
            deliver,
            client,
            self._resources,
            max_workers=max_workers,
            stop_on_failure=stop_on_failure,
        )


class _DaskCrew(TaskCrew):
    def __init__(
        self,
        tasks: TaskGroup,
        deliver: Deliver,
        client_or_address: Any,
        resources: Mapping[str, Mapping[str, float]] | None,
        *,
        max_workers: int,
        stop_on_failure: bool,
    ) -> None:
        super().__init__("dask", tasks, deliver, max_workers=max_workers, stop_on_failure=stop_on_failure)
        self._link = _Link(client_or_address)
        self._resources = resources
        tasks.start_soon(self._keep)

    def stop(self, *, cancel: bool) -> None:
        """Send no more nodes, and cancel the nodes that were sent."""
        super().stop(cancel=cancel)
        self.abandon()

    async def _compute(self, job: Job) -> Outcome:
        started = time.monotonic()
        try:
            resources = self._needed(job)
            request = await in_thread(make_request, job, "dask")
            reply = await self._link.ask(
                request,
                f"{job.name}-{job.key}-{secrets.token_hex(4)}",  # unique: a cancelled task may still run
                resources=resources,
                timeout_sec=timeout_sec_of(job.node),
            )
        except FuruWorkerError as error:
            return await in_thread(dead_outcome, job, error, started)
        except _TookTooLong:
            return await in_thread(dead_outcome, job, timeout_error(job.node), started)
        except Exception as error:
            return failed_outcome(job, error, started)
        return outcome_of(job, reply)

    def _needed(self, job: Job) -> Mapping[str, float] | None:
        if self._resources is None or (job.spec_key == "default" and "default" not in self._resources):
            return None
        try:
            return self._resources[job.spec_key]
        except KeyError:
            raise FuruUsageError(
                f"{describe(job.node)} has the spec key {job.spec_key!r}, but the resources of DaskWorkers "
                f"are only for {sorted(self._resources)}: add the resources that {job.spec_key!r} needs"
            ) from None

    async def _keep(self) -> None:
        """Keep the connection until the run ends, and then close it."""
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                self.abandon()
                await self.wait_all_left()
                await self._link.close()


class _Link:
    """The connection to a Dask scheduler: the user's client, or a client created for this run."""

    def __init__(self, client_or_address: Any) -> None:
        self._given = client_or_address
        self._lock = anyio.Lock()
        self._client: Any = None
        # Dask's topic for what nodes report with `furu.progress`.
        self._topic = f"furu-{secrets.token_hex(8)}"
        self._report = REPORT_ADVANCE.get()

    async def ask(
        self,
        request: Request,
        key: str,
        *,
        resources: Mapping[str, float] | None,
        timeout_sec: float | None,
    ) -> Reply:
        """Let the cluster compute a request. Raises `FuruWorkerError` if too many workers were lost, and
        `_TookTooLong` if a worker took longer than `timeout_sec` and was killed."""
        client = await self._connected()
        if timeout_sec is None:
            work = _ask(client, _compute, request, self._topic, key=key, resources=resources)
        else:
            work = _ask_in_time(
                client, request, self._topic, key=key, resources=resources, timeout_sec=timeout_sec
            )
        loop = client.loop.asyncio_loop
        if loop is asyncio.get_running_loop():
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))

    async def close(self) -> None:
        """Close the client, unless it belongs to the user."""
        if self._client is None:
            return
        if self._client is not self._given:
            await self._client.close()
        else:
            self._client.unsubscribe_topic(self._topic)

    async def _connected(self) -> Any:
        async with self._lock:
            if self._client is None:
                self._client = await self._connect()
                self._client.subscribe_topic(self._topic, self._advanced)
        return self._client

    def _advanced(self, event: tuple[float, Any]) -> None:
        """Pass on a report. Called on the client's loop."""
        key, advance = event[1]
        if self._report is not None:
            self._report(key, Advance(*advance))

    async def _connect(self) -> Any:
        if not isinstance(self._given, str):
            return self._given
        client: Any = _distributed().Client(self._given, asynchronous=True, set_as_default=False)
        try:
            return await client
        except (OSError, ValueError) as error:
            await client.close()
            raise FuruError(f"no Dask scheduler answers at {self._given!r}: {error}") from error


# ---- on the client's loop ----


async def _ask(
    client: Any,
    function: Callable[..., Reply],
    *arguments: object,
    key: str,
    resources: Mapping[str, float] | None,
) -> Reply:
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    future = client.submit(function, *arguments, key=key, pure=False, resources=resources)
    gathering = asyncio.ensure_future(client.gather([future], asynchronous=True))
    try:
        (reply,) = await asyncio.shield(gathering)
    except asyncio.CancelledError:
        # The Dask task is cancelled, not `gather`: a cancelled `gather` leaves its tasks running unnoticed.
        await client.cancel([future], asynchronous=True)
        await asyncio.gather(gathering, return_exceptions=True)
        raise
    except KilledWorker as error:
        count = error.allowed_failures + 1
        raise FuruWorkerError(f"{count} Dask worker{'s'[: count > 1]} died while computing it") from error
    except FutureCancelledError as error:
        raise FuruError(f"Dask gave up the task: {error}") from error
    finally:
        future.release()
    return cast(Reply, reply)


async def _ask_in_time(
    client: Any,
    request: Request,
    topic: str,
    *,
    key: str,
    resources: Mapping[str, float] | None,
    timeout_sec: float,
) -> Reply:
    """Like `_ask`, with a time limit. The time starts when a worker reports that it begins the node, and
    starts again if another worker begins it later. A worker that exceeds the limit is killed."""
    begun: asyncio.Queue[str] = asyncio.Queue()
    client.subscribe_topic(key, lambda event: begun.put_nowait(event[1]))
    reply = asyncio.ensure_future(
        _ask(client, _tell_and_compute, request, key, topic, key=key, resources=resources)
    )
    address = None
    news = asyncio.ensure_future(begun.get())
    try:
        while True:
            limit_sec = None if address is None else timeout_sec
            await asyncio.wait({reply, news}, timeout=limit_sec, return_when=asyncio.FIRST_COMPLETED)
            if reply.done():
                return reply.result()
            if not news.done():
                break
            address, news = news.result(), asyncio.ensure_future(begun.get())
    finally:
        news.cancel()
        client.unsubscribe_topic(key)
        if not reply.done():
            reply.cancel()
            await asyncio.wait({reply})
    # Wait until Dask's scheduler has processed the cancellation, which it does not report. If the worker
    # were killed earlier, Dask would give its node to another worker.
    while any(key in keys for keys in (await client.processing()).values()):  # noqa: ASYNC110
        await asyncio.sleep(_CANCEL_POLL_SEC)
    # Only the end of the process ends the node's thread. A nanny starts another worker, and Dask gives the
    # other tasks of this worker to other workers.
    await client.run(os._exit, 1, workers=[address], on_error="ignore", asynchronous=True)
    raise _TookTooLong


# ---- on a worker ----


def _tell_and_compute(request: Request, key: str, topic: str) -> Reply:
    from distributed import get_worker

    worker = get_worker()
    worker.log_event(key, worker.address)
    return _compute(request, topic)


def _compute(request: Request, topic: str) -> Reply:
    from distributed import get_worker

    worker = get_worker()

    def report(key: str, advance: Advance) -> None:
        worker.log_event(topic, (key, (advance.done, advance.total, advance.unit)))

    token = REPORT_ADVANCE.set(report)
    try:
        return compute(request)
    finally:
        REPORT_ADVANCE.reset(token)


# ---- arguments ----


def _distributed() -> ModuleType:
    try:
        import distributed
    except ImportError as error:
        raise FuruUsageError(
            f"DaskWorkers need the package distributed ({error}): install furu[dask]"
        ) from error
    return distributed


def _checked(
    resources: Mapping[str, Mapping[str, float]] | None,
) -> Mapping[str, Mapping[str, float]] | None:
    allowed = 'resources must map spec keys to what they need of a worker, such as {"gpu": {"GPU": 1}}'
    if resources is None:
        return None
    if not isinstance(resources, Mapping):
        raise FuruUsageError(f"{allowed}, not {resources!r}")
    for spec_key, needed in resources.items():
        if not isinstance(spec_key, str) or not isinstance(needed, Mapping):
            raise FuruUsageError(f"{allowed}, not {resources!r}")
        for name, amount in needed.items():
            is_number = isinstance(amount, (int, float)) and not isinstance(amount, bool)
            if not isinstance(name, str) or not is_number or not 0 < amount < float("inf"):
                raise FuruUsageError(f"{allowed}; {spec_key!r} asks for {name!r}: {amount!r}")
    return {spec_key: dict(needed) for spec_key, needed in resources.items()}

"""Processes of this machine, for pure-Python nodes, which the interpreter's lock keeps from running side
by side in threads. Also for nodes that crash, leak, or must be stopped: a process can be killed.

Not through `anyio.to_process`: its children are killed when a loop ends, so each would leave its owner
file in the store; a child that is cancelled while it starts is left; how one died cannot be known; a main
module that was started with `python -m` cannot be had in it; and its messages share the descriptor that
programs started by a node print to.
"""

from __future__ import annotations

import contextlib
import multiprocessing.spawn
import pickle
import signal
import sys
import time
from typing import Any

import anyio
from anyio.abc import Process, TaskGroup
from anyio.streams.buffered import BufferedByteReceiveStream

from furu.core import describe, end_of_dead, timeout_error
from furu.errors import FuruCancelledError, FuruError, FuruUsageError, FuruWorkerError
from furu.execution.workers.base import Crew, Deliver, Job, Outcome
from furu.execution.workers.call import dead_outcome, failed_outcome
from furu.execution.workers.child import LENGTH_BYTES, is_preparing
from furu.execution.workers.remote import Reply, make_request, outcome_of
from furu.execution.workers.tasks import TaskCrew
from furu.loops import in_thread, shielded

_COMMAND = "import sys; sys.path[:] = sys.argv[1:]; from furu.execution.workers.child import main; main()"
# What a child needs of the parent: not its directory, which it inherits, nor its keys.
_PREPARATION = ("sys_path", "sys_argv", "orig_dir", "init_main_from_name", "init_main_from_path")
# How long a child that is no longer needed may take to end: its `atexit` functions, its own threads.
_EXIT_SEC = 5.0
_LOST = (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError)


class ProcessWorkers:
    """Computes nodes in child processes, at most `max_workers` of a run at once, one node each at a time.

    Children are started when there is work for them, with the program's main module imported under another
    name (so a script needs the usual ``if __name__ == "__main__":``), and end with the run. Each is an
    owner of its own in the store. Settings in force go with each node; the host's context variables and
    its logging configuration cannot. What a node prints goes to its attempt's log, `furu.log`.

    A node and all nodes below it cross to the child, each once, without recursion; the error of a node
    comes back with its traceback as text. A child that dies fails its node with `FuruWorkerError`, and
    another takes its place. A cancelled run kills its children; so does a `_timeout_sec` that is over.

    Async nodes are not computed in processes, but on the event loop, as ever.

    >>> from furu import run_local
    >>> from furu.execution.workers import ProcessWorkers
    >>> run_local([], workers=ProcessWorkers()).computed
    0
    """

    def open(self, tasks: TaskGroup, deliver: Deliver, *, max_workers: int, stop_on_failure: bool) -> Crew:
        """Begin a run; children are started when there is work for them.

        Raises `FuruUsageError` in a child that is importing the program's main module.
        """
        if is_preparing():
            raise FuruUsageError(
                "a run with ProcessWorkers was started while a child process imports the program's main "
                'module. Put what the program does under `if __name__ == "__main__":`'
            )
        return _ProcessCrew(tasks, deliver, max_workers=max_workers, stop_on_failure=stop_on_failure)


class _ProcessCrew(TaskCrew):
    def __init__(
        self, tasks: TaskGroup, deliver: Deliver, *, max_workers: int, stop_on_failure: bool
    ) -> None:
        super().__init__(
            "process", tasks, deliver, max_workers=max_workers, stop_on_failure=stop_on_failure
        )
        self._idle: list[_Child] = []
        self._closing = False
        tasks.start_soon(self._keep)

    def stop(self, *, cancel: bool) -> None:
        """Begin nothing more; with `cancel`, kill what computes."""
        super().stop(cancel=cancel)
        if cancel:
            self.abandon()

    async def _cancelled(self, job: Job, started: float) -> Outcome:
        return await shielded(_cancelled_outcome, job, started)

    async def _compute(self, job: Job, scope: anyio.CancelScope) -> Outcome:
        started = time.monotonic()
        try:
            request = await in_thread(_packed, job)
            child = self._idle.pop() if self._idle else await _Child.start()
        except Exception as error:
            return failed_outcome(job, error, started)
        reply: Reply | None = None
        try:
            with anyio.move_on_after(job.node._timeout_sec):
                reply = await child.ask(request)
        except _LOST:
            code = await child.end()
            dead = FuruWorkerError(
                f"the process that computed {describe(job.node)} {_way_to_die(code)}", exit_code=code
            )
            return await in_thread(dead_outcome, job, dead, started)
        except BaseException:
            await child.kill()
            raise
        if reply is None:
            await child.kill()
            return await in_thread(dead_outcome, job, timeout_error(job.node), started)
        if self._closing:
            await child.end()
        else:
            self._idle.append(child)
        return outcome_of(job, reply)

    async def _keep(self) -> None:
        """Keep the children until the run ends."""
        try:
            await anyio.sleep_forever()
        finally:
            self._closing = True
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as tasks:
                    for child in self._idle:
                        tasks.start_soon(child.end)


class _Child:
    """A child process that answers one request at a time."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None  # noqa: S101  # both are pipes
        assert process.stdout is not None  # noqa: S101
        self._process = process
        self._stdin = process.stdin
        self._stdout = BufferedByteReceiveStream(process.stdout)

    @classmethod
    async def start(cls) -> _Child:
        """Start a child and have it import the program's main module. Raises `FuruError`."""
        preparation = await in_thread(_preparation)
        child = cls(await _open_process())
        try:
            problem = await child.ask(preparation)
        except _LOST:
            problem = f"it {_way_to_die(await child.end())}"
        except BaseException:
            await child.kill()
            raise
        if problem is not None:
            await child.end()
            raise FuruError(f"a child process could not import the program's main module: {problem}")
        return child

    async def ask(self, content: bytes) -> Any:
        """Send a message and return the answer. Raises one of `_LOST` if the child dies of it."""
        await self._stdin.send(len(content).to_bytes(LENGTH_BYTES, "big") + content)
        length = int.from_bytes(await self._stdout.receive_exactly(LENGTH_BYTES), "big")
        return pickle.loads(await self._stdout.receive_exactly(length))  # noqa: S301  # from the child

    async def end(self) -> int | None:
        """Let the child end by itself, cancelled or not, or kill it; return its exit code."""
        with anyio.CancelScope(shield=True):
            await self._stdin.aclose()
            with anyio.move_on_after(_EXIT_SEC):
                await self._process.wait()
        return await self.kill()

    async def kill(self) -> int | None:
        """Kill the child if it lives, cancelled or not; return its exit code."""
        with anyio.CancelScope(shield=True):
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.aclose()
        return self._process.returncode


async def _open_process() -> Process:
    with anyio.CancelScope(shield=True):  # cancelled half way, nobody would know the process
        return await anyio.open_process([sys.executable, "-c", _COMMAND, *sys.path], stderr=None)
    raise AssertionError("nothing cancels this scope, so it swallows nothing")


def _packed(job: Job) -> bytes:
    return pickle.dumps(make_request(job, "process"), pickle.HIGHEST_PROTOCOL)


def _preparation() -> bytes:
    data = multiprocessing.spawn.get_preparation_data("furu")
    return pickle.dumps({name: data[name] for name in _PREPARATION if name in data})


def _cancelled_outcome(job: Job, started: float) -> Outcome:
    duration_sec = time.monotonic() - started
    error = FuruCancelledError("the run was cancelled, and its process killed")
    end_of_dead(job.node, "cancelled", error, duration_sec)
    return Outcome(job, "cancelled", duration_sec)


def _way_to_die(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"ended by itself, with exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    hint = " (out of memory?)" if exit_code == -signal.SIGKILL else ""
    return f"was killed by {name}{hint}"

"""Nodes for tests of workers, in a module that other processes can import, and a gate that blocks nodes."""

from __future__ import annotations

import abc
import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio.to_thread

from furu import EXEC_CONTEXT, Furu, Retry, current_settings, progress


class Unpicklable(Exception):
    """Cannot be pickled, because it has a lock, nor unpickled, because it needs two arguments."""

    def __init__(self, text: str, lock: Any) -> None:
        super().__init__(text)
        self.lock = lock


class TwoArguments(Exception):
    """Can be pickled but not unpickled, because it needs two arguments."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


class Act(Furu[Any]):
    """Does one thing, which the field `does` names."""

    does: str
    folder: Path | None = dataclasses.field(default=None, compare=False)
    below: tuple[Furu[Any], ...] = ()
    kind: str = dataclasses.field(default="default", compare=False)

    def _executor_spec_key(self) -> str:
        return self.kind

    def _create(self) -> Any:
        return self._act()

    def _act(self) -> Any:
        result: Any = getattr(self, f"_act_{self.does.partition(' ')[0]}")()
        return result

    def _act_sum(self) -> int:
        return 1 + sum(node.get() for node in self.below)

    def _act_fail(self) -> None:
        raise ValueError("bad split")

    def _act_unpicklable(self) -> None:
        raise Unpicklable("cannot travel", threading.Lock())

    def _act_two(self) -> None:
        raise TwoArguments(7, "cannot come back")

    def _act_exit(self) -> None:
        sys.exit(3)

    def _act_interrupt(self) -> None:
        raise KeyboardInterrupt

    def _act_context(self) -> list[Any]:
        context = EXEC_CONTEXT.get()
        return [context.mode, context.spec_key, context.current_node_hash, str(current_settings().store)]

    def _act_log(self) -> None:
        self.logger.info("a line of %s", self.does)

    def _act_print(self) -> None:
        print("printed")
        print("complained", file=sys.stderr)
        subprocess.run(["echo", "from a program"], check=True)

    def _act_pid(self) -> int:
        return os.getpid()

    def _act_die(self) -> None:
        print("last words")
        how = self.does.split()[1]
        if how == "exit":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)

    def _act_die_once(self) -> str:
        assert self.folder is not None
        try:
            (self.folder / "died").touch(exist_ok=False)
        except FileExistsError:
            return "survived"
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("a killed process runs on")

    def _act_progress(self) -> str:
        """Reports its progress, waits, and reports it a thousand times more, too often."""
        progress(1, 4, "steps")
        self._act_gate()
        for done in range(1000):
            progress(done, 1000, "steps")
        progress(1000, 1000, "steps")
        return "reported"

    def _act_gate(self) -> int:
        assert self.folder is not None
        pass_gate(self.folder)
        return os.getpid()


class AsyncAct(Act):
    """An Act that runs on the event loop."""

    async def _create(self) -> Any:
        if self.does == "gate":
            assert self.folder is not None
            await anyio.to_thread.run_sync(pass_gate, self.folder)
            return os.getpid()
        if self.does == "progress":  # waits in a thread
            return await anyio.to_thread.run_sync(self._act)
        if self.does == "sum":
            return 1 + sum([await node.aget() for node in self.below])
        if self.does == "log":  # writing to the disk would block the event loop
            return await anyio.to_thread.run_sync(self._act)
        return self._act()


class StatusError(ConnectionError):
    """Can be pickled but not unpickled, like some errors of HTTP clients."""

    def __init__(self, message: str, *, response: object) -> None:
        super().__init__(message)
        self.response = response


class Transient(Exception, abc.ABC):
    """A virtual base class: ZeroDivisionError is registered as its subclass."""


Transient.register(ZeroDivisionError)


class Flaky(Act):
    """Fails in one way at its first attempt, and succeeds at its second."""

    _retry = Retry(attempts=2, on=(ConnectionError, Transient), delay_sec=0)

    def _act(self) -> Any:
        assert self.folder is not None
        try:
            (self.folder / "failed").touch(exist_ok=False)
        except FileExistsError:
            return "tried again"
        if self.does == "status":
            raise StatusError("503", response=1)
        if self.does == "lock":
            error = ConnectionResetError("reset")
            error.lock = threading.Lock()  # type: ignore[attr-defined]
            raise error
        if self.does == "local":

            class Local(ConnectionError):
                pass

            raise Local("of no importable class")
        if self.does == "registered":
            raise ZeroDivisionError("transient")
        if self.does == "other":
            raise Unpicklable("not named in on", threading.Lock())
        return 0


class AsyncFlaky(Flaky, AsyncAct):
    """A Flaky node that runs on the event loop."""


class Late(Act):
    """Takes longer than its time limit."""

    _timeout_sec = 1.0


class Link(Furu[int]):
    """One node of a chain. It depends on the previous node but does not load its result."""

    number: int
    below: Furu[int] | None = None

    def _create(self) -> int:
        return self.number


class Gate:
    """Blocks nodes in any process until it is opened. The test can wait for a node to arrive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.mkfifo(folder / "arrivals")
        self._arrivals = os.open(folder / "arrivals", os.O_RDWR)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    async def wait_for_arrival(self) -> None:
        await anyio.to_thread.run_sync(os.read, self._arrivals, 1)

    def open(self) -> None:
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._lock)
        os.close(self._arrivals)


def pass_gate(folder: Path) -> None:
    """Report that a node has arrived, and wait until the gate is open."""
    with open(folder / "arrivals", "wb", buffering=0) as arrivals:
        arrivals.write(b"!")
    with open(folder / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)

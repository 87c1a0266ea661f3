"""Functions that run in forks of a test process with a time limit, and signals between processes."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from furu.store.local import Process, acting_as
from tests.faults.observer import HangError

LIMIT_SEC = 15.0


class Fork:
    """A function that runs in a fork. Its value is returned as a pickle."""

    def __init__(self, function: Callable[[], object]) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.setpgid(0, 0)
            os.close(reading)
            _run(function, writing)
        os.close(writing)
        self._reading = reading

    def stop(self) -> None:
        """Send SIGSTOP, and wait until the fork has stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def go_on(self) -> None:
        """Send SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def ends_within(self, sec: float) -> bool:
        """Wait for the end of the fork, and return whether it ended in time."""
        return bool(select.select([self._reading], [], [], sec)[0])

    def result(self) -> Any:
        """Return the function's value. Raises RuntimeError if it raised, and `HangError` if it hangs."""
        said, until = b"", time.monotonic() + LIMIT_SEC
        while True:
            ready, _, _ = select.select([self._reading], [], [], max(until - time.monotonic(), 0))
            chunk = os.read(self._reading, 65536) if ready else None
            if not chunk:
                break
            said += chunk
        os.close(self._reading)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # it has answered, but its own forks may hang
        os.waitpid(self.pid, 0)
        if chunk is None:
            raise HangError(f"the fork did not end within {LIMIT_SEC:g} s")
        if not said:
            raise RuntimeError("the fork ended without a word")
        value, error = pickle.loads(said)
        if error:
            raise RuntimeError(f"in the fork: {error}")
        return value


def _run(function: Callable[[], object], writing: int) -> None:
    """In the fork, run the function, send its result, and exit."""
    answer: tuple[object, str] = (None, "it ended before its end")
    try:
        answer = (function(), "")
    except BaseException as error:
        answer = (None, f"{type(error).__name__}: {error}")
    finally:
        with contextlib.suppress(BaseException):
            os.write(writing, pickle.dumps(answer))
        os._exit(0)


def in_fork(function: Callable[[], object]) -> Any:
    """Run a function in a fork, and return its value."""
    return Fork(function).result()


class Signal:
    """A signal that one process sends once and another process waits for."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()

    def say(self) -> None:
        """Release the process that waits."""
        os.write(self._writing, b".")

    def wait(self) -> None:
        """Wait for the signal. Raises `HangError` if it does not come."""
        if not select.select([self._reading], [], [], LIMIT_SEC)[0]:
            raise HangError(f"nothing was said for {LIMIT_SEC:g} s")
        os.read(self._reading, 1)


@contextmanager
def another_machine(name: str) -> Iterator[None]:
    """Act as a process of another machine in a block that creates the owner of this process."""
    with acting_as(Process(boot=lambda: f"machine {name}")):
        yield

"""Programs that a node in a child process starts. They are killed with the child, or continue."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio.to_thread
import pytest

from furu import (
    Furu,
    FuruComputeError,
    FuruTimeoutError,
    FuruWorkerError,
    Status,
    run_local_async,
)
from furu.execution.workers import ProcessWorkers
from tests.workers.programs import run_in_one_child


class Starts(Furu[int]):
    """Starts a program that keeps a FIFO open, and then dies, waits or returns."""

    fifo: Path
    then: str

    def _create(self) -> int:
        with open(self.fifo, "wb", buffering=0) as fifo:
            program = subprocess.Popen(["sleep", "1000"], stdout=fifo)
            fifo.write(b"!")
        if self.then == "die":
            os._exit(3)
        if self.then == "wait":
            program.wait()
        return program.pid


class StartsForTooLong(Starts):
    _timeout_sec = 1.0


class Fifo:
    """A FIFO that shows whether a program is running: the program keeps the FIFO open."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def wait_for_writer(self) -> None:
        os.set_blocking(self.descriptor, True)
        with open(self.path, "rb", buffering=0) as file:  # waits for a writer
            assert b"!" == file.read(1)

    def wait_until_closed(self) -> None:
        """Wait until no program has the FIFO open. Only then does reading reach the end of the file."""
        os.set_blocking(self.descriptor, True)
        while os.read(self.descriptor, 10):
            pass

    def is_open(self) -> bool:
        os.read(self.descriptor, 10)
        try:
            return os.read(self.descriptor, 10) != b""
        except BlockingIOError:
            return True


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    """A FIFO that no program has open for writing."""
    fifo = Fifo(tmp_path / "fifo")
    yield fifo
    os.close(fifo.descriptor)


def test_timeout_kills_the_programs_of_the_node(fifo: Fifo) -> None:
    with pytest.raises(FuruComputeError) as caught:
        run_in_one_child(StartsForTooLong(fifo=fifo.path, then="wait"))
    assert isinstance(caught.value.__cause__, FuruTimeoutError)
    fifo.wait_until_closed()


@pytest.mark.anyio
async def test_cancelled_run_kills_the_programs_of_its_nodes(fifo: Fifo) -> None:
    node = Starts(fifo=fifo.path, then="wait")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: run_local_async([node], workers=ProcessWorkers()))
        await anyio.to_thread.run_sync(fifo.wait_for_writer)
        tasks.cancel_scope.cancel()
    await anyio.to_thread.run_sync(fifo.wait_until_closed)
    assert Status.TODO == await anyio.to_thread.run_sync(node.status)


def test_programs_of_a_child_that_dies_are_killed(fifo: Fifo) -> None:
    """The error has the exit code of the child, not of its programs."""
    with pytest.raises(FuruComputeError) as caught:
        run_in_one_child(Starts(fifo=fifo.path, then="die"))
    assert isinstance(caught.value.__cause__, FuruWorkerError)
    assert 3 == caught.value.__cause__.exit_code
    fifo.wait_until_closed()


def test_program_that_a_finished_node_left_running_continues(fifo: Fifo) -> None:
    """The program is still running after the run has finished."""
    node = Starts(fifo=fifo.path, then="return")
    run_in_one_child(node)
    assert fifo.is_open()
    os.kill(node.get(), signal.SIGKILL)
    fifo.wait_until_closed()

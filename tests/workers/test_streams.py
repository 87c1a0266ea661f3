"""Nodes in child processes that change their standard streams, or that fork."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any

import anyio.to_thread
import pytest

from furu import Furu, Status
from tests.workers.nodes import Act
from tests.workers.programs import run_in_one_child


class Pid(Furu[int]):
    def _create(self) -> int:
        return os.getpid()


class Streams(Furu[str]):
    """Closes, replaces or writes to its standard streams."""

    does: str

    def _create(self) -> str:
        print(f"before {self.does}")
        if self.does == "close":
            sys.stdout.close()
            sys.stderr.close()
        elif self.does == "close descriptors":
            os.close(1)
            os.close(2)
        elif self.does == "replace":
            sys.stdout = sys.stderr = io.StringIO()
        elif self.does == "close the first ones":
            assert sys.__stdout__ is not None
            sys.__stdout__.close()
        elif self.does == "half a line":
            print("half a line", end="")
            sys.stdout = io.StringIO()
        return self.does


def log_of(node: Furu[Any]) -> str:
    return (node.furu_dir / "furu.log").read_text()


@pytest.mark.parametrize(
    "does", ["close", "close descriptors", "replace", "close the first ones", "half a line"]
)
def test_node_cannot_break_the_streams_of_the_next_node(
    does: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both nodes run in the same child process."""
    first, second = Streams(does=does), Streams(does="nothing")
    run_in_one_child(first, second)
    assert log_of(first).startswith(f"before {does}\n")
    assert "before nothing\n" == log_of(second)
    assert ("", "") == capfd.readouterr()
    assert log_of(first).endswith("half a line") or does != "half a line"


class Forks(Furu[list[int]]):
    """Forks a process that leaves `_create`. Returns its exit code, and 1 if the node is in progress."""

    how: str

    def _create(self) -> list[int]:
        forked = os.fork()
        if not forked:
            if self.how == "raise":
                raise ValueError("raised in the fork")
            if self.how == "exit":
                sys.exit(5)
            return []
        status = os.waitpid(forked, 0)[1]
        return [os.waitstatus_to_exitcode(status), int(self.status() is Status.IN_PROGRESS)]


@pytest.mark.parametrize(
    ("how", "code", "log"),
    [("raise", 1, "ValueError: raised in the fork"), ("exit", 5, ""), ("return", 1, "returned from it")],
)
def test_fork_that_leaves_create_exits(how: str, code: int, log: str) -> None:
    """The fork neither answers the parent nor finishes the attempt of the child."""
    node, other = Forks(how=how), Act(does="sum")
    report = run_in_one_child(node, other)
    assert (2, 0) == (report.computed, report.failed)
    assert [code, 1] == node.get()
    assert not log or log in log_of(node)


class ForksTwice(Furu[list[int]]):
    """Forks a process that opens files and forks again. Returns the files closed in the second fork."""

    in_parent: bool

    def _executor_spec_key(self) -> str:
        return "default"

    def _create(self) -> list[int]:
        return closed_in_fork_of_fork()


class AsyncForksTwice(ForksTwice):
    """Forks in the parent of the children, because async nodes run there."""

    below: Pid

    async def _create(self) -> list[int]:  # type: ignore[override]
        return await anyio.to_thread.run_sync(closed_in_fork_of_fork)


def closed_in_fork_of_fork() -> list[int]:
    reading, writing = os.pipe()
    outer = os.fork()
    if not outer:
        files = [os.open(os.devnull, os.O_RDONLY) for _ in range(30)]
        inner = os.fork()
        if not inner:
            os.write(writing, json.dumps([file for file in files if not is_open(file)]).encode())
            os._exit(0)
        os.waitpid(inner, 0)
        os._exit(0)
    os.waitpid(outer, 0)
    os.close(writing)
    with open(reading, "rb") as file:
        found: list[int] = json.loads(file.read())
    return found


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_fork_of_a_fork_in_a_child_keeps_its_files() -> None:
    """The first fork closes the connection. The second one does not close a file that reuses its number."""
    node = ForksTwice(in_parent=False)
    run_in_one_child(node)
    assert [] == node.get()


def test_fork_of_a_fork_of_the_parent_keeps_its_files() -> None:
    """The parent has a connection to an idle child, which its fork closes."""
    node = AsyncForksTwice(in_parent=True, below=Pid())
    run_in_one_child(node)
    assert [] == node.get()

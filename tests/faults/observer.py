"""A second process that reports what it sees in a store, and computes nodes on request.

    with Observer() as observer:
        observer.statuses([(store, node), ...])      # ["DONE", "TODO", ...]
        observer.get(store, node, limit_sec=5)       # the value, or an exception

Nodes are sent as pickles, so their classes must be in modules that can be imported by name.
"""

from __future__ import annotations

import os
import pickle
import selectors
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Self

from furu import Furu, use_settings

ROOT = Path(__file__).parents[2]
# An observer that takes longer to answer is blocked by a lock of the store.
ANSWER_SEC = 60.0


class HangError(Exception):
    """A call did not return within its time limit."""


class Observer:
    """A process that shares only the stores with this process."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(ROOT), *sys.path])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.observer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"},
            start_new_session=True,  # only the process under test receives Ctrl-C
        )

    @property
    def pid(self) -> int:
        """The process id of the observer."""
        return self._process.pid

    def statuses(self, nodes: Iterable[tuple[str, Furu[Any]]]) -> list[str]:
        """Return the status of each node in its store."""
        answer: list[str] = self._ask(("statuses", [(str(store), node) for store, node in nodes]))
        return answer

    def get(self, store: str | Path, node: Furu[Any], limit_sec: float = 10.0) -> Any:
        """Return the node's value, or the text of the exception that its `get()` raised."""
        return self._ask(("get", (str(store), node, limit_sec)))

    def _ask(self, question: object) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        pickle.dump(question, stdin)
        stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(ANSWER_SEC):
                raise HangError(f"the observer gave no answer within {ANSWER_SEC:g} s")
        return pickle.load(stdout)

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def within(limit_sec: float, function: Any, *args: Any) -> Any:
    """Call a function in a thread and return its value. Raises its exception, or `HangError`."""
    answer: list[Any] = []

    def call() -> None:
        try:
            answer.append((function(*args), None))
        except BaseException as error:
            answer.append((None, error))

    thread = threading.Thread(target=call, daemon=True, name="time-limit")
    thread.start()
    thread.join(limit_sec)
    if not answer:
        raise HangError(f"{function} did not return within {limit_sec:g} s")
    value, error = answer[0]
    if error is not None:
        raise error
    return value


def _status(store: str, node: Furu[Any]) -> str:
    try:
        with use_settings(store=store):
            return str(node.status())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _get(store: str, node: Furu[Any], limit_sec: float) -> Any:
    def get() -> Any:
        with use_settings(store=store):
            return node.get()

    try:
        return within(limit_sec, get)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _serve(questions: BinaryIO, answers: BinaryIO) -> None:
    while True:
        try:
            kind, content = pickle.load(questions)
        except EOFError:
            return
        answer = [_status(*one) for one in content] if kind == "statuses" else _get(*content)
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)

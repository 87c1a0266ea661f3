"""Every file and directory of the protocol is damaged in every way before `get()` of its node.

Each time `get()` returns the right value, or it raises an error of furu that names the path and says what
to do, and this helps. It never hangs, and it never returns a value from outside the store.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from furu import Furu, FuruComputeError, FuruError, FuruStoreError, Status
from furu.node.base import artifact_of
from furu.store.layout import PICKLE
from tests.faults import figures
from tests.store.processes import artifact, done_document, leave_attempt, put

LIMIT_SEC = 3.0
OUTSIDE = "from outside the store"


class Plain(Furu[str]):
    def _create(self) -> str:
        self.logger.info("computing")
        (self.furu_dir / "data").write_text("mine")
        return "mine"


class Loaded(Furu[str]):
    def _create(self) -> str:
        (self.furu_dir / "data").write_text("mine")
        return "mine"

    def _load(self) -> str:
        text = (self.furu_dir / "data").read_text()
        if text != "mine":
            raise ValueError(f"data holds {text!r}")
        return text


class Pickled(Furu[str]):
    _codec = "pickle"

    def _create(self) -> str:
        return "mine"


# ---- the damaged path, as a function of a node and its store ----


def owner_of(node: Furu[str], store: Path) -> Path:
    """Return the owner file of an attempt of a dead process."""
    return leave_attempt(artifact_of(node))


def file_of(name: str) -> Callable[[Furu[str], Path], Path]:
    def find(node: Furu[str], store: Path) -> Path:
        os.makedirs(artifact_of(node).files.directory, exist_ok=True)
        return Path(artifact_of(node).files.directory, name)

    return find


def above(levels: int) -> Callable[[Furu[str], Path], Path]:
    def find(node: Furu[str], store: Path) -> Path:
        return Path(artifact_of(node).files.directory, *[".."] * levels).resolve()

    return find


def of_published(name: str) -> Callable[[Furu[str], Path], Path]:
    def find(node: Furu[str], store: Path) -> Path:
        assert "mine" == node.get()
        return Path(artifact_of(node).files.directory, name)

    return find


def of_dead(name: str) -> Callable[[Furu[str], Path], Path]:
    """Return a function that finds a file beside the attempt of a dead owner."""

    def find(node: Furu[str], store: Path) -> Path:
        leave_attempt(artifact_of(node))
        return Path(artifact_of(node).files.directory, name)

    return find


PLACES: dict[str, Callable[[Furu[str], Path], Path]] = {
    "owners": lambda node, store: store / "owners",
    "owner": owner_of,
    "the module's directory": above(2),
    "the class's directory": above(1),
    "the node's directory": above(0),
    "try-1": file_of("try-1"),
    "try-1 of a dead owner": of_dead("try-1"),
    "try-2": of_dead("try-2"),
    "a1": file_of("a1"),
    "a1 of a dead owner": of_dead("a1"),
    "a2": file_of("a2"),
    "tmp-1": file_of(f"tmp-1-{'0' * 32}"),
    "rejected-1": file_of("rejected-1"),
    "done": file_of("done"),
    "published done": of_published("done"),
    "published a1": of_published("a1"),
    "published log": of_published("a1/furu.log"),
    "published pickle": of_published(f"a1/{PICKLE}"),
}


# ---- the kinds of damage ----


def foreign_document(node: Furu[str]) -> bytes:
    """Return a complete `done` document of this node, with another value."""
    return done_document(artifact_of(node), node_class=artifact_of(node).node_class, result=OUTSIDE)


def outside(path: Path, node: Furu[str]) -> Path:
    """Return a directory outside the store. If furu followed a link to it, the value would be wrong."""
    target = path.parents[len(path.parents) - len(artifact_of(node).settings.store.parts)] / "outside"
    for name, content in {
        "done": foreign_document(node),
        "data": OUTSIDE.encode(),
        PICKLE: pickle.dumps(OUTSIDE),
        "try-1": foreign_document(node),
    }.items():
        put(target / name, content)
    return target


def make_link(path: Path, node: Furu[str]) -> None:
    target = outside(path, node)
    path.symlink_to(target / path.name if (target / path.name).exists() else target / "data")


def make_directory(path: Path, node: Furu[str]) -> None:
    path.mkdir()
    (path / "inside").write_text("inside")


def make_huge(path: Path, node: Furu[str]) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


DAMAGE: dict[str, Callable[[Path, Furu[str]], object]] = {
    "empty": lambda path, node: path.write_bytes(b""),
    "truncated": lambda path, node: path.write_bytes(foreign_document(node)[:-20]),
    "random bytes": lambda path, node: path.write_bytes(bytes(range(256)) * 8),
    "huge": make_huge,
    "from a future version": lambda path, node: path.write_bytes(
        json.dumps({**json.loads(foreign_document(node)), "format": 99}).encode()
    ),
    "of another node": lambda path, node: path.write_bytes(done_document(artifact("another"))),
    "FIFO": lambda path, node: os.mkfifo(path),
    "symlink": make_link,
    "dangling symlink": lambda path, node: path.symlink_to("nowhere"),
    "directory": make_directory,
}


def remove(path: Path) -> None:
    """Remove the file or directory at a path, as the error message advises."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def within_limit(function: Callable[[], object]) -> object:
    """Run a function in a thread with a time limit, and return its value or its exception."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT_SEC)
    return results[0] if results else TimeoutError("it hangs")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", [Plain, Loaded, Pickled])
@pytest.mark.parametrize("place", PLACES)
def test_damaged_file_is_a_miss_or_a_clear_error(
    place: str, kind: type[Furu[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems: list[str] = []
    for number, (damage, make) in enumerate(DAMAGE.items()):
        store = tmp_path / f"{number}" / "store"
        monkeypatch.setenv("FURU_PATH", str(store))
        (store / "owners").mkdir(parents=True)
        node = kind()
        path = PLACES[place](node, store)
        remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path, node)
        problem = problem_with(node, path)
        figures.count("damaged files", 1)
        if problem is not None:
            problems.append(f"{damage}: {problem}")
    assert [] == problems


def problem_with(node: Furu[str], path: Path) -> str | None:
    """Get a node, and return what is wrong with the answer."""
    answer = within_limit(node.get)
    if answer == "mine":
        return None
    if not isinstance(answer, (FuruStoreError, FuruComputeError)):
        return f"it is {answer!r}"
    message = str(answer)
    if str(path) not in message and artifact_of(node).files.directory not in message:
        return f"no path in: {message}"
    if not any(word in message.lower() for word in ("remove", "check", "name ", "run again")):
        return f"no advice in: {message}"
    if not isinstance(within_limit(node.status), (Status, FuruError)):
        return "the status is neither known nor an error of furu's"
    # The messages advise to remove the damaged path and, for a `done`, the node's directory.
    remove(path)
    remove(Path(artifact_of(node).files.directory))
    again = within_limit(node.get)
    return None if again == "mine" else f"{message}; and once that is removed, {again!r}"

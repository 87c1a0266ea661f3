"""The cache of loaded values: what it shares, and that no reader can change what another one gets."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from furu import Furu, catalog, current_settings, run_local, use_settings
from furu.service import Runs
from furu.store.artifact import Artifact
from furu.store.local import Process, acting_as
from furu.store.removal import remove

LARGE = "x" * 10_000


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    number: float


class Pair(NamedTuple):
    name: str
    rows: tuple[Row, ...]


class Text(Furu[str]):
    n: int = 0

    def _create(self) -> str:
        return f"{self.n}{LARGE}"


class Pairs(Furu[tuple[Pair, ...]]):
    def _create(self) -> tuple[Pair, ...]:
        return tuple(Pair(f"{n}", (Row(f"row {n}", n),)) for n in range(100))


class Numbers(Furu[list[int]]):
    def _create(self) -> list[int]:
        return list(range(1000))


class Held(Furu[tuple[list[int], ...]]):
    def _create(self) -> tuple[list[int], ...]:
        return (list(range(1000)),)


class AnyList(Furu[Any]):
    def _create(self) -> Any:
        return [LARGE]


def pickled(make: Callable[[], Any]) -> Furu[Any]:
    """Return a computed node of a new class, with a value that is stored as a pickle."""

    class Pickled(Furu[Any]):
        _codec = "pickle"

        def _create(self) -> Any:
            return make()

    node = Pickled()
    node.get()
    return node


class ReadsFile(Furu[str]):
    def _create(self) -> str:
        (self.furu_dir / "x").write_text(LARGE)
        return LARGE

    def _load(self) -> str:
        return (self.furu_dir / "x").read_text()


@pytest.fixture(autouse=True)
def process() -> Any:
    """A process that has loaded nothing yet."""
    process = Process(beats=False)
    with acting_as(process):
        yield process


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The classes of the artifacts that are read."""
    read: list[str] = []
    original = Artifact.read

    def reading(self: Artifact, *limit: int) -> Any:
        read.append(self.node_class.rpartition(":")[2])
        return original(self, *limit)

    monkeypatch.setattr(Artifact, "read", reading)
    return read


# ---- what is shared ----


@pytest.mark.parametrize("node", [Text(), Pairs()])
def test_value_that_nothing_can_change_is_read_once(node: Furu[Any], reads: list[str]) -> None:
    made = node.get()
    first, second = node.get(), node.get()
    assert first is second
    assert made == first
    assert [type(node).__name__] == reads


@pytest.mark.parametrize("node", [Numbers(), AnyList(), Held()])
def test_value_that_can_be_changed_is_read_for_each_reader(node: Furu[Any]) -> None:
    node.get()
    first, second = node.get(), node.get()
    (first[0] if isinstance(node, Held) else first).clear() if isinstance(first, list) else first[0].clear()
    assert first != second
    assert second == node.get()


def test_value_of_a_load_method_is_read_each_time(reads: list[str]) -> None:
    """It may depend on anything."""
    node = ReadsFile()
    node.get()
    (node.furu_dir / "x").write_text("changed")
    assert "changed" == node.get()


def test_nodes_of_a_run_read_an_input_once(reads: list[str]) -> None:
    run_local([Text()])
    reads.clear()
    # Otherwise the run reads the record once more, to compare the code that made the artifact.
    run_local([Uses(text=Text(), n=n) for n in range(20)], on_code_change="ignore")
    assert 1 == reads.count("Text")


class Uses(Furu[int]):
    text: Text
    n: int

    def _create(self) -> int:
        return len(self.text.get()) + self.n


# ---- frames and arrays ----


def change_frame(frame: Any) -> None:
    frame.iloc[0, 0] = 99.0
    frame["more"] = 1
    frame.index.name = "changed"
    frame.attrs["note"] = "changed"


def test_frame_is_copied_for_each_reader(reads: list[str]) -> None:
    pandas = pytest.importorskip("pandas")

    def make() -> Any:
        return pandas.DataFrame({"a": [0.5] * 1000, "b": ["text"] * 1000})

    node = pickled(make)
    for _ in range(2):
        change_frame(node.get())
        pandas.testing.assert_frame_equal(make(), node.get())
        assert node.get().index.name is None
        assert {} == node.get().attrs
    assert 1 == len(reads)


def test_frame_that_holds_lists_is_not_shared(reads: list[str]) -> None:
    pandas = pytest.importorskip("pandas")

    def make() -> Any:
        return pandas.DataFrame({"a": [[1, 2]] * 1000})

    node = pickled(make)
    node.get()["a"][0].append(3)
    assert [1, 2] == node.get()["a"][0]


def test_series_is_copied_for_each_reader() -> None:
    pandas = pytest.importorskip("pandas")

    def make() -> Any:
        return pandas.Series(range(1000))

    node = pickled(make)
    series = node.get()
    series.iloc[0] = 99
    assert 0 == node.get().iloc[0]


def test_polars_frame_is_not_changed_by_a_reader(reads: list[str]) -> None:
    polars = pytest.importorskip("polars")

    def make() -> Any:
        return polars.DataFrame({"a": range(1000), "b": ["text"] * 1000})

    node = pickled(make)
    for _ in range(2):
        frame = node.get()
        frame[0, "a"] = 99
        frame.insert_column(0, polars.Series("more", range(1000)))
        assert make().equals(node.get())
    assert 1 == len(reads)


def test_arrow_table_is_shared(reads: list[str]) -> None:
    pyarrow = pytest.importorskip("pyarrow")

    def make() -> Any:
        return pyarrow.table({"a": list(range(1000))})

    node = pickled(make)
    assert node.get() is node.get()
    assert 1 == len(reads)


def test_readers_of_a_read_only_array_get_views_that_cannot_be_written(reads: list[str]) -> None:
    """Each has a view of its own, because a view's shape can be changed."""
    numpy = pytest.importorskip("numpy")

    def make() -> Any:
        return numpy.frombuffer(LARGE.encode(), dtype="u1")

    node = pickled(make)
    assert not node.get().flags.owndata
    views = [node.get() for _ in range(3)]
    assert 3 == len({id(view) for view in views})
    assert all(numpy.shares_memory(view, views[0]) for view in views)
    for view in views:
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.flags.writeable = True
    assert 1 == len(reads)


class Counting(Furu[Any]):
    """Returns an array with `size` items, in C or Fortran order."""

    size: int
    order: str = "C"

    def _create(self) -> Any:
        import numpy

        return numpy.arange(float(self.size)).reshape(2, -1).copy(order=self.order)  # type: ignore[call-overload]


@pytest.mark.parametrize("size", [1000, 500_000])
@pytest.mark.parametrize("order", ["C", "F"])
def test_reader_cannot_make_its_array_writable(size: int, order: str) -> None:
    pytest.importorskip("numpy")
    node = Counting(size=size, order=order)
    for _ in range(3):
        array = node.get()
        assert array.flags.c_contiguous == (order == "C")
        with contextlib.suppress(ValueError):  # the value of the first get() is this reader's own
            array.flags.writeable = True
            array[0] = 77.0
        assert (2, 0.0) == (node.get().shape[0], node.get()[0, 0])


@dataclasses.dataclass(frozen=True)
class Words:
    text: str

    @functools.cached_property
    def words(self) -> list[str]:
        return self.text.split()


class Noted(Pair):
    """A named tuple whose instances have attributes."""


class HoldsWords(Furu[Words]):
    def _create(self) -> Words:
        return Words(LARGE)


def test_what_a_reader_keeps_in_a_value_is_not_seen_by_others() -> None:
    node = HoldsWords()
    for _ in range(3):
        node.get().words.append("mine")
        assert [LARGE] == node.get().words
    noted = pickled(lambda: Noted("a" * 10_000, ()))
    for _ in range(3):
        noted.get().note = "mine"
        assert not hasattr(noted.get(), "note")


def test_levels_and_categories_of_a_frame_are_not_shared() -> None:
    pandas = pytest.importorskip("pandas")

    def make() -> Any:
        index = pandas.MultiIndex.from_product([range(1000), ["a", "b"]])
        return pandas.DataFrame({"c": pandas.Categorical(["x", "y"] * 1000)}, index=index)

    node = pickled(make)
    for _ in range(3):
        frame = node.get()
        frame["c"].cat.categories.name = "changed"
        assert node.get()["c"].cat.categories.name is None
        values = frame.index.levels[0].values
        values.flags.writeable = True
        values[0] = values[1]
        assert 0 == node.get().index[0][0]


def test_writable_array_is_read_for_each_reader() -> None:
    numpy = pytest.importorskip("numpy")

    def make() -> Any:
        return numpy.zeros(1000)

    node = pickled(make)
    node.get()[0] = 1
    assert 0 == node.get()[0]


# ---- bounds and settings ----


def test_cache_is_bounded_by_bytes_and_drops_what_was_not_used_for_longest(
    process: Process, reads: list[str]
) -> None:
    with use_settings(cache_bytes=25_000):
        nodes = [Text(n=n) for n in range(3)]
        run_local(nodes)
        nodes[0].get()
        nodes[1].get()
        nodes[0].get()  # so that the second is dropped
        nodes[2].get()
        assert 20_000 < process.loaded.size_bytes <= 25_000
        reads.clear()
        assert nodes[0].get() is nodes[0].get()
        assert [] == reads
        nodes[1].get()
        assert ["Text"] == reads


def test_value_larger_than_the_limit_is_not_kept(process: Process) -> None:
    with use_settings(cache_bytes=5_000):
        Text().get()
        assert Text().get() == Text().get()
    assert 0 == process.loaded.size_bytes


def test_size_of_a_nested_value_is_counted(process: Process) -> None:
    """The texts and objects of 100 pairs take at least 200 bytes each."""
    Pairs().get()
    Pairs().get()
    assert process.loaded.size_bytes > 20_000


def test_cache_can_be_turned_off(process: Process, reads: list[str]) -> None:
    with use_settings(cache_bytes=0):
        Text().get()
        assert Text().get() == Text().get()
    assert (0, 2) == (process.loaded.size_bytes, len(reads))


@pytest.mark.anyio
async def test_runs_of_a_service_keep_nothing(process: Process) -> None:
    """Unless the setting says otherwise."""
    async with Runs() as runs:
        await drain(runs, Uses(text=Text(), n=1))
        assert 0 == process.loaded.size_bytes
        with use_settings(cache_bytes=10**6):
            await drain(runs, Uses(text=Text(), n=2))
        assert process.loaded.size_bytes > 0


async def drain(runs: Runs, node: Furu[Any]) -> None:
    """Run a node to its end."""
    async with runs.follow([node]) as run:
        await run.wait()


# ---- other artifacts, threads, forks ----


def test_node_that_was_computed_again_is_read_again() -> None:
    node = Text()
    node.get()
    old = node.get()
    remove(catalog.find(current_settings(), node.furu_hash))
    again = node.get()
    assert again is not old
    assert node.get() is not old


def test_removed_node_is_missing(store: Path) -> None:
    node = Text()
    node.get()
    node.get()
    remove(catalog.find(current_settings(), node.furu_hash))
    assert not node.exists()


def test_node_of_another_store_is_read_from_there(tmp_path: Path) -> None:
    node = Text()
    node.get()
    here = node.get()
    with use_settings(store=tmp_path / "other"):
        node.get()
        assert here is not node.get()


def test_class_that_is_defined_again_gets_values_of_its_own_type() -> None:
    def define(result: Any) -> Furu[Any]:
        class Again(Furu[result]):
            __qualname__ = "Again"

            def _create(self) -> Any:
                return ("1" * 2000,) * 2

        return Again()

    one, other = define(tuple[str, ...]), define(frozenset[str])
    one.get()
    assert ("1" * 2000,) * 2 == one.get()
    assert frozenset({"1" * 2000}) == other.get()


def test_threads_that_ask_for_one_value_read_it_once(reads: list[str]) -> None:
    """The first thread reads it, and the others wait."""
    node = Text()
    node.get()
    reads.clear()
    barrier = threading.Barrier(8)

    def load(_: int) -> str:
        barrier.wait()
        return node.get()

    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(load, range(8)))
    assert ["Text"] == reads
    assert all(value is values[0] for value in values)


def test_thread_whose_read_fails_does_not_block_others(store: Path) -> None:
    node = Text()
    node.get()
    path = store / __name__ / "Text" / node.furu_hash
    whole = path.read_bytes()
    path.write_bytes(b"{")
    for _ in range(2):
        with pytest.raises(Exception, match="damaged"):
            node.get()
    path.write_bytes(whole)
    assert node.get().endswith(LARGE)


def test_forked_child_starts_with_an_empty_cache(process: Process) -> None:
    """So it never waits for a thread of its parent."""
    node = Text()
    node.get()
    node.get()
    assert process.loaded.size_bytes
    pid = os.fork()
    if not pid:
        child = process.forked()
        with acting_as(child):
            is_empty = child.loaded.size_bytes == 0
            os._exit(0 if is_empty and node.get().endswith(LARGE) else 1)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Weird(tuple[str, ...]):
    """A tuple that has attributes, and cannot be examined."""

    def __iter__(self) -> Any:
        raise RuntimeError("no")


def test_value_that_cannot_be_examined_is_loaded() -> None:
    node = pickled(lambda: Weird((LARGE,)))
    first, second = node.get(), node.get()
    first.note = "changed"
    assert not hasattr(second, "note")

"""Values of many stored nodes: `stored()`, `furu.load` and the nodes that are made from records."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import shutil
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import UUID

import pytest

import furu
from furu import File, Furu, FuruStoreError, FuruUsageError, current_settings, run_local
from furu.store.artifact import Artifact


class Colour(enum.Enum):
    RED = "r"


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass(frozen=True)
class Options:
    layers: tuple[int, ...] = ()
    colour: Colour | None = None


class Data(Furu[list[int]]):
    seed: int

    def _create(self) -> list[int]:
        return list(range(self.seed))


class Train(Furu[float]):
    data: Data
    rate: float
    note: str = dataclasses.field(default="", compare=False)

    def _create(self) -> float:
        return sum(self.data.get()) * self.rate


class Kinds(Furu[int]):
    """A field of each kind that is recorded as something else."""

    path: Path = Path("a/b")
    colour: Colour = Colour.RED
    point: Point = Point(1, 2)
    options: Options = Options((1, 2), Colour.RED)
    either: int | Options | None = Options((3,))
    names: frozenset[str] = frozenset({"a", "b"})
    by_number: dict[int, tuple[str, ...]] = dataclasses.field(default_factory=lambda: {1: ("a",)})
    mode: Literal["fast", 1] = 1
    day: dt.date = dt.date(2024, 2, 29)
    at: dt.datetime = dt.datetime(2024, 2, 29, 1, tzinfo=dt.UTC)
    took: dt.timedelta = dt.timedelta(days=-1, microseconds=3)
    price: Decimal = Decimal("1.50")
    key: UUID = UUID(int=7)
    raw: bytes = b"\x00"
    huge: int = 2**70
    infinite: float = float("inf")
    nodes: tuple[Data, ...] = (Data(seed=1), Data(seed=2))
    by_name: dict[str, Data] = dataclasses.field(default_factory=lambda: {"one": Data(seed=1)})

    def _create(self) -> int:
        return 1


class Chain(Furu[int]):
    number: int
    before: Chain | None = None

    def _create(self) -> int:
        return self.number


class Loaded(Furu[str]):
    """Reads its value from a file whose name depends on a field."""

    name: str
    secret: int = dataclasses.field(default=0, repr=False)

    def _create(self) -> str:
        (self.furu_dir / self.name).write_text("value")
        return "value"

    def _load(self) -> str:
        return (self.furu_dir / self.name).read_text()


class Checked(Furu[int]):
    n: int

    def _create(self) -> int:
        return self.n

    def _validate(self) -> bool:
        return self.n not in rejected


rejected: set[int] = set()


def trained() -> list[Train]:
    nodes = [Train(data=Data(seed=seed), rate=rate) for seed in (2, 3) for rate in (0.5, 2.0)]
    run_local(nodes)
    return nodes


# ---- stored() ----


def test_stored_yields_equal_nodes_and_their_values() -> None:
    nodes = trained()
    found = dict(Train.stored())
    assert {node: node.get() for node in nodes} == found
    assert [node.furu_hash for node in found] == sorted(node.furu_hash for node in nodes)
    assert [2, 3] == sorted({node.data.seed for node in found})


def test_stored_yields_only_nodes_with_the_wanted_field_values() -> None:
    """A node is compared by its hash, and other fields by their values."""
    nodes = trained()
    assert {node for node in nodes if node.rate == 0.5} == {node for node, _ in Train.stored(rate=0.5)}
    wanted = Train.stored(rate=2.0, data=Data(seed=3))
    assert [(nodes[3], 6.0)] == list(wanted)
    assert [] == list(Train.stored(rate=7.0))


def test_stored_is_lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value is loaded when it is asked for."""
    trained()
    read: list[str] = []
    original = Artifact.read

    def reading(self: Artifact, *limit: int) -> Any:
        read.append(self.node_class)
        return original(self, *limit)

    monkeypatch.setattr(Artifact, "read", reading)
    found = Train.stored()
    assert [] == read
    next(found)
    assert 1 == read.count(f"{__name__}:Train")


def test_stored_of_a_class_without_nodes_is_empty(store: Path) -> None:
    assert [] == list(Train.stored())
    assert not store.exists()
    trained()
    assert [] == list(Kinds.stored())


@pytest.mark.parametrize(
    ("cls", "where", "message"),
    [
        (Train, {"rtae": 1}, "Train has no field 'rtae'; its fields are data, rate, note"),
        (Loaded, {"secret": 1}, "declared with repr=False"),
        (Furu, {}, "call stored\\(\\) of a subclass"),
    ],
)
def test_wrong_use_of_stored_is_an_error_at_the_call(cls: Any, where: Any, message: str) -> None:
    with pytest.raises(FuruUsageError, match=message):
        cls.stored(**where)


def test_values_of_every_recorded_type_are_restored() -> None:
    node = Kinds()
    run_local([node, *node.nodes])
    ((found, value),) = Kinds.stored()
    assert isinstance(found, Kinds)
    assert 1 == value
    assert node == found
    for field in dataclasses.fields(Kinds):
        assert getattr(node, field.name) == getattr(found, field.name), field.name


def test_node_whose_dependency_is_not_stored_is_yielded_as_its_configuration() -> None:
    node = Kinds()
    node.get()
    shutil.rmtree(current_settings().store / __name__ / "Data")
    ((found, value),) = Kinds.stored()
    assert isinstance(found, dict)
    assert ("a/b", "Colour.RED", 1) == (found["path"], found["colour"], value)
    assert {"node": f"{__name__}:Data", "hash": Data(seed=1).furu_hash} == found["nodes"][0]


def test_node_of_a_class_that_changed_is_yielded_as_its_configuration() -> None:
    """A field was added, so no configuration of the class has the recorded hash."""

    class Before(Furu[int]):
        __qualname__ = "Changing"
        n: int

        def _create(self) -> int:
            return self.n

    class After(Furu[int]):
        __qualname__ = "Changing"
        n: int
        more: int = 0

    Before(n=3).get()
    assert [({"n": 3}, 3)] == list(After.stored())


def test_node_with_an_input_file_is_made_again_while_the_file_is_there(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("a")
    node = OfFile(source=File(path=path))
    node.get()
    assert [(node, 1)] == list(OfFile.stored())
    path.write_text("changed")
    ((config, _),) = OfFile.stored()
    assert isinstance(config, dict)
    assert str(path) == config["source"]["path"]


class OfFile(Furu[int]):
    source: File

    def _create(self) -> int:
        return 1


def test_long_chain_of_nodes_is_made_again() -> None:
    """The walk does not recurse."""
    node = Chain(number=0)
    for number in range(1, 1500):
        node = Chain(number=number, before=node)
    run_local([node])
    assert node in dict(Chain.stored(number=1499))


def test_damaged_artifacts_are_left_out_and_named_by_a_warning() -> None:
    nodes = trained()
    path = Path(current_settings().store, __name__, "Train", nodes[0].furu_hash)
    path.write_text("{")
    with pytest.warns(UserWarning, match=f"1 stored nodes of .*{nodes[0].furu_hash[:12]}.*damaged"):
        found = dict(Train.stored())
    assert set(nodes[1:]) == set(found)
    with pytest.warns(UserWarning, match="1 stored nodes"):
        assert 3 == len(furu.table(Train))


def test_failed_and_rejected_nodes_are_not_stored() -> None:
    """They count as missing. No warning is shown."""
    run_local([Checked(n=1), Checked(n=2)])
    rejected.add(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert [(Checked(n=2), 2)] == list(Checked.stored())
        with pytest.raises(FuruStoreError, match="_validate\\(\\) rejects it"):
            furu.load(Checked(n=1).furu_hash)
    finally:
        rejected.clear()


def test_load_runs_only_for_a_node_that_was_made_again() -> None:
    """A `_load` with wrong fields could return a wrong value."""
    known, unknown = Loaded(name="a"), Loaded(name="b", secret=1)
    assert ["value", "value"] == [known.get(), unknown.get()]
    with pytest.warns(UserWarning, match=f"{unknown.furu_hash[:12]}.*_load\\(\\)"):
        assert [(known, "value")] == list(Loaded.stored())


# ---- furu.load ----


def test_load_returns_the_value_of_the_node_with_a_hash() -> None:
    nodes = trained()
    for node in nodes:
        assert node.get() == furu.load(node.furu_hash[:12]) == furu.load(node.furu_hash, Train)


def test_load_of_a_class_that_is_not_imported_says_what_to_import(store: Path) -> None:
    """Nothing that a store names is imported, even if the module exists."""
    node = Data(seed=1)
    node.get()
    path = store / __name__ / "Data" / node.furu_hash
    other = store / "antigravity" / "Fly" / node.furu_hash
    other.parent.mkdir(parents=True)
    other.write_text(path.read_text().replace(f"{__name__}:Data", "antigravity:Fly"))
    path.unlink()
    with pytest.raises(FuruUsageError, match="has not imported: `import antigravity` first"):
        furu.load(node.furu_hash)
    assert "antigravity" not in __import__("sys").modules


def test_load_of_a_node_without_an_artifact_is_an_error() -> None:
    node = Data(seed=1)
    with pytest.raises(FuruStoreError, match="has no node whose hash begins with"):
        furu.load(node.furu_hash)
    node.get()
    with pytest.raises(FuruStoreError, match=f"has no node of {__name__}:Train whose hash begins with"):
        furu.load(node.furu_hash, Train)
    with pytest.raises(FuruStoreError, match="is not a hash"):
        furu.load("xyz")


class Failing(Furu[int]):
    def _create(self) -> int:
        raise ValueError("no")


def test_load_of_a_failed_node_says_that_it_failed() -> None:
    with pytest.raises(furu.FuruComputeError):
        Failing().get()
    with pytest.raises(FuruStoreError, match="is FAILED, so it has no value"):
        furu.load(Failing().furu_hash)


# ---- classes that changed with `furu.field` ----


class Old(Furu[int]):
    _name = "changing:Model"
    lr: float

    def _create(self) -> int:
        return 1


class New(Furu[int]):
    """`Old` with a field renamed, a field added, and a field that is never recorded."""

    _name = "changing:Model"
    rate: float = furu.field(known_as="lr")
    more: tuple[int, ...] = furu.field(default=(), added=True)
    token: str = furu.field(default="", secret=True)

    def _create(self) -> int:
        return 2


def test_nodes_of_before_a_compatible_change_are_made_again() -> None:
    """Their artifacts are still valid, so they are nodes of the class."""
    Old(lr=0.5).get()
    node = New(rate=0.25, more=(1,), token="secret")
    node.get()
    assert {New(rate=0.5): 1, node: 2} == dict(New.stored())
    assert [(New(rate=0.5), 1)] == list(New.stored(rate=0.5, more=()))
    assert [(node, 2)] == list(New.stored(more=[1]))
    assert {"changing:Model"} == {furu.table(New).node_class}
    assert 2 == len(furu.table("Model"))


def test_wanted_value_of_a_wrong_type_is_an_error() -> None:
    with pytest.raises(furu.FuruFieldError, match=r"Train\.rate is declared as float"):
        Train.stored(rate="0.5")

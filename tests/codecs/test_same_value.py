"""What a node returns is what every later load returns: records, unions, models, damaged parts."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pydantic
import pytest

import furu
from furu import Furu, FuruComputeError, FuruLoadError, FuruUsageError
from furu.codecs.comparison import is_same
from furu.codecs.typed import described
from furu.node.base import artifact_of
from tests.codecs.test_results import both, class_of


@dataclasses.dataclass
class Run:
    steps: int
    notes: Any = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(eq=False)
class ByIdentity:
    x: int


@dataclasses.dataclass
class EqualToAll:
    x: Any

    def __eq__(self, other: object) -> bool:
        return True


@dataclasses.dataclass
class Derived:
    x: int

    def __post_init__(self) -> None:
        self.double = 2 * self.x


class Labels(list[int]):
    """A list that may keep attributes."""


class EqualRaises(dict[str, int]):
    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Score(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    value: float
    day: dt.date = dt.date(2031, 5, 6)
    raw: bytes = b""
    tags: set[str] = set()
    label: str = pydantic.Field(default="", alias="labelText")
    other: str = pydantic.Field(default="", validation_alias=pydantic.AliasChoices("o", "p"))
    _seen: int = pydantic.PrivateAttr(default=0)


class Name(pydantic.BaseModel):
    value: str


class Whole(pydantic.BaseModel):
    value: str | int
    parts: list[Name] = []


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Login(pydantic.BaseModel):
    password: pydantic.SecretStr


def with_state(value: Any, **state: Any) -> Any:
    for name, item in state.items():
        setattr(value, name, item)
    return value


def node_of(declared: Any, value: Any) -> Furu[Any]:
    return class_of(declared, lambda self: value)()


def failure(declared: Any, value: Any) -> str:
    """Return the message with which a node fails that returns a value."""
    with pytest.raises(FuruComputeError) as caught:
        node_of(declared, value).get()
    return str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (Run, Run(1, notes={"a": [1]})),
        (list[Run], [Run(1), Run(2, notes="x")]),
        (ByIdentity, ByIdentity(1)),
        (Derived, Derived(2)),
        (list[int], Labels([1])),
        (dict[str, int], EqualRaises(a=1)),
        (set[float], {1.0, math.nan}),
        (Score, Score(value=1.5, raw=b"hi\xff", labelText="x", o="y", tags={"a"})),
        (Numbers, Numbers([1, 2])),
        (list[Score | Name], [Score(value=1.0), Name(value="a")]),
        (list[Name | Whole], [Whole(value=1, parts=[Name(value="b")]), Name(value="a")]),
        (Annotated[list[int], msgspec.Meta(max_length=2), ["not hashable"]], [1]),
    ],
    ids=repr,
)
def test_whole_value_is_read_back(declared: Any, value: Any) -> None:
    """Also what `==` leaves out."""
    for loaded in both(declared, value):
        assert is_same(value, loaded)


@pytest.mark.parametrize(
    ("declared", "value", "words"),
    [
        (Run, Run(1, notes=(1,)), "value.notes is (1,) (tuple) and would come back as [1] (list)"),
        (list[Run], [Run(1, notes=(1,))], "value[0].notes is (1,) (tuple)"),
        (EqualToAll, EqualToAll((1,)), "value.x is (1,) (tuple)"),
        (Run, with_state(Run(1), best=2), "keeps state outside its fields, which is lost: best"),
        (Derived, with_state(Derived(2), double=5), "is lost: double"),
        (list[int], with_state(Labels([1]), name="x"), "(Labels)"),
        (Score, with_state(Score(value=1.0), _seen=3), "is lost: _seen"),
    ],
    ids=repr,
)
def test_value_that_would_lose_something_fails_its_node(declared: Any, value: Any, words: str) -> None:
    assert words in failure(declared, value)


# ---- unions with classes that JSON does not know ----

ARRAY = np.arange(3)


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (int | np.ndarray, 5),
        (int | np.ndarray, ARRAY),
        (Run | np.ndarray, Run(3)),
        (Path | Run, Run(3)),
        (Path | Run, Path("a")),
        (dict[str, int | np.ndarray | None], {"a": 1, "b": ARRAY, "c": None}),
        (dt.date | pd.DataFrame, dt.date(2031, 5, 6)),
        (list[np.ndarray | pd.DataFrame], [ARRAY, pd.DataFrame({"a": [1]})]),
    ],
    ids=repr,
)
def test_each_member_of_a_union_is_read_back(declared: Any, value: Any) -> None:
    for loaded in both(declared, value):
        assert is_same(value, loaded)


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (int | np.ndarray, "abc"),
        (int | np.ndarray, pd.DataFrame({"a": [1]})),
        (dict[str, Run | np.ndarray], {"a": {"steps": "x"}}),
        (npt.NDArray[np.float32], np.zeros(2)),
        (list[npt.NDArray[np.int64]], [np.zeros(2)]),
    ],
    ids=repr,
)
def test_value_of_no_member_fails_its_node(declared: Any, value: Any) -> None:
    assert "does not fit its declared" in failure(declared, value)


@pytest.mark.parametrize(
    "declared",
    [
        dict[tuple[int, int], str],
        dict[Path, int],
        dict[complex, int],
        np.memmap,
        Login,
        list[Login],
        int | Login,
    ],
    ids=repr,
)
def test_type_that_cannot_be_read_back_is_refused_before_it_is_computed(declared: Any) -> None:
    computed: list[int] = []
    with pytest.raises(FuruUsageError, match="Result declares a result of"):
        class_of(declared, computed.append)().get()
    assert [] == computed


# ---- files ----


def test_directory_of_the_node_is_a_result() -> None:
    def create(self: Any) -> Path:
        (self.furu_dir / "a.txt").write_text("a")
        return Path(self.furu_dir)

    node = class_of(Path, create)()
    assert "a" == (node.get() / "a.txt").read_text()
    assert "a" == (node.get() / "a.txt").read_text()


def test_path_below_a_linked_store_is_one_of_the_node_s_files(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    def create(self: Any) -> Path:
        (self.furu_dir / "a.txt").write_text("a")
        return Path(self.furu_dir / "a.txt").resolve()

    node = class_of(Path, create)()
    with furu.use_settings(store=tmp_path / "link"):
        node.get()
    (tmp_path / "link").unlink()
    (tmp_path / "real").rename(tmp_path / "link")
    with furu.use_settings(store=tmp_path / "link"):
        assert "a" == node.get().read_text()


def test_file_with_the_name_of_the_parts_is_named() -> None:
    def create(self: Any) -> Any:
        (self.furu_dir / "furu.parts").write_text("")
        return np.zeros(2)

    with pytest.raises(FuruComputeError, match=r"wrote a file called furu\.parts"):
        class_of(np.ndarray, create)().get()


def test_result_with_nan_only_has_no_files() -> None:
    node = node_of(float, math.nan)
    node.get()
    assert not os.path.exists(artifact_of(node).files.directory)


def test_array_with_hundreds_of_fields_is_read_back() -> None:
    value = np.zeros(2, dtype=[(f"field_{number}", "f8") for number in range(600)])
    for loaded in both(np.ndarray, value):
        assert value.dtype == loaded.dtype


@pytest.mark.parametrize(
    "add",
    [
        lambda path: path.write_text("more"),
        lambda path: path.symlink_to("/etc/hostname"),
        lambda path: path.symlink_to("/etc"),
        os.mkfifo,
    ],
    ids=["file", "link", "link to a directory", "fifo"],
)
def test_part_with_a_file_that_was_not_stored_is_damaged(add: Callable[[Path], None]) -> None:
    node = node_of(np.ndarray, ARRAY)
    node.get()
    [file] = Path(artifact_of(node).files.directory).rglob("array.npy")
    add(file.with_name("more"))
    with pytest.raises(FuruLoadError, match="it also has more"):
        node.get()


@pytest.mark.parametrize(
    "content",
    [
        {"path": []},
        {"complex": [1]},
        {"complex": "x"},
        {"codec": "numpy", "files": {"a": []}},
        {"float": None},
    ],
    ids=repr,
)
def test_description_of_a_damaged_result_is_the_result(content: Any) -> None:
    whole = msgspec.json.encode({"key": "k", "value": [{"k": content}]})
    assert isinstance(msgspec.json.decode(described("parts", whole)), (dict, list))


def test_description_shows_paths_and_numbers() -> None:
    parts = [{"path": ["files", "a.txt"]}, {"path": ["", "/b"]}, {"complex": ["1.0", "2.0"]}]
    whole = msgspec.json.encode({"key": "k", "value": [{"k": part} for part in parts]})
    assert ["furu_dir/a.txt", "/b", "(1+2j)"] == msgspec.json.decode(described("parts", whole))


def test_node_computed_again_while_it_is_loaded_is_read_again() -> None:
    """The files that the first record names are gone when they are read."""
    gone: list[Path] = []

    class Numbers(Furu[list[int]]):
        def _create(self) -> list[int]:
            (self.furu_dir / "numbers").write_text("1")
            return [1]

        def _load(self) -> list[int]:
            if gone:
                os.remove(gone.pop())
                again()
                raise FileNotFoundError("numbers")
            return [int((self.furu_dir / "numbers").read_text())]

    node = Numbers()

    def again() -> None:
        furu.run_local([node])

    assert [1] == node.get()
    gone.append(Path(artifact_of(node).files.done))
    assert [1] == node.get()

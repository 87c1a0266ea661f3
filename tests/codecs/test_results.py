"""Results of many declared types: stored and read back equal, or refused before they are computed."""

from __future__ import annotations

import dataclasses
import fractions
import itertools
import math
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pytest

from furu import (
    Furu,
    FuruComputeError,
    FuruFieldError,
    FuruLoadError,
    FuruResultError,
    FuruUsageError,
    register_codec,
    run_local,
)
from furu.codecs.comparison import is_same
from tests.declared_types import EXAMPLES, NOT_STORED, Example, Optimizer

COMPUTED: list[str] = []
_NUMBERS = itertools.count()


def class_of(declared: Any, create: Any, name: str = "Result", **body: Any) -> type[Furu[Any]]:
    """Return a class with a declared result and a `_create`."""

    def create_and_note(self: Furu[Any]) -> Any:
        COMPUTED.append(name)
        return create(self)

    names = {"__module__": __name__, "__qualname__": name, "_create": create_and_note, **body}
    return types.new_class(name, (Furu[declared],), {}, lambda space: space.update(names))


def both(declared: Any, value: Any) -> tuple[Any, Any]:
    """Return what the first `get()` of a node returns, and what a later one does."""
    node = class_of(declared, lambda self: value, f"Result{next(_NUMBERS)}")()
    return node.get(), node.get()


STORED = [example for example in EXAMPLES if example.name not in NOT_STORED]


@pytest.mark.parametrize("example", STORED, ids=lambda example: example.name)
def test_result_of_the_declared_type_is_read_back(example: Example) -> None:
    first, later = both(example.declared, example.value)
    any_sequence = example.name.startswith("Sequence")  # a tuple is read back as a list
    assert is_same(example.value, first, any_sequence=any_sequence)
    assert is_same(example.value, later, any_sequence=any_sequence)
    assert type(first) is type(later)


@pytest.mark.parametrize(
    "example", [one for one in EXAMPLES if one.name in NOT_STORED], ids=lambda one: one.name
)
def test_result_that_nothing_stores_is_refused_before_it_is_computed(example: Example) -> None:
    COMPUTED.clear()
    node = class_of(example.declared, lambda self: example.value)()
    with pytest.raises(FuruUsageError, match=r"Result declares a result of .*_codec = 'pickle'"):
        node.get()
    with pytest.raises(FuruComputeError, match="Result declares a result of"):
        run_local([node])
    assert [] == COMPUTED


@dataclasses.dataclass
class Opaque:
    """A class that holds a value without a codec."""

    value: fractions.Fraction


@pytest.mark.parametrize(
    "declared",
    [fractions.Fraction, dict[str, fractions.Fraction], Opaque, np.ndarray | fractions.Fraction, object],
)
def test_run_refuses_a_class_before_it_computes_its_dependencies(declared: Any) -> None:
    COMPUTED.clear()
    below = class_of(int, lambda self: 1, "Below")()
    body = {"__annotations__": {"below": Furu[int]}}
    node = class_of(declared, lambda self: fractions.Fraction(1), "Above", **body)(below=below)
    with pytest.raises(FuruComputeError, match="Above"):
        run_local([node])
    assert (["Below", "Above"] if declared is object else []) == COMPUTED


# ---- numbers that JSON does not have ----


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (float, math.nan),
        (float | None, -math.inf),
        (Any, [1.0, math.nan, None, math.inf]),
        (dict[str, float], {"a": math.nan}),
        (tuple[float, ...], (math.inf, 1.0)),
        (Optimizer, Optimizer(math.nan, (1,))),
        (complex, complex(math.nan, -0.0)),
        (list[complex], [1j, 2 + 0j]),
    ],
)
def test_nan_infinity_and_complex_numbers_are_stored_exactly(declared: Any, value: Any) -> None:
    for loaded in both(declared, value):
        assert is_same(value, loaded)
        assert repr(value) == repr(loaded)


def test_numpy_numbers_are_returned_as_python_numbers() -> None:
    for loaded in both(float, np.mean([1, 2])):
        assert (1.5, float) == (loaded, type(loaded))
    for loaded in both(dict[str, list[int]], {"a": [np.int64(3)]}):
        assert (3, int) == (loaded["a"][0], type(loaded["a"][0]))
    for loaded in both(np.float32, np.float32(0.1)):
        assert (np.float32(0.1), np.float32) == (loaded, type(loaded))


# ---- parts inside results ----


class Fit(NamedTuple):
    """A result with parts."""

    weights: np.ndarray
    losses: pd.Series
    steps: int


class Report(msgspec.Struct):
    """A struct with parts at several depths."""

    fits: dict[str, Fit]
    best: np.ndarray | None = None
    notes: Any = None


def test_parts_at_any_depth_are_read_back() -> None:
    fit = Fit(np.arange(3.0), pd.Series([0.5, math.nan], name="loss"), 2)
    report = Report({"a": fit, "b": fit}, np.eye(2), [{"x": np.int8(3), "y": np.zeros(1)}, "text", None])
    for loaded in both(Report, report):
        assert np.array_equal(fit.weights, loaded.fits["b"].weights)
        pd.testing.assert_series_equal(fit.losses, loaded.fits["a"].losses)
        assert (2, 3, "text") == (loaded.fits["a"].steps, loaded.notes[0]["x"], loaded.notes[1])
        assert np.array_equal(np.zeros(1), loaded.notes[0]["y"])


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (np.ndarray | float, np.ones(2)),
        (np.ndarray | float, 1.5),
        (list[np.ndarray | None], [None, np.ones(1)]),
        (dict[str, np.ndarray | pd.DataFrame], {"a": np.ones(1), "b": pd.DataFrame({"x": [1]})}),
        (tuple[pd.DataFrame, dict[str, float]], (pd.DataFrame({"x": [1]}), {"a": 0.5})),
        (Any, {"a": np.ones(1)}),
    ],
)
def test_unions_and_containers_of_parts_are_read_back(declared: Any, value: Any) -> None:
    for loaded in both(declared, value):
        assert type(value) is type(loaded)
        assert is_same(value, loaded)


def test_user_data_that_looks_like_a_placeholder_stays_data() -> None:
    value = {"furu:0123456789abcdef": {"codec": "numpy", "part": 0}, "a": math.nan, "value": {"key": "x"}}
    for loaded in both(dict[str, Any], value):
        assert is_same(value, loaded)


def test_plain_result_has_no_files() -> None:
    node = class_of(dict[str, float], lambda self: {"a": np.float64(1)})()
    node.get()
    assert not node.furu_dir.exists()


def test_large_bytes_are_a_file_and_small_ones_are_not(store: Path) -> None:
    large = class_of(list[bytes], lambda self: [bytes(3 * 2**20), b"x"])()
    assert [bytes(3 * 2**20), b"x"] == large.get() == large.get()
    assert large._artifact().path.stat().st_size < 2**16


def test_changed_value_is_named_with_its_place() -> None:
    with pytest.raises(
        FuruComputeError, match=r"value\['b'\]\[0\] is \(1,\) \(tuple\) and would come back as"
    ):
        class_of(dict[str, Any], lambda self: {"a": math.nan, "b": [(1,)]})().get()


# ---- paths ----


def test_path_to_a_file_of_the_node_is_valid_in_a_moved_store(tmp_path: Path) -> None:
    import furu

    def create(self: Any) -> Path:
        path: Path = self.furu_dir / "plot.txt"
        path.write_text("plot")
        return path

    node = class_of(Path, create)()
    with furu.use_settings(store=tmp_path / "one"):
        assert "plot" == node.get().read_text()
    (tmp_path / "one").rename(tmp_path / "two")
    with furu.use_settings(store=tmp_path / "two"):
        assert "plot" == node.get().read_text()
        assert (tmp_path / "two") in node.get().parents
        node.get().unlink()
        with pytest.raises(FuruLoadError, match=r"plot\.txt of the artifact is gone"):
            node.get()


def test_path_that_was_not_written_is_an_error_of_the_node() -> None:
    with pytest.raises(FuruComputeError, match=r"the returned path .*missing\.txt does not exist"):
        class_of(Path, lambda self: self.furu_dir / "missing.txt")().get()


def test_other_path_is_kept_as_it_is() -> None:
    for loaded in both(dict[str, Any], {"a": Path("a/b"), "b": Path("/nowhere")}):
        assert {"a": Path("a/b"), "b": Path("/nowhere")} == loaded


# ---- what is returned is what is read back ----


def test_value_of_load_is_returned_by_the_first_get_too() -> None:
    def create(self: Any) -> None:
        (self.furu_dir / "numbers").write_text("1 2")

    def load(self: Any) -> list[str]:
        text: str = (self.furu_dir / "numbers").read_text()
        return text.split()

    node = class_of(list[str], create, _load=load)()
    assert ["1", "2"] == node.get() == node.get()


def test_load_that_cannot_read_fails_the_node_before_it_is_published() -> None:
    def load(self: Any) -> str:
        text: str = (self.furu_dir / "other").read_text()
        return text

    node = class_of(str, lambda self: (self.furu_dir / "text").write_text("x"), _load=load)()
    with pytest.raises(
        FuruComputeError, match=r"Result\._load\(\) cannot read what _create\(\) has written"
    ):
        run_local([node])
    assert not node.exists()


class Counted:
    """Counts how often it was unpickled."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def __reduce__(self) -> Any:
        return Counted, (self.count + 1,)


def test_pickled_value_of_the_first_get_was_read_back() -> None:
    node = class_of(Counted, lambda self: Counted(), _codec="pickle")()
    assert 1 == node.get().count == node.get().count


# ---- codecs of users ----


class Words:
    """A class without fields."""

    def __init__(self, words: list[str]) -> None:
        self.words = words


class WordsCodec:
    """Stores words in a text file."""

    name = "words"

    def handles(self, declared: type) -> bool:
        return declared is Words

    def save(self, value: Words, directory: Path) -> dict[str, Any]:
        if "" in value.words:
            raise ValueError("a word is empty")
        (directory / "words.txt").write_text("\n".join(value.words))
        return {"words": len(value.words)}

    def load(self, directory: Path, metadata: dict[str, Any]) -> Words:
        return Words((directory / "words.txt").read_text().split("\n"))


register_codec(WordsCodec())


def test_registered_codec_stores_values_inside_results() -> None:
    node = class_of(dict[str, Words], lambda self: {"a": Words(["x", "y"])})()
    assert ["x", "y"] == node.get()["a"].words == node.get()["a"].words


def test_error_of_a_codec_is_the_node_s_failure() -> None:
    with pytest.raises(
        FuruComputeError, match=r"'words' cannot store a Words: ValueError: a word is empty"
    ):
        class_of(Words, lambda self: Words([""]))().get()


def test_two_codecs_for_one_type_are_an_error_of_the_class_that_declares_it() -> None:
    class Both:
        pass

    class OneCodec(WordsCodec):
        name = "one"

        def handles(self, declared: type) -> bool:
            return declared is Both

    class OtherCodec(OneCodec):
        name = "other"

    register_codec(OneCodec())
    register_codec(OtherCodec())
    with pytest.raises(FuruUsageError, match=r"'one' and 'other' are both codecs for .*Both"):
        class_of(Both, lambda self: Both())().get()
    with pytest.raises(FuruUsageError, match="'one' exists already"):
        register_codec(OneCodec())
    with pytest.raises(FuruUsageError, match="register_codec takes an object with name"):
        register_codec(3)  # type: ignore[arg-type]


def test_furu_imports_no_library_to_store_plain_results() -> None:
    code = (
        "import sys, tempfile, furu\n"
        "class Plain(furu.Furu[dict[str, float]]):\n    def _create(self): return {'a': float('nan')}\n"
        "with furu.use_settings(store=tempfile.mkdtemp()): Plain().get()\n"
        "print([name for name in ('numpy', 'pandas', 'pydantic', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()


def test_fields_and_results_of_one_type_fit_together() -> None:
    """What a node returns for a declared type is accepted as a field of that type, unchanged."""
    for example in STORED:
        loaded = both(example.declared, example.value)[1]
        body = {"__annotations__": {"value": example.declared}}
        try:
            node: Any = class_of(int, lambda self: 1, "Taker", **body)(value=loaded)
        except FuruFieldError as error:
            raise AssertionError(example.name) from error
        assert is_same(example.value, node.value)


def test_result_error_names_the_node() -> None:
    with pytest.raises(FuruComputeError) as caught:
        class_of(list[int], lambda self: ["a"])().get()
    assert isinstance(caught.value.__cause__, FuruResultError)
    assert caught.value.__cause__.node is caught.value.node

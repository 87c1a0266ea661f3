"""The identity of random values."""

from __future__ import annotations

import collections
import copy
import datetime as dt
import decimal
import itertools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.node.values import (
    NAN,
    Access,
    Colour,
    Holder,
    Level,
    OtherHolder,
    OtherPoint,
    Pair,
    Point,
    PointStruct,
    PointTuple,
    Shade,
    Word,
    hash_of,
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from([0, 0.0, -0.0, 1, 1.0, True, False, NAN, "", b"", "1", "i1;", "s1:a", 2**64]),
    st.text(st.characters(codec=None), max_size=4),
    st.binary(max_size=4),
    st.dates(),
    st.datetimes(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.uuids(),
    st.complex_numbers(),
    st.sampled_from([Colour.RED, Colour.BLUE, Shade.RED, Level.RED, Word.RED, Access.READ, Path("1"), int]),
)


keys = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for values that contain other values."""
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.sets(keys, max_size=4),
        st.builds(Point, inner, inner),
        st.builds(PointStruct, inner, inner),
        st.builds(PointTuple, inner, inner),
        st.builds(lambda value: Holder(value=value), inner),
    )


values = st.recursive(scalars | keys, containers, max_leaves=12)


def model(value: Any) -> Any:
    """Return a model of a value as a configuration, which is independent of the encoding."""
    kind = type(value)
    if kind is float:
        return kind, "nan" if value != value else struct.pack(">d", value)
    if kind is complex:
        return kind, model(value.real), model(value.imag)
    if kind in (list, tuple, PointTuple):
        return kind, tuple(model(item) for item in value)
    if kind in (set, frozenset):
        return kind, frozenset(collections.Counter(model(item) for item in value).items())
    if kind is dict:
        items = collections.Counter((model(key), model(item)) for key, item in value.items())
        return kind, frozenset(items.items())
    if kind in (Point, PointStruct):
        return kind, model(value.x), model(value.y)
    if kind is Holder:
        return kind, model(value.value)
    if kind is decimal.Decimal:
        return kind, value.as_tuple()
    if kind is dt.datetime:
        return kind, value, value.fold
    return kind, value


def rebuilt(value: Any) -> Any:
    """Return an equal value that is built in reverse order."""
    kind = type(value)
    if kind in (list, tuple):
        return kind(rebuilt(item) for item in value)
    if kind is PointTuple:
        return PointTuple(*map(rebuilt, value))
    if kind in (set, frozenset):
        return kind(rebuilt(item) for item in reversed(list(value)))
    if kind is dict:
        return {rebuilt(key): rebuilt(item) for key, item in reversed(list(value.items()))}
    if kind in (Point, PointStruct):
        return kind(y=rebuilt(value.y), x=rebuilt(value.x))
    if kind is Holder:
        return Holder(value=rebuilt(value.value))
    return copy.deepcopy(value)


def mutants(value: Any) -> Iterator[Any]:
    """Yield values that differ from this value in one place."""
    kind = type(value)
    yield [value]
    yield (value,)
    yield 17 if value is None else None
    if kind is int:
        yield from (value + 1, -value - 1, str(value), float(value % 2**20))
    elif kind is str:
        yield from (value + "\0", "\0" + value, value + value + "x", value.encode("utf-8", "surrogatepass"))
    elif kind is bytes:
        yield from (value + b"\0", bytearray(value), value.decode("latin-1"))
    elif kind in (list, tuple):
        yield from (
            kind([*value, None]),
            kind([None, *value]),
            tuple(value) if kind is list else list(value),
        )
        for index, item in enumerate(value):
            yield kind([*value[:index], *value[index + 1 :]])
            for mutant in itertools.islice(mutants(item), 4):
                yield kind([*value[:index], mutant, *value[index + 1 :]])
    elif kind in (set, frozenset):
        yield from (kind([*value, "another"]), frozenset(value) if kind is set else set(value), list(value))
    elif kind is dict:
        yield from ({**value, "another": 1}, list(value.items()))
        for key, item in value.items():
            for mutant in itertools.islice(mutants(item), 4):
                yield {**value, key: mutant}
    elif kind in (Point, PointStruct):
        yield from ({"x": value.x, "y": value.y}, OtherPoint(value.x, value.y), (value.x, value.y))
        yield from (kind(mutant, value.y) for mutant in itertools.islice(mutants(value.x), 4))
    elif kind is Holder:
        yield from (OtherHolder(value=value.value), value.furu_hash)
        yield from (Holder(value=mutant) for mutant in itertools.islice(mutants(value.value), 4))


examples = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@examples
@given(values)
def test_random_value_built_in_reverse_has_the_same_hash(value: Any) -> None:
    """A deep copy has the same hash too."""
    assert hash_of(value) == hash_of(rebuilt(value)) == hash_of(copy.deepcopy(value))


@examples
@given(values)
def test_random_value_changed_in_one_place_has_another_hash(value: Any) -> None:
    own = hash_of(value)
    for mutant in mutants(value):
        if model(value) != model(mutant):
            assert own != hash_of(mutant), f"{mutant!r} has the hash of {value!r}"


@examples
@given(values, values)
def test_random_values_have_the_same_hash_exactly_if_they_are_equal(one: Any, other: Any) -> None:
    """Two values are equal if their models are equal. The models are independent of the encoding."""
    assert (model(one) == model(other)) == (hash_of(one) == hash_of(other))


@examples
@given(st.lists(st.sampled_from(list("si:;1[({<.")), max_size=12), st.data())
def test_text_that_looks_like_the_encoding_is_only_text(characters: list[str], data: Any) -> None:
    """If a text is split at two different places, the two pairs have different hashes."""
    text = "".join(characters)
    one = data.draw(st.integers(0, len(text)))
    other = data.draw(st.integers(0, len(text)))
    assume(one != other)
    assert hash_of([text[:one], text[one:]]) != hash_of([text[:other], text[other:]])
    assert Pair(a=text[:one], b=text[one:]) != Pair(a=text[:other], b=text[other:])

"""The differences between two configurations: the path and the two values of each leaf."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from furu.planning.compare import Difference, differences, leaves

NODE = {"node": "models:Data", "hash": "0" * 32}
configurations = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.recursive(
        st.none() | st.booleans() | st.integers(-3, 3) | st.text("xy", max_size=2),
        lambda inside: (
            st.lists(inside, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inside, max_size=2)
        ),
        max_leaves=6,
    ),
    max_size=3,
)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": 1}, {"a": 2}, [Difference("a", 1, 2)]),
        ({"a": 1}, {"a": True}, [Difference("a", 1, True)]),
        ({"a": [1, 2]}, {"a": [1, 3]}, [Difference("a[1]", 2, 3)]),
        ({"a": {"b": [0]}}, {"a": {"b": [0, 5]}}, [Difference("a.b[1]", None, 5, "after")]),
        ({"a": 1, "b": 2}, {"b": 2}, [Difference("a", 1, None, "before")]),
        (
            {"a": NODE},
            {"a": {**NODE, "hash": "1" * 32}},
            [Difference("a", NODE, {**NODE, "hash": "1" * 32})],
        ),
        ({"a": []}, {"a": {}}, [Difference("a", [], {})]),
        # A file that was moved is the same input.
        ({"a": {**NODE, "path": "x"}}, {"a": {**NODE, "path": "y"}}, []),
        ({"a": {**NODE, "path": "x"}}, {"a": NODE}, []),
    ],
)
def test_difference_has_its_path(before: Any, after: Any, expected: list[Difference]) -> None:
    """A node counts as a leaf, and True differs from 1."""
    assert expected == differences(before, after)


@given(configurations)
def test_configuration_does_not_differ_from_itself(config: dict[str, Any]) -> None:
    assert [] == differences(config, dict(config))


@given(configurations, configurations)
def test_differences_are_symmetric(one: dict[str, Any], other: dict[str, Any]) -> None:
    there = {(found.path, str(found.before), str(found.after)) for found in differences(one, other)}
    back = {(found.path, str(found.after), str(found.before)) for found in differences(other, one)}
    assert there == back


def test_deep_configuration_needs_no_recursion() -> None:
    deep: Any = 1
    for _ in range(2_000):
        deep = [deep]
    ((path, leaf),) = leaves({"a": deep})
    assert (1, 6_001) == (leaf, len(path))

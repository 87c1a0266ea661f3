"""Window counts active roots, so its tests need no disk, no threads and no clock."""

from __future__ import annotations

import pytest

from furu.errors import FuruError
from furu.execution.window import Window


def test_dfs_has_room_for_one_root() -> None:
    window = Window("dfs")
    assert 1 == window.room()
    window.activated()
    assert 0 == window.room()
    window.completed()
    assert 1 == window.room()


def test_bfs_has_room_for_any_number() -> None:
    """All roots are active from the start."""
    window = Window("bfs")
    window.activated(1_000_000)
    assert None is window.room()


def test_int_window_admits_a_root_for_each_root_that_completes() -> None:
    """Up to k roots are active. When a root completes, another root may enter."""
    window = Window(3)
    window.activated(3)
    assert 0 == window.room()
    window.completed()
    window.completed()
    assert (2, 1) == (window.room(), window.active)


@pytest.mark.parametrize("wrong", [True, False, 1.5, None, [1]])
def test_wrong_type_says_what_is_allowed(wrong: object) -> None:
    """A bool is rejected although it is an int."""
    with pytest.raises(TypeError, match=r"'dfs' .* 'bfs' .* int of 1 or more, not "):
        Window(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [0, -1, "", "DFS", "3"])
def test_wrong_value_says_what_is_allowed(wrong: str | int) -> None:
    with pytest.raises(ValueError, match=r"'dfs' .* 'bfs' .* int of 1 or more, not "):
        Window(wrong)


def test_miscounting_is_an_error() -> None:
    window = Window(2)
    with pytest.raises(FuruError, match="3 roots activated in a window with room for 2"):
        window.activated(3)
    with pytest.raises(FuruError, match="none is active"):
        window.completed()

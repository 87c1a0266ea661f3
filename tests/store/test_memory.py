"""The values that a process keeps in memory."""

from __future__ import annotations

from furu.store.memory import Memory


def test_entry_is_found_only_with_its_identity() -> None:
    memory = Memory()
    memory.keep("key", 1, "value", 10, 100)
    assert "value" == memory.find("key", 1)
    assert memory.find("key", 2) is None
    assert memory.find("other", 1) is None


def test_least_recently_used_entries_are_dropped() -> None:
    memory = Memory()
    for key in "abc":
        memory.keep(key, 1, key, 10, 30)
    memory.find("a", 1)
    memory.keep("d", 1, "d", 20, 30)
    assert ["a", None, None, "d"] == [memory.find(key, 1) for key in "abcd"]
    assert 30 == memory.size_bytes


def test_new_value_replaces_the_old_one() -> None:
    memory = Memory()
    memory.keep("key", 1, "old", 10, 100)
    memory.keep("key", 2, "new", 20, 100)
    assert (None, "new", 20) == (memory.find("key", 1), memory.find("key", 2), memory.size_bytes)


def test_value_that_is_too_large_is_not_kept_and_drops_no_others() -> None:
    memory = Memory()
    memory.keep("small", 1, "small", 10, 30)
    memory.keep("large", 1, "large", 31, 30)
    assert ("small", None) == (memory.find("small", 1), memory.find("large", 1))

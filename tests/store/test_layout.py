"""Names in a store: no name leads out of the store, and different names do not collide."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from furu.settings import use_settings
from furu.store.artifact import Artifact
from furu.store.layout import (
    OWNERS,
    encode_component,
    is_identifier,
    owners_directory,
    parse_hash,
    parse_numbered,
)
from tests.store.processes import artifact, compute, names, node_files

HASH = "0123456789abcdef" * 2
HOSTILE = [
    "",
    ".",
    "..",
    "...",
    "%",
    "%2E.",
    "%6Fwners",
    "/",
    "//",
    "/etc/passwd",
    "../../up",
    "a/../../b",
    "a\0b",
    "\0",
    "a\nb",
    "owners",
    "Owners",
    "OWNERS",
    "owners/x",
    "model",
    "Model",
    "MODEL",
    "~",
    "~root",
    "a b",
    "-rf",
    ".hidden",
    "naïve",
    "nai\u0308ve",
    "\udce9",
    "C.<locals>.D",
    "x" * 119,
    "x" * 120,
    "x" * 121,
    "x" * 300,
    "x" * 300 + "y",
    "X" * 300,
    "/" * 300,
    "\N{SNOWMAN}" * 300,
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_hostile_name_becomes_one_plain_component(name: str, tmp_path: Path) -> None:
    """The component names a directory one level down, which is not furu's own `owners`."""
    component = encode_component(name)
    assert "/" not in component
    assert "\0" not in component
    assert component.isascii()
    assert not component.startswith(".")
    assert component not in ("", OWNERS)
    (tmp_path / component).mkdir()
    assert [component] == os.listdir(tmp_path)


def test_different_names_never_share_a_component() -> None:
    """The names differ in case, in encoding, or only at the end."""
    for one, other in itertools.combinations(HOSTILE, 2):
        assert encode_component(one) != encode_component(other), (one, other)


@given(st.text(max_size=400), st.text(max_size=400))
def test_any_two_names_have_different_components(one: str, other: str) -> None:
    """Each component is short enough for any filesystem."""
    components = {encode_component(one), encode_component(other)}
    assert len({one, other}) == len(components)
    assert all(0 < len(component.encode()) <= 120 for component in components)


def test_plain_name_is_not_encoded() -> None:
    assert "package.module" == encode_component("package.module")
    assert "make.<locals>.Inner" == encode_component("make.<locals>.Inner")


@pytest.mark.parametrize(
    "name", ["..", "/", "a\0b", "", "owners", "x" * 300, "../../up", "\udce9"], ids=ascii
)
def test_node_with_hostile_class_stays_inside_its_store(name: str, store: Path, tmp_path: Path) -> None:
    """The node's artifact is three levels below the store, and nothing is created outside the store."""
    plain = artifact()
    files = node_files(store, name, name, HASH)
    place = Artifact(plain.settings, files, f"{name}:{name}".encode("ascii", "replace").decode(), HASH)
    compute(place)
    assert ["done"] == names(place)
    assert [store.name] == os.listdir(tmp_path)
    done = Path(files.done).resolve()
    assert store.resolve() == done.parents[2]
    assert OWNERS != done.parents[1].name


def test_classes_that_differ_only_in_case_do_not_share_artifacts(store: Path) -> None:
    settings = artifact().settings
    one = Artifact(settings, node_files(store, "m", "Model", HASH), "m:Model", HASH)
    other = Artifact(settings, node_files(store, "m", "MODEL", HASH), "m:MODEL", HASH)
    compute(one)
    assert (True, False) == (one.is_done(), other.is_done())


@pytest.mark.parametrize(
    "text", ["", "../../x", HASH.upper(), HASH[1:], HASH + "0", HASH + "\n", "/" * 32, "." * 32], ids=ascii
)
def test_only_hashes_name_nodes_and_owners(text: str) -> None:
    assert not is_identifier(text)
    assert is_identifier(HASH)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("try-1", ("try-", 1)),
        ("try-12", ("try-", 12)),
        ("a3", None),
        ("a3-0f", ("a", 3)),
        ("rejected-4", ("rejected-", 4)),
        (f"tmp-5-{HASH}", ("tmp-", 5)),
        ("try-0", None),
        ("try-01", None),
        ("try-1\n", None),
        ("try--1", None),
        ("try-1.bak", None),
        ("try-\u0661", None),
        ("a", None),
        ("b1", None),
        ("tmp-5", None),
        ("tmp-5-../x", None),
        ("done", None),
    ],
    ids=ascii,
)
def test_only_names_that_furu_writes_are_read_as_attempts(
    name: str, expected: tuple[str, int] | None
) -> None:
    assert expected == parse_numbered(name)


def test_every_name_of_a_node_begins_with_its_hash(tmp_path: Path) -> None:
    """The names are those in the documentation."""
    files = node_files(tmp_path, "package.module", "Outer.Inner", HASH)
    node = f"{tmp_path}/package.module/Outer.Inner/{HASH}"
    assert [
        f"{tmp_path}/owners",
        node,
        f"{node}.try-1",
        f"{node}.d/try-2",
        f"{node}.d/a1-{HASH}",
        f"{node}.d/tmp-1-{HASH}",
        f"{node}.d/rejected-1",
    ] == [
        owners_directory(tmp_path),
        files.done,
        files.attempt(1),
        files.attempt(2),
        files.files(1, HASH),
        files.temporary(1, HASH),
        files.rejected(1),
    ]
    assert (node, f"{node}.try-1", f"{node}.d") == files.all


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (HASH, HASH),
        (f"{HASH}.try-1", HASH),
        (f"{HASH}.d", HASH),
        (f"{HASH}.try-2", None),
        (f"{HASH}.", None),
        (f"{HASH}.d.bak", None),
        (f"{HASH}x", None),
        (HASH.upper(), None),
        (f"removed-{HASH[:16]}", None),
        ("", None),
        (".d", None),
    ],
    ids=ascii,
)
def test_only_names_that_furu_writes_are_read_as_nodes(name: str, expected: str | None) -> None:
    assert expected == parse_hash(name)


def test_same_node_in_two_stores_has_two_artifacts(tmp_path: Path) -> None:
    compute(artifact())
    with use_settings(store=tmp_path / "second"):
        assert not artifact().is_done()
    assert artifact().is_done()

"""Hashes are the same in every process and on every version of Python."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import furu
from tests.node.values import Holder, Pair

# ---- other processes, other versions of Python ----


GOLDEN_SOURCE = """
from __future__ import annotations
import dataclasses, datetime as dt, decimal, enum, fractions, json, pathlib, sys, typing, uuid
import msgspec
from furu import Furu, register_canonical_form

class Leaf(Furu[int]):
    value: typing.Any = None

class Raised(Furu[int]):
    _version = 3
    b: int
    a: str = "x"
    note: object = dataclasses.field(default=None, compare=False)

@dataclasses.dataclass(frozen=True)
class Config:
    rate: float
    tags: frozenset[str] = frozenset()

class Packed(msgspec.Struct):
    y: int
    x: int

class Named(typing.NamedTuple):
    b: int
    a: int

class Colour(enum.Enum):
    RED = 1

class Access(enum.IntFlag):
    READ = 1
    WRITE = 2

class Foreign:
    pass

register_canonical_form(Foreign, lambda value: ("foreign", 1))

def function():
    class Local(Furu[int]):
        x: int
    return Local(x=1)

def ladder(steps):
    node = Leaf()
    for _ in range(steps):
        node = Leaf(value=(Leaf(value=[node]), Leaf(value={node})))
    return node

words = ["pear", "apple", "fig", "quince", "plum"]
VALUES = {
    "none": None, "ellipsis": ..., "true": True, "one": 1, "minus": -255, "huge": 10**5000,
    "float": 0.1, "minus zero": -0.0, "nan": float("nan"), "inf": float("inf"), "complex": 1-2j,
    "str": "h\\u00e9llo", "surrogate": "\\ud800", "bytes": b"\\0\\xff", "bytearray": bytearray(b"a"),
    "tuple": (1, (2,), ()), "list": [1, [2], []], "set": set(words), "frozenset": frozenset(words),
    "set of tuples": {(word, i) for i, word in enumerate(words)}, "range": range(1, 9, 2),
    "dict": {word: i for i, word in enumerate(words)},
    "mixed keys": {1: "a", "1": "b", None: "c", (1,): "d"},
    "date": dt.date(2024, 2, 29), "datetime": dt.datetime(2024, 2, 29, 1, 2, 3, 4, fold=1),
    "aware": dt.datetime(2024, 2, 29, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
    "time": dt.time(1, 2, 3), "timedelta": dt.timedelta(-1, 2, 3), "utc": dt.timezone.utc,
    "decimal": decimal.Decimal("1.50E+3"), "fraction": fractions.Fraction(1, 3), "uuid": uuid.UUID(int=7),
    "path": pathlib.Path("a/b"), "windows": pathlib.PureWindowsPath("c:/a"), "class": Config, "int": int,
    "enum": Colour.RED, "flag": Access.READ | Access.WRITE, "dataclass": Config(0.5, frozenset(words)),
    "struct": Packed(1, 2), "namedtuple": Named(1, 2), "foreign": Foreign(),
    "nodes": {Leaf(value=word) for word in words},
}

def hashes():
    found = {name: Leaf(value=value).furu_hash for name, value in VALUES.items()}
    found["(versioned)"] = Raised(b=1, note=object()).furu_hash
    found["(local)"] = function().furu_hash
    found["(ladder)"] = ladder(50).furu_hash
    return found
"""


# If a hash here changes, the names of artifacts change. Such a change needs a new _ENCODING_VERSION and a
# line in the changelog.
GOLDEN: dict[str, str] = {
    "none": "7cad3aaa192dfb21d482766db4285157",
    "ellipsis": "a4403b728cd713e7a988577a4948cbb6",
    "true": "1323b72b7d876352982f8f1a91298fb7",
    "one": "7a88db423ebbfea9dde8e3b2b1e9e4c1",
    "minus": "0ed1b236da0fd50b5d1955fc2b82bb22",
    "huge": "7f74c5680c27bd8562d6632d119e4971",
    "float": "2717348bb47d6f78e90c5cdfcf871c4c",
    "minus zero": "907323f14c810f8469afe5957fd0b215",
    "nan": "eb420654b245c878060f2e7a2c7d37aa",
    "inf": "0a6021e4e1be54bcbbff17e3dd172581",
    "complex": "566782fed3051e114c47f5d795e167f6",
    "str": "beb69dbd9d50c00034e93b17bc0bc2bb",
    "surrogate": "41d790238d5bf1fb1ada828e72c1ff45",
    "bytes": "57eba9e3d2abfa64d98769a8f5a75bf8",
    "bytearray": "389e11a69a5a01b0deb377ed3d2f0b34",
    "tuple": "1cc3a224eac4aa5b0e2e79a14183c01c",
    "list": "53757deb1f6492e86eebd1670a3f7c81",
    "set": "e03400b18897ea57a45a6286c8a71dbf",
    "frozenset": "00e2488e95666abde2d7d6f1545e2d84",
    "set of tuples": "cd26b205a3e1b40f10f7ec23f26e384a",
    "range": "bb13ec9213bfbaedca489e146ce3a3ea",
    "dict": "6011b2829fd19cbba983449ebfa702a5",
    "mixed keys": "a13888104f4057ee3f34958d426827ea",
    "date": "589dba25631d47e31b3565cb2ff8b44b",
    "datetime": "5540589bcb58a2e5b8b3e37198935139",
    "aware": "2501d63ca2a5bc4182867d099df18024",
    "time": "37cad8a1d6210943c83178e1b3397abc",
    "timedelta": "0af190ffe99a3652b5c46b8a3794623e",
    "utc": "9af64c05cdd013191fc37f1f99307a20",
    "decimal": "9989dc07f3e4ecc3d04e59ff68ccc6d8",
    "fraction": "6fd32ed66c0bee20062d9d469dc135b2",
    "uuid": "0bb1a7020664bf8073a0827fcea6b0a7",
    "path": "019f74476a07af81b1a3b06e3bbb06a7",
    "windows": "a4f4b96a5a9f0c9334e3790ad76d82a0",
    "class": "b661328ad2a868f4a39a7d1f7104e918",
    "int": "8a1d380e161f6e3065a75d3b47f5f47d",
    "enum": "6664d22fb2750955dcf0711e41766dd6",
    "flag": "e45704d543d50d618164fa3426a89318",
    "dataclass": "2d940a3ac9c14d9fca0141baa4c7ebaf",
    "struct": "37a3a75319f77d05b4a51975b17ffbf0",
    "namedtuple": "1999af6c05be1380aaae54026ca07fd9",
    "foreign": "997fa847c9ab6486db902cb8d6d39eef",
    "nodes": "627c214ef596ba1b7e1b5048bdb08f31",
    "(versioned)": "aec1bc7dd19e9ba80ad8350de97fda90",
    "(local)": "5999b80bbf3a9adfaf71b9619ba5b824",
    "(ladder)": "d868a99ba3303b351eae0cc8ac122a0a",
}


def golden_hashes(seed: str, folder: Path) -> dict[str, str]:
    """Return the hashes that a new process computes."""
    (folder / "golden.py").write_text(GOLDEN_SOURCE)
    code = "import golden, json; print(json.dumps(golden.hashes()))"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONHASHSEED": seed,
        "PYTHONPATH": os.pathsep.join([str(folder), str(Path(furu.__file__).parent.parent)]),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert "" == done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_hashes_are_the_same_in_every_process_under_any_hash_seed(seed: str, tmp_path: Path) -> None:
    """The tests run on every supported version of Python, and compare with the same table."""
    assert golden_hashes(seed, tmp_path) == GOLDEN


def test_golden_values_are_all_different() -> None:
    assert len(GOLDEN) == len(set(GOLDEN.values())) >= 40


# ---- cost ----


@pytest.fixture
def hashed_bytes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of bytes in each hash. The recursion limit is Python's default during the test."""
    sizes: list[int] = []

    def blake2b(content: bytes, **options: Any) -> Any:
        sizes.append(len(content))
        return hashlib.blake2b(content, **options)

    monkeypatch.setattr("furu.node.identity.hashlib", types.SimpleNamespace(blake2b=blake2b))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield sizes
    sys.setrecursionlimit(limit)


def test_chain_of_100_000_nodes_is_hashed_once_a_node(hashed_bytes: list[int]) -> None:
    """n0 <- n1 <- n2 ... needs no recursion, and all nodes with a dependency have the same cost."""
    started = time.perf_counter()
    node = Holder()
    for _ in range(100_000):
        node = Holder(value=node)
    elapsed = time.perf_counter() - started
    assert 100_001 == len(hashed_bytes)
    assert 1 == len(set(hashed_bytes[1:]))
    assert elapsed < 15  # about one second; quadratic time would be hours
    while node is not None:  # free the chain from the top, so that this needs no recursion either
        node = node.value


def test_ladder_of_1_000_diamonds_is_hashed_once_a_node(hashed_bytes: list[int]) -> None:
    r"""
     top
    /   \
    left right
    \   /
     base, which is the top of the next diamond: 2**1000 paths
    """
    top: Any = Holder()
    for _ in range(1000):
        top = Pair(a=Holder(value=("left", top)), b=Holder(value=("right", top)))
    assert 3001 == len(hashed_bytes)
    assert 4 == len(set(hashed_bytes))
    copied = dataclasses.replace(top)
    assert top.furu_hash == copied.furu_hash
    assert 3002 == len(hashed_bytes)

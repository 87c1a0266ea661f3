"""Power cuts after every call of a publish, with everything that the disk may have kept of the calls.

With durability="power", a DONE artifact is whole, whatever was lost, and a published artifact stays.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from furu.store.artifact import Artifact
from furu.store.attempt import Attempt
from furu.store.claim import claim
from furu.store.layout import NodeFiles
from furu.store.local import Process, acting_as, this_process
from tests.faults import figures
from tests.faults.power import Recorder, make_tree
from tests.faults.syscalls import Syscalls
from tests.store.processes import artifact, begin, fail, publish, result

LONG = os.environ.get("FURU_FAULTS") == "long"
DRAWN = 400 if LONG else 8


def write(path: str, content: str) -> None:
    """Write a file of a node with the recorded calls."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    os.write(descriptor, content.encode())
    os.close(descriptor)


def compute(attempt: Attempt, value: str) -> None:
    """Write two files, one of them in a subdirectory, and publish."""
    directory = attempt.files_directory()
    write(f"{directory}/data", value * 1000)
    os.mkdir(f"{directory}/deep")
    write(f"{directory}/deep/data", value * 2000)
    assert publish(attempt, value)


def first(place: Artifact) -> None:
    compute(begin(place), "new")


def without_files(place: Artifact) -> None:
    assert publish(begin(place), "new")


def after_failure(place: Artifact) -> None:
    attempt = begin(place)
    write(f"{attempt.files_directory()}/data", "of the failure")
    assert fail(attempt) is None
    compute(begin(place), "new")


def replacement(place: Artifact) -> None:
    compute(begin(place), "old")
    compute(begin(place, lambda: result(place) == "old"), "new")


WAYS: dict[str, Callable[[Artifact], None]] = {
    "first": first,
    "without files": without_files,
    "after a failure": after_failure,
    "replacement": replacement,
}


def moved(place: Artifact, store: Path) -> Artifact:
    """Return the artifact of the same node in another store."""
    done = place.files.done.removeprefix(os.fspath(place.settings.store))
    settings = dataclasses.replace(place.settings, store=store, durability="process")
    return msgspec.structs.replace(place, settings=settings, files=NodeFiles(f"{store}{done}"))


def problem_of(place: Artifact, way: str) -> str | None:
    """Return what is wrong with a node after a power cut."""
    if not place.is_done():
        return None
    record = place.read()
    assert record is not None
    value = json.loads(bytes(record.result))
    if way == "without files":
        return None
    directory = f"{place.files.directory}/{record.files}"
    for name, content in (("data", value * 1000), ("deep/data", value * 2000)):
        path = Path(directory, name)
        if not path.exists() or path.read_text() != content:
            return f"DONE with {value}, and {path} is not whole"
    return None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", WAYS)
def test_power_cut_at_any_call_leaves_a_whole_artifact_or_none(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node is computed for the first time, after a failure, or to replace a rejected artifact."""
    base = tmp_path / "disk"
    base.mkdir()
    place = artifact(store=base / "project" / "store", durability="power")
    recorder = Recorder(str(base))
    syscalls = Syscalls(str(base), recorder)
    syscalls.install()
    try:
        with acting_as(Process(beats=False)):
            WAYS[way](place)
    finally:
        syscalls.uninstall()
    draw, cuts, seen = random.Random(way), 0, set()
    node = place.files.done.removeprefix(str(base))
    for calls in sorted({0, recorder.calls, *(one.number for one in recorder.changes)}):
        for state in recorder.states(calls, draw, DRAWN):
            cuts += 1
            tree = recorder.tree(state)
            of_node = frozenset(one for one in tree.items() if one[0].startswith(node))
            assert of_node or calls < recorder.calls, (calls, state)
            if of_node in seen and calls < recorder.calls:
                continue
            seen.add(of_node)
            left = tmp_path / "left"
            make_tree(tree, str(left))
            there = moved(place, left / "project" / "store")
            problem = problem_of(there, way)
            figures.count(figures.TORN, problem is not None)
            assert problem is None, (calls, state)
            if calls == recorder.calls:
                assert "new" == result(there), (calls, state)
            elif of_node and len(seen) % 5 == 0:
                recovers(there)
            shutil.rmtree(left)
    figures.count("power cuts", cuts)


def recovers(place: Artifact) -> None:
    """Check that the node is done or can be computed."""
    attempt = claim(place, lambda: result(place) == "old")
    assert (attempt is None) is (result(place) == "new")
    if attempt is not None:
        compute(attempt, "new")
        assert problem_of(place, "again") is None
    this_process().end()

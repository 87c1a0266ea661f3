"""Copied stores, and processes that are killed while they publish."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from furu import Status
from furu.store.artifact import survey
from furu.store.claim import claim
from tests.store.processes import (
    Other,
    OtherProcess,
    artifact,
    begin,
    compute,
    fail,
    names,
    publish,
    result,
)


def test_copied_store_works(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a copy, done and failed nodes keep their status. Attempts are dead, as their files are not
    locked."""
    compute(artifact("done"), "value")
    fail(begin(artifact("failed")))
    begin(artifact("running"))
    with OtherProcess() as other:
        other.begin(artifact("elsewhere"))
        shutil.copytree(store, tmp_path / "copy", copy_function=shutil.copyfile)
        monkeypatch.setenv("FURU_PATH", str(tmp_path / "copy"))
        expected = [Status.DONE, Status.FAILED, Status.TODO, Status.TODO]
        found = [survey(artifact(name)).status for name in ("done", "failed", "running", "elsewhere")]
        assert expected == found
    assert "value" == result(artifact("done"))
    for name in ("failed", "running", "elsewhere"):
        attempt = begin(artifact(name))
        assert 2 == attempt.number
        assert publish(attempt)
    assert [["done", "try-1"], ["done"]] == [names(artifact(name)) for name in ("failed", "running")]


@pytest.mark.parametrize("step", ["link", "write", "close", "unlink"])
def test_process_killed_at_any_step_of_publishing_leaves_all_or_nothing(step: str) -> None:
    """The node is either DONE with the whole value, or TODO."""
    script = f"""
place = artifact("{step}")
attempt = begin(place)
put(attempt.files_directory() + "/file", "x")
real = os.{step}
def killed(*args, **kwargs):
    os.kill(os.getpid(), {int(signal.SIGKILL)})
os.{step} = killed
publish(attempt, "whole")
"""
    place = artifact(step)
    with Other(script) as other:
        assert -signal.SIGKILL == other.process.wait()
    found = survey(place).status
    assert (Status.DONE if step == "unlink" else Status.TODO) is found
    if found is Status.DONE:
        assert claim(place) is None
    else:
        compute(place, "whole")
    assert "whole" == result(place)

"""A checkpoint outlives attempts that do not publish, and is removed with the one that does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import furu
from furu import Furu, FuruComputeError, FuruResultError, Status, catalog, current_settings, run_local
from furu.node.base import artifact_of
from furu.store.removal import remove

EPOCHS: list[int] = []
AFTER_EPOCH: list[Callable[[int], object]] = []


@pytest.fixture(autouse=True)
def _empty_record() -> Iterator[None]:
    EPOCHS.clear()
    AFTER_EPOCH.clear()
    yield
    AFTER_EPOCH.clear()


class Train(Furu[int]):
    """Goes on from the epoch that it has saved."""

    epochs: int = 4

    def _create(self) -> int:
        saved = self.checkpoint_dir / "epoch"
        first = int(saved.read_text()) if saved.exists() else 0
        for epoch in range(first, self.epochs):
            EPOCHS.append(epoch)
            new = saved.with_suffix(".new")
            new.write_text(str(epoch + 1))
            new.replace(saved)
            for act in AFTER_EPOCH:
                act(epoch)
        return self.epochs


def fail_after(epoch: int) -> Callable[[int], object]:
    def act(now: int) -> None:
        if now == epoch:
            raise ConnectionError("lost")

    return act


def checkpoint_of(node: Furu[Any]) -> list[str]:
    directory = Path(artifact_of(node).files.directory)
    return [path.name for path in directory.glob("checkpoint*")] if directory.exists() else []


def test_failed_node_resumes_from_its_checkpoint() -> None:
    AFTER_EPOCH.append(fail_after(1))
    with pytest.raises(FuruComputeError, match="lost"):
        run_local([Train()])
    assert (["checkpoint"], "2") == (checkpoint_of(Train()), (Train().checkpoint_dir / "epoch").read_text())
    AFTER_EPOCH.clear()
    run_local([Train()])
    assert [0, 1, 2, 3] == EPOCHS
    assert [] == checkpoint_of(Train())


def test_retried_node_resumes_from_its_checkpoint() -> None:
    class Retried(Train):
        _retry = furu.Retry(attempts=3, on=ConnectionError, delay_sec=0.001)

    AFTER_EPOCH.append(lambda epoch: fail_after(1)(epoch) if EPOCHS.count(1) == 1 else None)
    assert 1 == run_local([Retried()]).retried
    assert [0, 1, 2, 3] == EPOCHS


def test_published_node_leaves_no_directory() -> None:
    run_local([Train()])
    assert not os.path.exists(artifact_of(Train()).files.directory)


def test_node_with_files_keeps_only_its_files() -> None:
    class WithFile(Train):
        def _create(self) -> int:
            (self.furu_dir / "model").write_text("m")
            return super()._create()

    run_local([WithFile()])
    assert "m" == (WithFile().furu_dir / "model").read_text()
    assert [] == checkpoint_of(WithFile())


KILLED = """
import sys
sys.path[:] = {path!r}
from tests.node.test_checkpoints import AFTER_EPOCH, Train
import furu, os, signal
AFTER_EPOCH.append(lambda epoch: os.kill(os.getpid(), signal.SIGKILL) if epoch == 1 else None)
furu.run_local([Train()])
"""


def test_killed_process_loses_only_what_came_after_its_checkpoint() -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED.format(path=sys.path)], check=False)
    assert -signal.SIGKILL == killed.returncode
    assert Status.TODO is Train().status()
    run_local([Train()])
    assert [2, 3] == EPOCHS
    assert [] == checkpoint_of(Train())


def test_worker_process_keeps_a_checkpoint() -> None:
    report = run_local([Train()], workers=furu.ProcessWorkers(), max_workers=1)
    assert (1, []) == (report.computed, checkpoint_of(Train()))


# ---- nodes that are computed again ----


def test_node_computed_again_starts_anew() -> None:
    """It must not go on from what the published attempt has left, if its process died before it removed
    that."""
    run_local([Train()])
    left = Path(artifact_of(Train()).files.checkpoint(None))
    left.mkdir(parents=True)
    (left / "epoch").write_text("4")
    EPOCHS.clear()
    run_local([Train()], again=[Train()])
    assert [0, 1, 2, 3] == EPOCHS
    assert [] == checkpoint_of(Train())


def test_failed_replacement_resumes_from_its_checkpoint() -> None:
    run_local([Train()])
    EPOCHS.clear()
    AFTER_EPOCH.append(fail_after(1))
    with pytest.raises(FuruComputeError):
        run_local([Train()], again=[Train()])
    assert 1 == len(checkpoint_of(Train()))
    AFTER_EPOCH.clear()
    run_local([Train()], again=[Train()])
    assert [0, 1, 2, 3] == EPOCHS
    assert [] == checkpoint_of(Train())


def test_node_whose_artifact_is_rejected_starts_anew() -> None:
    accepts = [True]

    class Judged(Train):
        def _validate(self) -> bool:
            return accepts[0] or bool(EPOCHS)

    run_local([Judged()])
    left = Path(artifact_of(Judged()).files.checkpoint(None))
    left.mkdir(parents=True)
    (left / "epoch").write_text("4")
    EPOCHS.clear()
    accepts[0] = False
    run_local([Judged()])
    assert [0, 1, 2, 3] == EPOCHS


# ---- results, removal ----


def test_result_in_the_checkpoint_is_refused() -> None:
    class Returns(Furu[Path]):
        def _create(self) -> Path:
            path = self.checkpoint_dir / "model"
            path.write_text("m")
            return path

    with pytest.raises(
        FuruComputeError, match=r"is not in furu_dir, .* move the file to self\.furu_dir"
    ) as caught:
        Returns().get()
    assert isinstance(caught.value.__cause__, FuruResultError)
    assert "m" == (Returns().checkpoint_dir / "model").read_text()


def test_removed_node_starts_anew() -> None:
    AFTER_EPOCH.append(fail_after(1))
    with pytest.raises(FuruComputeError):
        run_local([Train()])
    assert remove(artifact_of(Train()))
    AFTER_EPOCH.clear()
    EPOCHS.clear()
    run_local([Train()])
    assert [0, 1, 2, 3] == EPOCHS


def test_checkpoint_that_is_written_makes_its_node_recent() -> None:
    """`furu gc --older-than` must not remove what a preempted job has saved a moment ago."""
    AFTER_EPOCH.append(fail_after(1))
    with pytest.raises(FuruComputeError):
        run_local([Train()])
    artifact = next(catalog.walk(current_settings()))
    for path in (*artifact.files.all, Train().checkpoint_dir):
        if os.path.exists(path):
            os.utime(path, (0, 0))
    assert catalog.changed_at(artifact) > time.time() - 3600


def test_checkpoint_of_a_node_that_does_not_run_is_a_path_only() -> None:
    assert not Train().checkpoint_dir.exists()
    assert not os.path.exists(artifact_of(Train()).files.directory)

"""Owners and claims when a process exits or forks."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from furu import Status
from furu.store.artifact import survey
from tests.store.processes import (
    Other,
    artifact,
    begin,
    owners,
)


def test_process_removes_its_owner_at_exit(store: Path) -> None:
    """The process may return, call `sys.exit`, or raise an uncaught exception."""
    for ending, code in [("", 0), ("sys.exit(3)", 3), ("raise ValueError", 1)]:
        with Other(
            f"compute(artifact({ending!r}))\nsay(owners(artifact().settings.store))\n{ending}"
        ) as other:
            assert 1 == len(json.loads(other.hear().replace("'", '"')))
            assert code == other.finish()
        assert [] == owners(store)


def test_forked_worker_of_multiprocessing_removes_its_owner_at_its_end(store: Path) -> None:
    """Such a worker exits by `os._exit`, without calling `atexit` functions."""
    script = """
import multiprocessing
def work():
    compute(artifact())
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
say(child.exitcode, owners(artifact().settings.store))
"""
    with Other(script) as other:
        assert "0 []" == other.hear()
    assert artifact().is_done()


def test_fork_child_has_its_own_owner(store: Path) -> None:
    """The child does not change the parent's owner and claims."""
    script = """
import json
mine = begin(artifact("parent's"))
read, write = os.pipe()
child = os.fork()
if child == 0:
    theirs = begin(artifact("child's"))
    seen = survey(artifact("parent's")).status.value
    try:
        claim(artifact("parent's"))
        seen = "claimed"
    except FuruInProgressError:
        pass
    os.write(write, json.dumps([theirs.owner.record.id, theirs.owner.record.pid, seen]).encode())
    sys.exit(0)
os.waitpid(child, 0)
identifier, pid, seen = json.loads(os.read(read, 1000))
say(identifier != mine.owner.record.id, pid == child, seen)
say(survey(artifact("parent's")).status.value, survey(artifact("child's")).status.value)
say(owners(artifact().settings.store) == [mine.owner.record.id])
hear()
"""
    with Other(script) as other:
        assert "True True IN_PROGRESS" == other.hear()
        assert "IN_PROGRESS TODO" == other.hear()
        assert "True" == other.hear()
        assert Status.IN_PROGRESS is survey(artifact("parent's")).status


def test_dead_parents_lock_is_free_although_a_fork_lives() -> None:
    """The child closes its copy of the parent's descriptor. The child's own claims stay alive."""
    script = """
begin(artifact("parent's"))
child = os.fork()
if child == 0:
    begin(artifact("child's"))
    say("ready", os.getpid())
    hear()
    os._exit(0)
os.waitpid(child, 0)
"""
    with Other(script) as other:
        assert other.hear().startswith("ready")
        other.kill()
        assert Status.TODO is survey(artifact("parent's")).status
        assert Status.IN_PROGRESS is survey(artifact("child's")).status
        assert 2 == begin(artifact("parent's")).number


def test_fork_child_computes_what_its_dead_parent_was_computing() -> None:
    """The child inherits the parent's attempts in its memory, but does not take them for its own."""
    script = """
import time
begin(artifact())
parent = os.getpid()
child = os.fork()
if child == 0:
    while os.getppid() == parent:
        time.sleep(0.001)
    # The last thread of the dead parent may still hold the lock for a moment.
    while isinstance(claimed := try_claim(artifact_name), str):
        time.sleep(0.001)
    say(claimed.number)
    hear()
    os._exit(0)
say("ready")
hear()
os._exit(9)
""".replace("artifact_name", "'one'")
    with Other(script) as other:
        assert "ready" == other.hear()
        other.tell()
        assert "2" == other.hear()


def test_fork_while_another_thread_claims_leaves_the_child_free_to_claim() -> None:
    """A lock that another thread of the parent holds is not locked in the child."""
    script = """
import threading
locked, release = threading.Event(), threading.Event()
def hold():
    with this_process().lock:
        locked.set()
        release.wait(1)
threading.Thread(target=hold).start()
locked.wait()
child = os.fork()
if child == 0:
    compute(artifact())
    say("computed")
    os._exit(0)
hear()
release.set()
os.waitpid(child, 0)
"""
    with Other(script) as other:
        assert "computed" == other.hear()


def test_subprocess_that_outlives_its_parent_does_not_keep_the_parents_claims() -> None:
    """Programs that a node starts do not inherit descriptors of the store."""
    script = """
import subprocess
attempt = begin(artifact())
attempt.log("line")
child = subprocess.Popen(["sleep", "30"], close_fds=False)
say(child.pid)
hear()
"""
    with Other(script) as other:
        pid = int(other.hear())
        try:
            other.kill()
            assert Status.TODO is survey(artifact()).status
        finally:
            os.kill(pid, signal.SIGKILL)

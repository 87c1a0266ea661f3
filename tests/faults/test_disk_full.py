"""A full disk, on a very small filesystem, and a limit on the size of files."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from furu import Furu, FuruComputeError, FuruError, Status, run_local, use_settings

SIZE = 40_000


class Blob(Furu[str]):
    """Its value and its file are equally large."""

    number: int

    def _create(self) -> str:
        (self.furu_dir / "data").write_bytes(bytes(SIZE))
        return "x" * SIZE


class Text(Furu[str]):
    def _create(self) -> str:
        return "x" * SIZE


class Small(Furu[int]):
    number: int

    def _create(self) -> int:
        return self.number


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 512 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting is not allowed here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def check_whole(nodes: list[Furu[str]]) -> int:
    """Check that all DONE nodes are whole, and return their number."""
    done = [node for node in nodes if node.status() is Status.DONE]
    for node in done:
        assert "x" * SIZE == node.get()
        assert bytes(SIZE) == (node.furu_dir / "data").read_bytes()
    return len(done)


def test_run_on_a_full_disk_reports_it_and_the_next_run_finishes(small_disk: Path) -> None:
    """Stored nodes stay DONE, other nodes are not. The next run continues once the disk has room."""
    nodes: list[Furu[str]] = [Blob(number=number) for number in range(10)]
    with use_settings(store=small_disk / "store"):
        with pytest.raises(FuruComputeError) as caught:
            run_local(nodes, max_workers=2, on_failure="continue")
        assert 1 <= check_whole(nodes) < 10
        for failure in caught.value.failures:
            assert "No space left on device" in str(failure.error)
            assert str(small_disk) in str(failure.state_path)
        subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
        report = run_local(nodes, max_workers=2)
        assert 10 == report.computed + report.reused
        assert 10 == check_whole(nodes)


def test_claim_on_a_full_disk_is_one_clear_error(small_disk: Path) -> None:
    """The disk has no room even for the owner's file."""
    with use_settings(store=small_disk / "store"):
        (small_disk / "store" / "owners").mkdir(parents=True)
        with pytest.raises(OSError), open(small_disk / "filler", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises(FuruError, match="No space left on device") as caught:
            Small(number=1).get()
        assert str(small_disk) in str(caught.value)
        (small_disk / "filler").unlink()
        assert 1 == Small(number=1).get()


def in_child(function: Callable[[], None]) -> int:
    """Run a function in a fork, and return the exit code: 0 if the function returned."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_file_above_the_size_limit_is_a_clear_error_and_the_next_run_finishes(store: Path) -> None:
    """RLIMIT_FSIZE is less than the file of a node and the document of a result."""
    nodes: list[Furu[str]] = [Blob(number=number) for number in range(3)]

    def run_with_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, resource.RLIM_INFINITY))
        assert 7 == Small(number=7).get()
        for node in (*nodes, Text()):
            with pytest.raises(FuruComputeError, match="File too large") as caught:
                node.get()
            assert str(store) in str(caught.value)
            assert node.status() is Status.FAILED

    assert 0 == in_child(run_with_limit)
    assert 7 == Small(number=7).get()
    assert 0 == check_whole(nodes)
    assert "x" * SIZE == Text().get()
    assert 3 == run_local(nodes).computed
    assert 3 == check_whole(nodes)

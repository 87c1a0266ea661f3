"""The log of an attempt."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from furu.store.artifact import Artifact
from tests.store.processes import (
    artifact,
    begin,
    files,
    publish,
)


def test_line_of_the_log_cannot_be_forged(place: Artifact) -> None:
    """All lines of a message after the first one are indented."""
    attempt = begin(place)
    attempt.log("2030-01-01 INFO honest")
    attempt.log("text\n2030-01-01 ERROR forged\r\n2030-01-01 ERROR forged\r2030-01-01 ERROR forged")
    attempt.log("\ud800 is written somehow")
    publish(attempt)
    content = Path(files(place), "furu.log").read_bytes()
    lines = content.decode().splitlines()
    assert "2030-01-01 INFO honest" == lines[0]
    assert "text" == lines[1]
    assert "\\ud800 is written somehow" == lines[-1]
    assert [] == [line for line in lines[1:] if line.startswith("2030")]


def test_log_accepts_any_text_and_follows_no_link(tmp_path: Path) -> None:
    """Lone surrogates are escaped. A link in place of the log is an error."""
    attempt = begin(artifact())
    attempt.log("caf\udce9 \N{SNOWMAN}")
    assert "caf\\udce9 \N{SNOWMAN}\n" == Path(attempt.files_directory(), "furu.log").read_text("utf-8")
    second = begin(artifact("second"))
    os.symlink(tmp_path / "target", f"{second.files_directory()}/furu.log")
    with pytest.raises(OSError):
        second.log("line")
    assert not (tmp_path / "target").exists()


def test_log_of_many_threads_has_every_line_whole() -> None:
    """The threads share one open file. A line that comes after the end of the attempt is dropped."""
    attempt = begin(artifact())
    together = threading.Barrier(8)

    def work(number: int) -> None:
        together.wait(10)
        for line in range(50):
            attempt.log(f"{number} {line} " + "x" * 200)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = Path(attempt.files_directory(), "furu.log").read_text().splitlines()
    assert sorted(f"{n} {line} " + "x" * 200 for n in range(8) for line in range(50)) == sorted(lines)
    publish(attempt)
    attempt.log("too late")
    assert lines == Path(files(attempt.artifact), "furu.log").read_text().splitlines()

"""The output of a node: files in `furu_dir`, and its log."""

from __future__ import annotations

import logging
import os
import re
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from furu import (
    Furu,
    FuruComputeError,
)
from tests.node.nodes import Holder


class Writing(Furu[Path]):
    name: str = "a"

    def _create(self) -> Path:
        (self.furu_dir / "data.txt").write_text(self.name)
        return self.furu_dir

    def _load(self) -> Path:
        return self.furu_dir


def test_furu_dir_belongs_to_the_attempt_and_then_to_the_artifact(store: Path) -> None:
    """The attempt and its artifact use the same directory, which is created on first use."""
    node = Writing()
    before = node.furu_dir
    assert not before.exists()
    inside = node.get()
    assert before.parent == inside.parent
    assert inside == node.furu_dir == Writing().get()
    assert "a" == (node.furu_dir / "data.txt").read_text()
    assert store / __name__ / "Writing" / f"{node.furu_hash}.d" == inside.parent


def test_furu_dir_is_not_made_for_a_node_that_does_not_use_it() -> None:
    node = Holder()
    node.get()
    assert not node.furu_dir.exists()
    assert not node.furu_dir.parent.exists()


def test_second_attempt_starts_with_an_empty_directory() -> None:
    """The files of a failed attempt are kept until a later attempt publishes."""

    class Flaky(Furu[int]):
        fail: ClassVar[list[bool]] = [True]

        def _create(self) -> int:
            found = len(list(self.furu_dir.iterdir()))
            (self.furu_dir / "left").touch()
            if self.fail[0]:
                raise ValueError("half-way")
            return found

    with pytest.raises(FuruComputeError):
        Flaky().get()
    assert ["left"] == os.listdir(Flaky().furu_dir)
    first = Flaky().furu_dir
    Flaky.fail[0] = False
    assert 0 == Flaky().get()
    assert first != Flaky().furu_dir
    assert not first.exists()


class Logging(Furu[int]):
    def _create(self) -> int:
        self.logger.debug("a detail %d", 1)
        self.logger.warning("a warning\nof two lines")
        thread = threading.Thread(target=lambda: self.logger.info("from a thread of its own"))
        thread.start()
        thread.join()
        try:
            raise ValueError("bad split")
        except ValueError:
            self.logger.exception("went wrong")
        return 1


def test_logger_writes_every_level_to_the_attempts_own_file() -> None:
    """The lines of a message after the first one are indented."""
    Logging().get()
    text = (Logging().furu_dir / "furu.log").read_text()
    starts = [line for line in text.splitlines() if not line.startswith("    | ")]
    expected = [
        "DEBUG a detail 1",
        "WARNING a warning",
        "INFO from a thread of its own",
        "ERROR went wrong",
    ]
    assert expected == [re.sub(r"^\S+ \S+ ", "", line) for line in starts]
    assert "    | of two lines\n" in text
    assert "    | ValueError: bad split\n" in text


def test_logger_passes_on_records_that_the_host_allows(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    Logging().get()
    name = f"furu.node.{__name__}.Logging"
    expected = [(name, logging.WARNING, "a warning\nof two lines"), (name, logging.ERROR, "went wrong")]
    assert expected == caplog.record_tuples
    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger="furu.node"):
        Logging().logger.debug("between attempts")
    assert [(name, logging.DEBUG, "between attempts")] == caplog.record_tuples


def test_logger_between_attempts_writes_no_file() -> None:
    Holder().logger.warning("before")
    Holder().get()
    Holder().logger.warning("after")
    assert not Holder().furu_dir.exists()


def test_logger_does_not_change_the_hosts_loggers() -> None:
    before = (logging.root.level, list(logging.root.handlers))
    Logging().get()
    host = logging.getLogger(f"furu.node.{__name__}.Logging")
    assert (logging.NOTSET, [], True) == (host.level, host.handlers, host.propagate)
    assert before == (logging.root.level, list(logging.root.handlers))

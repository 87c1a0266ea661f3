"""Server programs, each in a separate process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_ADDRESS = re.compile(r"(?:[Rr]unning on|Listening at:) (http://[0-9.]+:[0-9]+)")


class Server:
    """A server that is running at `url`. `log` is the text of its log."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: Path) -> None:
        self.process, self.url, self._log = process, url, log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def end(self) -> tuple[int, float]:
        """Send SIGTERM, and return the exit code and the seconds until the exit."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        return code, time.monotonic() - begun


@contextmanager
def serving(program: Path, store: Path, *arguments: str, port: int = 0) -> Iterator[Server]:
    """Run a server program on a port, by default a free port, and kill it after the block."""
    with running([str(program), str(port), *arguments], store, program.stem) as server:
        yield server


@contextmanager
def running(command: list[str], store: Path, name: str) -> Iterator[Server]:
    """Run a Python command that starts a server, and wait until the server is ready."""
    environment = {**os.environ, "FURU_PATH": str(store), "PYTHONPATH": os.pathsep.join(sys.path)}
    log = store.parent / f"{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=store.parent,
        )
    assert process.stderr is not None
    try:
        yield Server(process, _read_address(process.stderr), log)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def _read_address(lines: IO[str]) -> str:
    seen = []
    for line in lines:
        seen.append(line)
        if found := _ADDRESS.search(line):
            return found[1]
    raise AssertionError(f"the server did not start: {''.join(seen)}")

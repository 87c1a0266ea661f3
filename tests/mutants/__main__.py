"""Apply each mutant to a copy of the sources, and check that its tests fail: `python -m tests.mutants`.

Arguments select mutants by their number or by a part of their name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mutants.mutant import ROOT, Mutant, copy_sources
from tests.mutants.plugin import VARIABLE
from tests.mutants.table import MUTANTS

AT_ONCE = 2
# Twice the time of the slowest test on the original sources. A test that hangs on a mutant fails then.
TEST_SEC = 10
# The limit for all tests of a mutant, in case the timeout of a test has no effect.
MUTANT_SEC = 60.0
SOUND_SEC = 600.0


def run_tests(node_ids: Iterable[str], mutant: Mutant | None, timeout_sec: float) -> tuple[int | None, str]:
    """Run tests on a copy of the sources. Returns pytest's exit code, or None if the tests took too long,
    and pytest's output."""
    with tempfile.TemporaryDirectory(prefix="furu-mutant-") as directory:
        copy_sources(Path(directory), mutant)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", f"--timeout={TEST_SEC}"]
        command += ["-p", "no:cacheprovider", "-p", "tests.mutants.plugin", *dict.fromkeys(node_ids)]
        environment = {**os.environ, "PYTHONPATH": directory, VARIABLE: directory}
        # A file, not a pipe: a process that a mutant leaves running would keep a pipe open.
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code: int | None = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout_sec)
            with contextlib.suppress(ProcessLookupError):  # all processes of the group have exited
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            output.seek(0)
            return code, output.read()


def report_of(number: int, mutant: Mutant) -> tuple[bool, str]:
    """Run the tests of a mutant. Returns whether they killed it, and a line about it."""
    started = time.monotonic()
    code, output = run_tests(mutant.node_ids, mutant, MUTANT_SEC)
    took_sec = time.monotonic() - started
    head = f"{number:>2}  {mutant.name} ({mutant.file}, {took_sec:.1f} s)"
    if code is None:
        return True, f"{head}: timed out, counted as killed"
    if code == pytest.ExitCode.TESTS_FAILED:
        return True, f"{head}: killed"
    if code == pytest.ExitCode.OK:
        return False, f"{head}: SURVIVED {' '.join(mutant.node_ids)}"
    return False, f"{head}: its tests could not be run\n{output}"


def chosen(arguments: Sequence[str]) -> list[tuple[int, Mutant]]:
    """Return the selected mutants with their numbers. Without arguments, all are selected."""
    found = [
        (number, mutant)
        for number, mutant in enumerate(MUTANTS, 1)
        if not arguments or any(word == str(number) or word in mutant.name for word in arguments)
    ]
    if not found:
        sys.exit(f"there is no mutant called {' or '.join(arguments)}")
    return found


def main(arguments: Sequence[str]) -> int:
    """Print a line for each mutant and the number of killed ones. Return 1 if a mutant survived."""
    numbered = chosen(arguments)
    for _, mutant in numbered:
        mutant.mutated()
    node_ids = [node_id for _, mutant in numbered for node_id in mutant.node_ids]
    code, output = run_tests(node_ids, None, SOUND_SEC)
    if code != pytest.ExitCode.OK:
        print(f"the tests must pass on the sources as they are, and do not:\n{output}")
        return 1
    killed = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for is_killed, line in pool.map(lambda one: report_of(*one), numbered):
            killed += is_killed
            print(line, flush=True)
    print(f"{killed} of {len(numbered)} killed")
    return 0 if killed == len(numbered) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

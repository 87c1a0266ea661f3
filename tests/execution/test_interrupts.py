"""Ctrl-C in a script, and the threads that the interpreter waits for when it exits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from furu import run_local
from tests.graphs import Node, actions, flat

SCRIPT = """
import os, signal, sys, threading
from furu import run_local
from tests.graphs import Node, actions
{before}
def hold():
    os.write(1, b"computing\\n")
    os.read(0, 1)
actions["held"] = hold
try:
    run_local([Node(name="held"), Node(name="next")], max_workers=1)
    print("finished", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(Node(name="held").status(), signal.getsignal(signal.SIGINT) is at_first, flush=True)
"""
AT_FIRST = "at_first = signal.getsignal(signal.SIGINT)"


@contextmanager
def script(before: str = AT_FIRST) -> Iterator[subprocess.Popen[str]]:
    """Run SCRIPT until it is computing a node. The node finishes when stdin is written or closed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
            + SCRIPT.format(before=before),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parent.parent,
    ) as process:
        assert process.stdout is not None
        assert "computing\n" == process.stdout.readline()
        yield process
        process.kill()


def said(process: subprocess.Popen[str], words: str) -> str:
    """Read stderr until a line has these words."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError(f"the script said nothing of {words!r}")


def test_first_ctrl_c_names_running_nodes_and_lets_them_finish() -> None:
    """The run restores the previous signal handler."""
    with script() as process:
        process.send_signal(signal.SIGINT)
        line = said(process, "interrupted")
        assert "waiting for 1 node to finish: Node " in line
        output, _ = process.communicate("\n")
    assert "interrupted\nDONE True\n" == output


INTERRUPTS_ITS_THREAD = """
import time
write = os.write
def write_and_interrupt(descriptor, content):
    written = write(descriptor, content)
    main, waits = threading.main_thread().ident, 0
    while descriptor == 1 and waits < 100:  # until the loop has waited for some time
        waits = waits + 1 if sys._current_frames()[main].f_code.co_name == "select" else 0
        time.sleep(0.002)
    if descriptor == 1:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    return written
os.write = write_and_interrupt
"""


def test_interrupt_that_reaches_another_thread_wakes_the_run() -> None:
    """The system may deliver a signal to any thread, and Python handles it in the main thread."""
    with script(AT_FIRST + INTERRUPTS_ITS_THREAD) as process:
        assert "waiting for 1 node to finish: Node " in said(process, "interrupted")
        output, _ = process.communicate("\n")
    assert "interrupted\nDONE True\n" == output


def test_second_ctrl_c_exits_at_once() -> None:
    """The process does not wait for its threads. The next run can compute their nodes."""
    with script() as process:
        process.send_signal(signal.SIGINT)
        said(process, "interrupted")
        process.send_signal(signal.SIGINT)
        assert 130 == process.wait(10)
    assert 2 == run_local([Node(name="held"), Node(name="next")]).computed


@pytest.mark.parametrize(
    "stderr", ["None", "type('Closed', (), {'write': lambda *_: 1 / 0, 'flush': lambda *_: 1 / 0})()"]
)
def test_interrupt_is_logged_if_stderr_is_unusable(stderr: str) -> None:
    before = (
        f"{AT_FIRST}\nimport logging\n"
        "logging.basicConfig(stream=sys.stderr, format='log %(message)s')\n"
        f"sys.stderr = {stderr}"
    )
    with script(before) as process:
        process.send_signal(signal.SIGINT)
        assert said(process, "interrupted").startswith("log ")
        output, _ = process.communicate("\n")
    assert output.startswith("interrupted\n")


def test_ignored_ctrl_c_stays_ignored() -> None:
    """A process under nohup ignores SIGINT too."""
    with script(f"signal.signal(signal.SIGINT, signal.SIG_IGN)\n{AT_FIRST}") as process:
        for _ in range(2):
            process.send_signal(signal.SIGINT)
        output, _ = process.communicate("\n")
    assert "finished\nDONE True\n" == output


def test_signal_handler_of_the_program_is_kept() -> None:
    own = "signal.signal(signal.SIGINT, lambda *_: os.write(1, b'own\\n'))"
    with script(f"{own}\n{AT_FIRST}") as process:
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            assert "own\n" == process.stdout.readline()
        output, _ = process.communicate("\n")
    assert "finished\nDONE True\n" == output


def test_run_outside_the_main_thread_sets_no_handler() -> None:
    seen: list[object] = []
    actions["look"] = lambda: seen.append(signal.getsignal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread = threading.Thread(target=lambda: run_local([Node(name="look"), *flat(2)]))
        thread.start()
        thread.join()
        assert [signal.default_int_handler] == seen
    finally:
        signal.signal(signal.SIGINT, before)
        actions.clear()


ABANDON = """
import sys, threading, anyio
from furu import run_local_async
from tests.graphs import Node, actions
ending = threading.Event()
def wait_for_the_end_of_the_program():
    assert ending.wait(10)
    threading.Event().wait(0.2)  # the interpreter is on its way out by now
actions["slow"] = wait_for_the_end_of_the_program
async def main():
    with anyio.CancelScope() as scope:
        def on_event(event):
            if type(event).__name__ == "NodeStarted":
                scope.cancel()
        await run_local_async([Node(name="slow")], grace_sec=0.01, on_event=on_event)
anyio.run(main, backend=sys.argv[1])
ending.set()
"""


def test_interpreter_waits_for_an_abandoned_thread(anyio_backend: str) -> None:
    """Without this wait, trio's threads would be killed at exit and the node would be lost."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", ABANDON, anyio_backend],
        env=environment,
        cwd=Path(__file__).parent.parent,
        check=True,
        timeout=20,
    )
    assert Node(name="slow").exists()

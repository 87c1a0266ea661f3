"""The parent's side of a child process of `ProcessWorkers`: starts the child, sends requests and ends it.

Each child has its own session and process group, which include the programs that its nodes start. So Ctrl-C
in a terminal does not reach them, and they can be killed together.

`anyio.open_process` is not used, for two reasons. On asyncio, it reaps a process as soon as it dies. After
that, another process group may get the same number, and would be killed by mistake. Also, it writes to
pipes: a write to a dead child kills a host program that has restored the default action of SIGPIPE.
"""

from __future__ import annotations

import contextlib
import multiprocessing.process
import multiprocessing.spawn
import os
import pickle
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread

from furu._common.loops import in_thread
from furu.context import Advance
from furu.errors import FuruError
from furu.execution.workers.child import LENGTH_BYTES, RECEIVE_BYTES

_COMMAND = "import sys; sys.path[:] = sys.argv[1:]; from furu.execution.workers.child import main; main()"
# How long a child may take to exit. Before it exits, it runs `atexit` functions and joins threads.
_EXIT_SEC = 5.0
# With this flag, sending to a dead child raises an error instead of a signal. (macOS has no such flag.)
_NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)


class ChildDied(Exception):
    """A child died. `begun` is True if it had begun the request; `exit_code` is None if unknown."""

    def __init__(self, begun: bool, exit_code: int | None) -> None:
        super().__init__(_way_to_die(exit_code))
        self.begun = begun
        self.exit_code = exit_code


class Child:
    """A child process that answers one request at a time."""

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self._process = process
        self._connection = connection

    @classmethod
    async def start(cls) -> Child:
        """Start a child, and wait until it has imported the program's main module.

        Raises `FuruError` if the child cannot be started or cannot import the module, and `ChildDied` if
        the child dies.
        """
        preparation = pickle.dumps(_preparation())
        child = await in_thread(_spawn)  # not abandoned on cancellation
        try:
            problem = await child.ask(preparation)
        except ChildDied as death:
            raise ChildDied(False, death.exit_code) from None
        except BaseException:
            await child.kill()
            raise
        if problem is not None:
            await child.end()
            raise FuruError(f"a child process could not import the program's main module: {problem}")
        return child

    async def ask(self, content: bytes, on_advance: Callable[[Advance], object] = lambda _: None) -> Any:
        """Send a message and return the answer. Calls `on_advance` when the node reports its progress.
        Raises `ChildDied` if the child dies."""
        begun = False
        try:
            await self._send(content)
            await self._receive()
            begun = True
            # From the child, which belongs to this program.
            while isinstance(answer := pickle.loads(await self._receive()), Advance):  # noqa: S301
                on_advance(answer)
        except (ConnectionError, EOFError):
            raise ChildDied(begun, await self.kill()) from None
        return answer

    async def end(self) -> None:
        """Let the child exit, and kill it if that takes too long. Shielded from cancellation. If the child
        exits in time, programs that its nodes left running continue."""
        with anyio.CancelScope(shield=True):
            # Closing the socket is not enough: a fork of this process may have a copy.
            with contextlib.suppress(OSError):  # the child has exited already
                self._connection.shutdown(socket.SHUT_RDWR)
            with anyio.move_on_after(_EXIT_SEC):
                await self._wait()
            if self._process.returncode is None:
                await self.kill()
        self._connection.close()

    async def kill(self) -> int | None:
        """Kill the child and the programs that its nodes have started. Returns the child's exit code; None
        if unknown. Shielded from cancellation."""
        with anyio.CancelScope(shield=True):
            if self._process.returncode is None:  # not reaped yet, so no other group can have this number
                # PermissionError: a program in the group may run as another user.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                await self._wait()
        self._connection.close()
        # If the host ignores SIGCHLD, the system discards exit codes.
        is_known = signal.getsignal(signal.SIGCHLD) is not signal.SIG_IGN
        return self._process.returncode if is_known else None

    async def _wait(self) -> None:
        limiter = anyio.CapacityLimiter(1)
        await anyio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True, limiter=limiter)

    async def _send(self, content: bytes) -> None:
        rest = memoryview(len(content).to_bytes(LENGTH_BYTES, "big") + content)
        while rest:
            try:
                rest = rest[self._connection.send(rest, _NO_SIGNAL) :]
            except BlockingIOError:
                await anyio.wait_writable(self._connection)

    async def _receive(self) -> bytes:
        length = int.from_bytes(await self._receive_exactly(LENGTH_BYTES), "big")
        return await self._receive_exactly(length)

    async def _receive_exactly(self, count: int) -> bytes:
        content = bytearray()
        while len(content) < count:
            try:
                part = self._connection.recv(min(count - len(content), RECEIVE_BYTES))
            except BlockingIOError:
                await anyio.wait_readable(self._connection)
                continue
            if not part:
                raise EOFError
            content += part
        return bytes(content)


# Both ends of all connections. A fork of this process must close its copies. Otherwise, children would
# outlive this process, and this process would not notice the death of a child.
_connections: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _after_fork() -> None:
    for connection in list(_connections):
        connection.close()


os.register_at_fork(after_in_child=_after_fork)


def _spawn() -> Child:
    command = [multiprocessing.spawn.get_executable(), *_interpreter_options(), "-c", _COMMAND]
    command += [path for path in sys.path if isinstance(path, str)]
    try:
        ours, theirs = socket.socketpair()
        _connections.update((ours, theirs))
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            output = _standard_error()
            process = subprocess.Popen(  # noqa: S603  # this interpreter
                command, stdin=theirs.fileno(), stdout=output, stderr=output, start_new_session=True
            )
            undo.pop_all()
    except OSError as error:
        raise FuruError(
            f"a child process could not be started: {error}. Raise the limit that was reached "
            "(`ulimit -a` lists them), or lower max_workers."
        ) from error
    ours.setblocking(False)
    return Child(process, ours)


def _standard_error() -> int:
    """Return the descriptor for a child's output: standard error, unless this process has closed it."""
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return 2


def _interpreter_options() -> list[str]:
    """Return the options that this interpreter was started with. The -X options are added here, because
    `subprocess` returns only some of them."""
    of_subprocess: Any = subprocess  # multiprocessing uses this private function too
    options: list[str] = of_subprocess._args_from_interpreter_flags()
    for name, value in sys._xoptions.items():
        options.append(f"-X{name}" if value is True else f"-X{name}={value}")
    return options


def _preparation() -> dict[str, Any]:
    """Return the data that `multiprocessing.spawn.prepare` needs to import this program's main module.
    `get_preparation_data` is not used, because it fails if the working directory has been removed."""
    of_process: Any = multiprocessing.process
    origin: str | None = of_process.ORIGINAL_DIR
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    data = {
        "sys_path": [path or origin or "" for path in sys.path],
        "sys_argv": sys.argv,
        "orig_dir": origin,
    }
    if spec is not None:
        data["init_main_from_name"] = spec.name
    elif file is not None:
        data["init_main_from_path"] = os.path.normpath(os.path.join(origin or "", file))
    return data


def _way_to_die(exit_code: int | None) -> str:
    if exit_code is None:
        return "ended; its exit code is not known, because this program ignores SIGCHLD"
    if exit_code >= 0:
        return f"ended by itself, with exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    hint = " (out of memory?)" if exit_code == -signal.SIGKILL else ""
    return f"was killed by {name}{hint}"

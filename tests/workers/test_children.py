"""The children of `ProcessWorkers`: how they start, what they inherit, and what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import anyio.to_thread
import pytest

import furu
from furu import (
    Furu,
    FuruComputeError,
    Status,
    run_local_async,
)
from furu.errors import FuruError
from furu.execution.workers import ProcessWorkers
from tests.workers.nodes import Act, Gate
from tests.workers.programs import environment, run_in_one_child, run_script

# ---- children that die before they start a node ----


class Pid(Furu[int]):
    number: int = 0

    def _create(self) -> int:
        return os.getpid()


class Kills(Furu[int]):
    """Runs in the parent, and kills the idle children that computed the nodes below."""

    below: tuple[Pid, ...]

    async def _create(self) -> int:
        for node in self.below:
            pid = await node.aget()
            os.kill(pid, signal.SIGKILL)
            await anyio.to_thread.run_sync(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return len(self.below)


class After(Furu[int]):
    kills: Kills
    number: int = 0

    def _create(self) -> int:
        return os.getpid()


@pytest.mark.anyio
@pytest.mark.parametrize("count", [1, 4])
async def test_idle_child_that_was_killed_fails_no_node(count: int) -> None:
    """The next nodes are sent to new children, because the killed ones had not started any."""
    kills = Kills(below=tuple(Pid(number=number) for number in range(count)))
    nodes = [After(kills=kills, number=number) for number in range(count)]
    report = await run_local_async(nodes, workers=ProcessWorkers(), max_workers=count)
    assert (2 * count + 1, 0) == (report.computed, report.failed)


def test_node_fails_after_a_few_children_have_died_at_their_start(tmp_path: Path) -> None:
    """The error reports the exit code of the last child."""
    printed = run_script(
        """
        import os
        from furu import Furu, FuruComputeError, FuruWorkerError, run_local
        from furu.execution.workers import ProcessWorkers
        with open("starts", "a") as starts:
            starts.write(__name__ + "\\n")
        if __name__ == "__mp_main__":
            os._exit(7)
        class Node(Furu[int]):
            def _create(self): return 1
        if __name__ == "__main__":
            try:
                run_local([Node()], workers=ProcessWorkers())
            except FuruComputeError as error:
                print(isinstance(error.__cause__, FuruWorkerError), error.__cause__, Node().status())
        """,
        tmp_path,
    )
    assert "True no process could begin Node(): 3 were started, and the last one ended by itself" in printed
    assert printed.endswith("with exit code 7 TODO\n")
    assert ["__main__", *["__mp_main__"] * 3] == (tmp_path / "starts").read_text().split()


def test_start_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    """The run is cancelled while the process is created, and while it imports the main module."""
    printed = run_script(
        """
        import logging, os, signal, sys
        import anyio, anyio.from_thread
        import furu
        from furu import Furu, run_local_async
        from furu.execution.workers import ProcessWorkers

        class Node(Furu[int]):
            def _create(self): return 1

        async def main(when):
            def cancel(): anyio.from_thread.run_sync(scope.cancel)
            def on_event(event, arguments):
                if armed and event == "subprocess.Popen":
                    armed.clear()
                    cancel()
            armed = [when]
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    if when == "making":
                        sys.addaudithook(on_event)
                    else:
                        os.mkfifo(when)
                        os.environ["FIFO"] = when
                        tasks.start_soon(anyio.to_thread.run_sync, lambda: (open(when).read(), cancel()))
                    await run_local_async([Node()], workers=ProcessWorkers())
            assert scope.cancelled_caught
            try:
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                print(when, Node().status())

        if __name__ == "__mp_main__" and "FIFO" in os.environ:
            with open(os.environ["FIFO"], "w") as fifo:
                fifo.write("!")
            signal.pause()
        if __name__ == "__main__":
            logging.disable()  # of cancelled runs
            for backend in ("asyncio", "trio"):
                anyio.run(main, "making", backend=backend)
                anyio.run(main, f"importing-{backend}", backend=backend)
        """,
        tmp_path,
    )
    expected = ["making", "importing-asyncio", "making", "importing-trio"]
    assert [f"{when} TODO" for when in expected] == printed.splitlines()


# ---- what a child inherits from its parent ----

OPTIONS = [
    ["-O", "-b", "-W", "error::UserWarning", "-X", "utf8"],
    ["-OO", "-B", "-X", "dev", "-X", "frozen_modules=off"],
    ["-I", "-W", "ignore", "-X", "int_max_str_digits=5000", "-X", "no_debug_ranges"],
    ["-S", "-s", "-P", "-E", "-X", "faulthandler"],
]


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_child_has_the_options_of_the_interpreter(options: list[str], tmp_path: Path) -> None:
    """A node sees the same flags, warning filters and -X options as in a thread."""
    path = [str(Path(furu.__file__).parent.parent), *(path for path in sys.path if path)]
    printed = run_script(
        f"""
        import sys
        sys.path[:] = {path!r}
        import logging
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # with -X dev it reports slow callbacks
        from furu import Furu, run_local, use_settings
        from furu.execution.workers import ProcessWorkers
        def seen():
            xoptions = [f"{{name}}={{value}}" for name, value in sys._xoptions.items()]
            return [str(sys.flags), *sys.warnoptions, *sorted(xoptions)]
        class Node(Furu[list[str]]):
            def _create(self): return seen()
        if __name__ == "__main__":
            with use_settings(store={str(tmp_path / "store")!r}):
                run_local([Node()], workers=ProcessWorkers(), progress=False)
                print(Node().get() == seen() or [Node().get(), seen()])
        """,
        tmp_path,
        *options,
    )
    assert "True\n" == printed


@pytest.mark.skipif(
    sys.version_info[:3] == (3, 13, 0),
    reason="`python -c` of 3.13.0 fails to import socket there (SystemError)",
)
def test_removed_working_directory_does_not_matter(tmp_path: Path) -> None:
    """Children start, and a relative store is found, without the working directory."""
    printed = run_script(
        """
        import os
        from furu import Furu, run_local, use_settings
        from furu.execution.workers import ProcessWorkers
        class Node(Furu[int]):
            def _create(self): return 1
        if __name__ == "__main__":
            with use_settings(store="relative"):
                os.mkdir("gone")
                os.chdir("gone")
                os.rmdir(os.getcwd())
                print(run_local([Node()], workers=ProcessWorkers()).computed, Node().get())
        """,
        tmp_path,
    )
    assert "1 1\n" == printed


def test_child_finds_a_class_in_the_same_module_as_its_parent(tmp_path: Path) -> None:
    """A script that is also imported exists as two modules. A child does not confuse them."""
    (tmp_path / "pipeline.py").write_text(
        textwrap.dedent(
            """
            from script import Point, Model
            from furu import Furu
            class Report(Furu[list[bool]]):
                model: Model
                point: object
                def _create(self):
                    return [type(self.model) is Model, type(self.point) is Point]
            def root():
                return Report(model=Model(), point=Point(1))
            """
        )
    )
    printed = run_script(
        """
        import dataclasses
        from furu import Furu, run_local
        from furu.execution.workers import ProcessWorkers
        @dataclasses.dataclass(frozen=True)
        class Point:
            x: int
        class Model(Furu[int]):
            def _create(self): return 1
        if __name__ == "__main__":
            from pipeline import root
            run_local([root()], workers=ProcessWorkers())
            print(root().get())
        """,
        tmp_path,
    )
    assert "[True, True]\n" == printed


def test_package_without_a_guard_does_not_start_endless_processes(tmp_path: Path) -> None:
    """A child imports `package.__main__` and refuses to start a run during that import."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        textwrap.dedent(
            """
            from furu import Furu, run_local
            from furu.execution.workers import ProcessWorkers
            class Node(Furu[int]):
                def _create(self): return 1
            run_local([Node()], workers=ProcessWorkers())
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "package"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 != done.returncode
    assert 'Put the code that starts the run under `if __name__ == "__main__":`' in done.stderr


@pytest.mark.parametrize("how", ["SIGCHLD ignored", "SIGPIPE default", "standard error closed"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_run_in_an_unusual_host_computes_nodes_and_notices_deaths(
    how: str, backend: str, tmp_path: Path
) -> None:
    """The host's signal handlers and streams neither block nor stop the run."""
    printed = run_script(
        f"""
        import os, signal
        import anyio
        from furu import Furu, FuruComputeError, run_local_async
        from furu.execution.workers import ProcessWorkers
        class Node(Furu[int]):
            number: int
            def _create(self): return self.number
        class Dies(Furu[int]):
            def _create(self): os._exit(3)
        async def main():
            workers = ProcessWorkers()
            nodes = [Node(number=number) for number in range(4)]
            report = await run_local_async(nodes, workers=workers, max_workers=2)
            try:
                await run_local_async([Dies()], workers=workers)
            except FuruComputeError as error:
                print(report.computed, Dies().status(), error.__cause__.exit_code)
        if __name__ == "__main__":
            if {how!r} == "SIGCHLD ignored":
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            elif {how!r} == "SIGPIPE default":
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            else:
                os.close(2)
            anyio.run(main, backend={backend!r})
        """,
        tmp_path,
    )
    assert f"4 FAILED {None if how == 'SIGCHLD ignored' else 3}\n" == printed


def test_idle_child_that_was_killed_does_not_kill_a_host_with_the_default_sigpipe(tmp_path: Path) -> None:
    printed = run_script(
        """
        import os, signal
        from furu import Furu, run_local
        from furu.execution.workers import ProcessWorkers
        class Pid(Furu[int]):
            def _create(self): return os.getpid()
        class Kills(Furu[int]):
            pid: Pid
            async def _create(self):
                pid = await self.pid.aget()
                os.kill(pid, signal.SIGKILL)
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                return 1
        class After(Furu[int]):
            kills: Kills
            def _create(self): return 1
        if __name__ == "__main__":
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            print(run_local([After(kills=Kills(pid=Pid()))], workers=ProcessWorkers()).computed)
        """,
        tmp_path,
    )
    assert "3\n" == printed


def test_fork_of_the_parent_during_a_start_does_not_hide_the_death_of_the_child(tmp_path: Path) -> None:
    """The fork closes its copies of the connection to the child."""
    printed = run_script(
        """
        import os, signal, sys
        from furu import Furu, FuruComputeError, run_local
        from furu.execution.workers import ProcessWorkers
        class Dies(Furu[int]):
            def _create(self): os._exit(3)
        forks = []
        def fork(event, arguments):
            if event == "subprocess.Popen" and not forks:
                forks.append(os.fork())
                if not forks[0]:
                    signal.pause()
        if __name__ == "__main__":
            sys.addaudithook(fork)
            try:
                run_local([Dies()], workers=ProcessWorkers())
            except FuruComputeError as error:
                print(error.__cause__.exit_code)
            os.kill(forks[0], signal.SIGKILL)
        """,
        tmp_path,
        "-W",
        "ignore",  # Python 3.12 and later warn of a fork beside threads
    )
    assert "3\n" == printed


def test_parent_that_is_killed_leaves_a_published_node_and_no_traceback(tmp_path: Path, gate: Gate) -> None:
    """The child finishes its node, and exits without a traceback although its parent is gone."""
    (tmp_path / "script.py").write_text(
        textwrap.dedent(
            f"""
            import pathlib
            from furu import run_local
            from furu.execution.workers import ProcessWorkers
            from tests.workers.nodes import Act
            if __name__ == "__main__":
                node = Act(does="gate", folder=pathlib.Path({str(gate.folder)!r}))
                run_local([node], workers=ProcessWorkers())
            """
        )
    )
    program = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert b"!" == os.read(gate._arrivals, 1)
    os.killpg(program.pid, signal.SIGKILL)
    gate.open()
    assert (b"", -signal.SIGKILL) == (program.communicate()[1], program.returncode)  # the child has exited
    assert Status.DONE == Act(does="gate", folder=gate.folder).status()


# ---- limits ----


def test_child_that_cannot_be_started_is_the_nodes_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing.spawn

    executable = multiprocessing.spawn.get_executable()
    try:
        multiprocessing.spawn.set_executable("/nowhere/python")
        with pytest.raises(FuruComputeError, match="a child process could not be started") as caught:
            run_in_one_child(Pid(number=7))
        assert isinstance(caught.value.__cause__, FuruError)
    finally:
        multiprocessing.spawn.set_executable(executable)
    assert 1 == run_in_one_child(Pid(number=7)).computed


def test_start_without_free_descriptors_leaks_nothing(tmp_path: Path) -> None:
    """With any number of free descriptors, no descriptor and no process leaks, and the next run works."""
    printed = run_script(
        """
        import os, resource
        from furu import Furu, FuruComputeError, run_local
        from furu.execution.workers import ProcessWorkers
        class Node(Furu[int]):
            number: int
            def _create(self): return 1
        def used(): return len(os.listdir("/dev/fd"))
        def main():
            run_local([Node(number=-1)], workers=ProcessWorkers())
            before, errors = used(), []
            for free in range(1, 12):
                node = Node(number=free)
                resource.setrlimit(resource.RLIMIT_NOFILE, (before + free, most))
                try:
                    run_local([node], workers=ProcessWorkers(), progress=False)
                except (OSError, FuruComputeError) as error:
                    errors.append(str(error))
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
                assert used() == before, (free, used(), before)
                try:
                    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                except ChildProcessError:
                    pass
                else:
                    raise AssertionError("a process is left")
                run_local([node], workers=ProcessWorkers())
            assert any("a child process could not be started" in text for text in errors), errors
            print("none is left")
        if __name__ == "__main__":
            soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            main()
        """,
        tmp_path,
    )
    assert "none is left\n" == printed

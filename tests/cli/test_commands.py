"""The command line: its output on a terminal and in a pipe, and its exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from furu import Status
from furu.cli.app import app

MODULE = """
import os, pathlib, time
from furu import Furu

class Data(Furu[list[int]]):
    seed: int
    def _create(self):
        return list(range(self.seed))

class Train(Furu[float]):
    data: Data
    rate: int
    def _create(self):
        self.logger.info("training at %s", self.rate)
        if self.rate > 5:
            raise ValueError("diverged")
        return float(self.rate)

class Slow(Furu[int]):
    '''Reports that it runs, and waits until a file appears.'''
    place: str
    def _create(self):
        pathlib.Path(self.place, "begun").touch()
        while not pathlib.Path(self.place, "end").exists():
            time.sleep(0.01)
        return 1

class After(Furu[int]):
    slow: Slow
    def _create(self):
        return 2

good = [Train(data=Data(seed=1), rate=rate) for rate in range(3)]
one = good[0]

def mixed():
    return [*good, Train(data=Data(seed=2), rate=9)]

def slow():
    return [After(slow=Slow(place=os.environ["PLACE"]))]
"""


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the commands, which contains a module with nodes."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "models.py").write_text(MODULE)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PLACE", str(folder))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return folder


def furu(*arguments: str) -> Result:
    """Run the command in this process with captured output, which is faster than starting Python."""
    sys.modules.pop("models", None)
    return CliRunner().invoke(app, arguments, prog_name="furu")


def in_terminal(*arguments: str) -> tuple[str, int]:
    """Run the command in a new terminal, and return its output and its exit code."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-m", "furu.cli", *arguments])
    shown = bytearray()
    while True:
        select.select([terminal], [], [], 10)
        try:
            content = os.read(terminal, 65536)
        except OSError:  # on Linux this means that the other end is closed
            content = b""
        if not content:
            break
        shown += content
    _, code = os.waitpid(child, 0)
    os.close(terminal)
    return shown.decode().replace("\r\n", "\n"), os.waitstatus_to_exitcode(code)


def plain(text: str) -> str:
    """Replace the parts of a text that differ from run to run."""
    text = re.sub(r"[0-9]+(\.[0-9]+)? (ms|s)\b", "TIME", text)
    text = re.sub(r"\b[0-9a-f]{32}\b", "HASH", re.sub(r"\b[0-9]+%", "N%", text))
    return re.sub(r"(?<=[a-z] )[0-9a-f]{8}\b", "HASH8", text)


# ---- run ----


def test_run_prints_its_report_and_exits_with_0() -> None:
    """Piped output is plain text."""
    done = furu("run", "models:good")
    lines = plain(done.stdout).splitlines()
    assert 0 == done.exit_code, done.stderr
    assert "computed 4, reused 0, failed 0 in TIME" == lines[0]
    assert "  workers: TIME of work on 8 workers, N% of their time" == lines[1]
    assert "  critical path: TIME, N% of the run" == lines[2]
    assert "" == done.stderr


def test_failed_node_is_named_on_stderr_and_run_exits_with_1() -> None:
    """With --keep-going, the other nodes are computed."""
    done = furu("run", "models:mixed", "--keep-going")
    assert 1 == done.exit_code
    assert "furu: Train(data=<Data " in done.stderr
    assert "ValueError: diverged. State: " in done.stderr
    assert done.stdout.startswith("computed 5, reused 0, failed 1 in ")
    assert "Traceback" not in done.stderr


def test_report_as_json_is_one_document() -> None:
    report = json.loads(furu("run", "models:mixed", "--keep-going", "--json").stdout)
    assert (5, 1, 8) == (report["computed"], report["failed"], report["max_workers"])
    assert "diverged" in report["failures"][0]["message"]


def test_other_failures_are_counted_after_the_first_one() -> None:
    """The error message counts them. The report lists them all."""
    Path("many.py").write_text(
        "from models import *\nroots = [Train(data=one.data, rate=rate) for rate in (7, 8, 9)]\n"
    )
    done = furu("run", "many.py:roots", "--keep-going")
    assert 1 == done.exit_code
    assert done.stderr.endswith("Run again to retry. 2 other nodes failed too: see the report.\n")
    assert 3 == done.stdout.count("ValueError: diverged. State: ")


def test_message_with_a_full_stop_at_its_end_gets_no_second_one() -> None:
    """The full stop separates the node's message from the state file."""
    Path("stops.py").write_text(MODULE.replace('"diverged"', '"diverged."'))
    done = furu("run", "stops.py:mixed")
    assert "ValueError: diverged. State: " in done.stderr
    assert ".." not in done.stderr.replace("...", "")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("models", "is not MODULE:NAME"),
        ("nosuch:x", "no module 'nosuch'"),
        ("models:nosuch", "has no 'nosuch'"),
        ("models:Train", "is the class Train"),
        ("models:os", "is a module"),
    ],
)
def test_target_without_nodes_exits_with_2(target: str, says: str) -> None:
    """The message says what is wrong with the target."""
    done = furu("run", target)
    assert 2 == done.exit_code
    assert says in " ".join(done.stderr.replace("│", "").split())


def test_roots_may_be_given_by_a_file_and_a_function() -> None:
    """FILE.py:NAME works too, and NAME may be a single node."""
    assert furu("run", "./models.py:one").stdout.startswith("computed 2, ")
    assert furu("run", "models:one").stdout.startswith("computed 0, reused 1, ")


def test_wrong_window_exits_with_2() -> None:
    """The option is rejected before any node is computed."""
    done = furu("run", "models:good", "--window", "sideways")
    assert 2 == done.exit_code
    assert "window_size must be" in done.stderr


# ---- interrupts ----


def begin_slow(work: Path) -> subprocess.Popen[str]:
    """Start a run of a node that waits for a file, and return when the node is running."""
    command = [sys.executable, "-m", "furu.cli", "run", "models:slow"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (work / "begun").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_interrupt_lets_running_nodes_finish_and_names_them(work: Path, number: int) -> None:
    """The running node is published, and no other node starts."""
    process = begin_slow(work)
    assert process.stderr is not None
    process.send_signal(number)
    told = process.stderr.readline()
    assert "interrupted; waiting for 1 node to finish: Slow HASH8. Again: exit at once." in plain(told)
    (work / "end").touch()
    process.communicate(timeout=10)
    assert 130 == process.returncode
    counts = json.loads(furu("status", "--json").stdout)["classes"]
    assert {"models:Slow"} == set(counts)
    assert 1 == counts["models:Slow"]["DONE"]


def test_second_interrupt_exits_at_once(work: Path) -> None:
    """The next run takes over the node of the interrupted run."""
    process = begin_slow(work)
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert 130 == process.returncode
    (work / "end").touch()
    assert furu("run", "models:slow").stdout.startswith("computed 2, reused 0, failed 0")


# ---- status, show and explain ----


def test_status_counts_by_class_and_state() -> None:
    """Piped output has no colours and no cursor movements."""
    furu("run", "models:mixed", "--keep-going")
    done = furu("status")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["class", "DONE", "FAILED", "IN_PROGRESS", "TODO", "size"] == rows[1]
    assert ["models:Data", "2", "0", "0", "0"] == rows[3][:5]
    assert ["models:Train", "3", "1", "0", "0"] == rows[4][:5]
    assert "\x1b" not in done.stdout


def test_status_of_a_missing_store_is_empty(store: Path) -> None:
    """The command does not create the store."""
    assert f"{store}: 0 nodes, 0 B\n" == furu("status").stdout
    assert not store.exists()


def test_show_prints_everything_about_a_failed_node() -> None:
    furu("run", "models:mixed", "--keep-going")
    report = json.loads(furu("run", "models:mixed", "--json").stdout)
    shown = furu("show", report["failures"][0]["hash"][:12]).stdout
    for text in ("state      FAILED", '"rate": 9', "attempt 2: failed by pid ", "ValueError: diverged"):
        assert text in shown
    assert "INFO training at 9" in shown


def test_show_as_json_contains_the_result() -> None:
    """The result is null if the node is not published."""
    furu("run", "models:mixed", "--keep-going")
    failed = json.loads(furu("run", "models:mixed", "--json").stdout)["failures"][0]["hash"]
    done = next(key for key in nodes_of("Train") if key != failed)
    shown = {key: json.loads(furu("show", "--json", key).stdout) for key in (done, failed)}
    assert ("DONE", shown[done]["config"]["rate"]) == (shown[done]["status"], shown[done]["result"])
    assert ("FAILED", None) == (shown[failed]["status"], shown[failed]["result"])


def test_plan_names_the_store(store: Path) -> None:
    """The first line has the path of the store."""
    lines = furu("plan", "models:one").stdout.splitlines()
    assert [f"{store}:", "2 to compute, 0 reused, 0 in progress elsewhere, 0 failed"] == lines[:2]


def test_show_of_an_unknown_hash_exits_with_1() -> None:
    """The message names the store."""
    done = furu("show", "abc")
    assert 1 == done.exit_code
    assert "has no node whose hash begins with abc" in done.stderr


def test_explain_names_the_differing_field_at_any_depth() -> None:
    """The node is compared with the most similar node of its class."""
    furu("run", "models:mixed", "--keep-going")
    report = json.loads(furu("run", "models:mixed", "--json").stdout)
    lines = plain(furu("explain", report["failures"][0]["hash"]).stdout).splitlines()
    assert "models:Train" == lines[0]
    assert "  data: models:Data HASH8 -> models:Data HASH8" in lines
    assert "    seed: 1 -> 2" in lines
    assert any(line.startswith("  rate: ") and line.endswith(" -> 9") for line in lines)


def test_output_on_a_terminal_is_coloured_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR works as https://no-color.org specifies."""
    furu("run", "models:good")
    hash_of = json.loads(furu("show", "--json", nodes_of("Train")[0]).stdout)["hash"]
    shown, code = in_terminal("show", hash_of)
    assert 0 == code
    assert "\x1b[1m" in shown
    monkeypatch.setenv("NO_COLOR", "1")
    shown, _ = in_terminal("status")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown)


def nodes_of(name: str) -> list[str]:
    """Return the hashes of a class's nodes in the store."""
    store = Path(os.environ["FURU_PATH"])
    return sorted({path.name.partition(".")[0] for path in store.glob(f"models/{name}/*")})


# ---- graphs ----


def test_graph_is_written_as_mermaid_and_dot() -> None:
    """The Mermaid graph has the state of each node."""
    furu("run", "models:one")
    mermaid = plain(furu("graph", "models:good").stdout).splitlines()
    assert "flowchart LR" == mermaid[0]
    assert '  n0["Data HASH8"]:::done' == mermaid[1]
    assert "  n0 --> n3" in mermaid
    assert 2 == sum(line.endswith(":::todo") for line in mermaid)
    assert "  n0 -> n1;" in furu("graph", "models:good", "-f", "dot").stdout


def test_html_page_has_every_node_and_loads_no_other_files(work: Path) -> None:
    assert 0 == furu("graph", "models:good", "-f", "html", "-o", "graph.html").exit_code
    page = (work / "graph.html").read_text()
    assert not re.search(r"(src|href)=|https?://|@import", page)
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', page)
    assert data is not None
    assert 4 == len(json.loads(data[1])["nodes"])


# ---- gc ----


def test_gc_keeps_named_nodes_and_their_dependencies() -> None:
    """The command removes all other nodes."""
    furu("run", "models:mixed", "--keep-going")
    looked = furu("gc", "--keep", "models:one", "--dry-run")
    assert ": 4 nodes to remove, " in looked.stdout
    assert ": 6 nodes, " in furu("status").stdout
    done = furu("gc", "--keep", "models:one", "--yes")
    assert "removed 4 nodes\n" in done.stdout
    assert ": 2 nodes, " in furu("status").stdout
    assert furu("run", "models:one").stdout.startswith("computed 0, reused 1")


def test_gc_by_age_keeps_nodes_that_changed_recently() -> None:
    furu("run", "models:one")
    assert ": 0 nodes to remove" in furu("gc", "--older-than", "1h", "--yes").stdout
    assert "removed 2 nodes" in furu("gc", "--older-than", "0s", "--yes").stdout


@pytest.mark.parametrize("arguments", [[], ["--older-than", "soon"], ["--older-than", "1h"]])
def test_gc_without_a_rule_or_a_confirmation_removes_nothing(arguments: list[str]) -> None:
    """The exit code is 2. The nodes are old, so that there are nodes to remove."""
    furu("run", "models:one")
    for path in Path(os.environ["FURU_PATH"]).glob("models/*/*"):
        os.utime(path, (0, 0))
    assert 2 == furu("gc", *arguments).exit_code
    assert ": 2 nodes, " in furu("status").stdout


def test_gc_never_removes_a_node_that_is_being_computed(work: Path) -> None:
    """The run publishes the node later."""
    process = begin_slow(work)
    done = furu("gc", "--older-than", "0s", "--yes")
    assert ": 0 nodes to remove" in done.stdout
    (work / "end").touch()
    out, _ = process.communicate(timeout=10)
    assert out.startswith("computed 2, ")
    assert Status.DONE in furu("status").stdout


# ---- rm, and nodes that are computed again ----


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["Train"], {"Data"}),
        (["models:Data"], {"Train"}),
        (["Train", "Data"], set()),
        (["Train", "--below"], set()),
        (["Train", "--state", "failed"], {"Data", "Train"}),
    ],
)
def test_rm_removes_classes(arguments: list[str], left: set[str]) -> None:
    furu("run", "models:mixed", "--keep-going")
    looked = furu("rm", *arguments, "--dry-run")
    assert 0 == looked.exit_code
    assert " nodes to remove, " in looked.stdout
    assert (2, 4) == (len(nodes_of("Data")), len(nodes_of("Train")))
    assert 0 == furu("rm", *arguments, "--yes").exit_code
    assert left == {name for name in ("Data", "Train") if nodes_of(name)}
    if "failed" in arguments:
        assert 3 == len(nodes_of("Train"))


def test_rm_removes_a_node_by_its_hash_and_what_is_in_its_fields() -> None:
    furu("run", "models:good")
    node_hash = nodes_of("Train")[0]
    assert "removed 1 nodes" in furu("rm", node_hash[:8], "--yes").stdout
    assert (1, 2) == (len(nodes_of("Data")), len(nodes_of("Train")))
    assert "removed 2 nodes" in furu("rm", nodes_of("Train")[0], "--below", "--yes").stdout
    assert (0, 1) == (len(nodes_of("Data")), len(nodes_of("Train")))


@pytest.mark.parametrize("arguments", [["Other"], ["Train", "0000ffff"], ["Tra"]])
def test_rm_of_something_unknown_removes_nothing(arguments: list[str]) -> None:
    furu("run", "models:one")
    done = furu("rm", *arguments, "--yes")
    assert 1 == done.exit_code
    assert f"has the class or the hash {arguments[-1]}" in done.stderr
    assert ": 2 nodes, " in furu("status").stdout


def test_rm_without_a_confirmation_removes_nothing() -> None:
    furu("run", "models:one")
    assert 2 == furu("rm", "Train").exit_code
    assert 2 == furu("rm", "Train", "--state", "running", "--yes").exit_code
    assert ": 2 nodes, " in furu("status").stdout


def test_rm_never_removes_a_node_that_is_being_computed(work: Path) -> None:
    process = begin_slow(work)
    assert ": 0 nodes to remove" in furu("rm", "Slow", "--yes").stdout
    (work / "end").touch()
    out, _ = process.communicate(timeout=10)
    assert out.startswith("computed 2, ")


@pytest.mark.parametrize(("again", "computed"), [("Data", 2), ("models:Train", 1)])
def test_run_computes_classes_again(again: str, computed: int) -> None:
    furu("run", "models:one")
    assert f"{computed} to compute" in furu("plan", "models:one", "--again", again).stdout
    assert furu("run", "models:one", "--again", again).stdout.startswith(f"computed {computed}, ")
    node_hash = nodes_of("Train")[0]
    assert furu("run", "models:one", "--again", node_hash[:6]).stdout.startswith("computed 1, ")
    assert furu("run", "models:one").stdout.startswith("computed 0, ")


# ---- the command itself ----


def test_help_lists_the_commands_in_order_of_use() -> None:
    done = furu("--help")
    assert 0 == done.exit_code
    lines = done.stdout.partition("Commands:\n")[2].splitlines()
    names = [line.split()[0] for line in lines]
    assert ["run", "plan", "explain", "status", "ls", "table", "show", "graph", "rm", "gc", "demo"] == names
    assert not [line for line in lines if line.endswith("...")]  # no description is truncated


def test_missing_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['typer'] = None\n"
        "from furu.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "2" == done.stdout.strip()
    assert 'pip install "furu[cli]"' in done.stderr


# ---- traces and workers ----


def test_trace_is_written_even_if_a_node_failed(work: Path) -> None:
    assert 1 == furu("run", "models:mixed", "--keep-going", "--trace", "run.json").exit_code
    names = [event["name"] for event in json.loads((work / "run.json").read_text())["traceEvents"]]
    assert "Train (failed)" in names
    assert names.count("Train") >= 3  # the critical path has some of them again


@pytest.mark.parametrize("workers", ["fibres", "dask", "dask=", "threads=2"])
def test_unknown_kind_of_workers_exits_with_2(workers: str) -> None:
    """The message lists the valid kinds."""
    done = furu("run", "models:good", "--workers", workers)
    assert 2 == done.exit_code
    assert "processes, dask=ADDRESS" in " ".join(done.stderr.replace("│", "").split())


def test_processes_compute_nodes_of_a_file(work: Path) -> None:
    """A child process imports the module as the command does."""
    command = [sys.executable, "-m", "furu.cli", "run", "models:good", "--workers", "processes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("computed 4, "), done.stderr


def test_run_in_a_terminal_leaves_the_report_and_no_progress() -> None:
    """The progress lines are erased. A second run prints the same with other numbers."""
    for first in ("computed 4, reused 0", "computed 0, reused 3"):
        shown, code = in_terminal("run", "models:good")
        assert 0 == code
        lasting = plain(shown.rpartition("\x1b[J")[2].lstrip("\r\n"))
        assert f"{first}, failed 0 in TIME" == lasting.splitlines()[0]
        assert "━" not in lasting


def test_failed_node_is_named_last_on_a_terminal() -> None:
    """The error is printed below the report, where users look first."""
    shown, code = in_terminal("run", "models:mixed")
    assert 1 == code
    lines = shown.replace("\r", "").splitlines()
    assert "ValueError: diverged. State: " in "".join(lines[-8:])


@pytest.mark.parametrize("ignored", [False, True])
def test_sigterm_stops_other_commands_like_an_interrupt(ignored: bool) -> None:
    """SIGTERM also works if SIGINT is ignored, as under nohup."""
    code = (
        "import os, signal, furu.store.catalog as catalog\n"
        f"if {ignored}: signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from furu.cli import main\n"
        "catalog.walk = lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)\n"
        "import sys; sys.argv[1:] = ['status']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (130, "furu: interrupted; the nodes that were computed are kept\n") == (
        done.returncode,
        done.stderr,
    )

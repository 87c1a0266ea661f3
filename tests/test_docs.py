"""The examples in the README and the documentation print the output that is shown there."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import furu
from tests.declared_types import table

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"

# Runs the cells of a script, separated by `# %%`, on one event loop, as a notebook does.
RUN_CELLS = """
import ast, asyncio, inspect, sys
async def main():
    for cell in open(sys.argv[1]).read().split("# %%"):
        made = eval(compile(cell, sys.argv[1], "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), globals())
        if inspect.iscoroutine(made):
            await made
asyncio.run(main())
"""


def run(program: Path, folder: Path, *, as_cells: bool = False) -> str:
    """Run a program with `folder` as its working directory, and return its output."""
    done = subprocess.run(
        [sys.executable, *(["-c", RUN_CELLS] if as_cells else []), str(program), str(folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "" == done.stderr
    return done.stdout


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def test_readme_example_prints_its_output(tmp_path: Path) -> None:
    code, output = blocks(ROOT / "README.md", "python")[0], blocks(ROOT / "README.md", "text")[0]
    script = tmp_path / "vocabulary.py"
    script.write_text(code)
    assert output == run(script, tmp_path)
    assert code == (EXAMPLES / "vocabulary.py").read_text()


@pytest.mark.parametrize(
    ("example", "page"),
    [
        ("sweep.py", "tutorial/first-run.md"),
        ("async_app.py", "how-to/run-in-an-async-app.md"),
        ("queue_consumer.py", "how-to/embed-in-a-web-service.md"),
    ],
)
def test_example_prints_the_output_on_its_page(example: str, page: str, tmp_path: Path) -> None:
    assert blocks(ROOT / "docs" / page, "text")[0] == run(EXAMPLES / example, tmp_path)


def test_tutorial_prints_its_output_on_every_run(tmp_path: Path, store: Path) -> None:
    """Covers the first run, later runs, and a run after the artifacts were removed."""
    first, again = blocks(ROOT / "docs" / "tutorial" / "first-run.md", "text")
    for expected in (first, again, again):
        assert expected == run(EXAMPLES / "sweep.py", tmp_path)
    shutil.rmtree(store)
    assert first == run(EXAMPLES / "sweep.py", tmp_path)


def test_notebook_prints_the_output_on_its_page(tmp_path: Path) -> None:
    page = ROOT / "docs" / "how-to" / "run-in-an-async-app.md"
    assert blocks(page, "text")[-1] == run(EXAMPLES / "notebook.py", tmp_path, as_cells=True)


def test_every_example_has_a_page() -> None:
    pages = "".join(page.read_text() for page in [ROOT / "README.md", *ROOT.glob("docs/*/*.md")])
    for example in EXAMPLES.glob("*.py"):
        assert example.name in pages or example.name == "vocabulary.py"


def test_readme_links_lead_to_existing_files() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_readme_has_exactly_two_set_up_commands() -> None:
    """The first command installs furu and runs its demo, and the second runs furu's tests."""
    commands = re.findall(r"^    (python -m pip .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [
        'python -m pip install ".[cli]" && furu demo',
        "python -m pip install nox && nox -s tests",
    ] == commands


@pytest.mark.parametrize(
    "page",
    [
        "index.md",
        "how-to/store-arrays-tables-models-and-figures.md",
        "how-to/store-files-and-large-results.md",
        "how-to/change-a-class-and-keep-its-artifacts.md",
        "how-to/read-results-of-many-nodes.md",
        "how-to/notice-changed-code.md",
        "how-to/retry-time-out-and-limit.md",
        "how-to/run-many-roots-in-a-window.md",
        "how-to/choose-and-configure-a-store.md",
    ],
)
def test_examples_of_a_page_print_its_output(page: str, tmp_path: Path) -> None:
    """The Python blocks of a page run in order, as one script."""
    script = tmp_path / "page.py"
    script.write_text("".join(blocks(ROOT / "docs" / page, "python")))
    assert "".join(blocks(ROOT / "docs" / page, "text")) == run(script, tmp_path)


def test_table_of_declared_types_shows_the_tested_examples() -> None:
    """Write it anew with `python -m tests.declared_types`."""
    page = (ROOT / "docs" / "reference" / "declared-types.md").read_text()
    assert table() == page[page.index("| declared") :]


def test_reference_shows_every_public_name() -> None:
    reference = (ROOT / "docs" / "reference" / "api.md").read_text()
    shown = set(re.findall(r":: furu\.(?:[\w.]+\.)?(\w+)|`furu\.(\w+)`", reference))
    names = {name for pair in shown for name in pair}
    for module in re.findall(r"automodule:: (\S+)", reference):
        names |= set(importlib.import_module(module).__all__)
    assert set() == set(furu.__all__) - names

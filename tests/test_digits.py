"""The sweep of docs/examples/digits.py: killed half-way, resumed, and edited without computing it again."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from furu import Status, catalog, current_settings
from tests.test_docs import EXAMPLES, run

NODES = 132  # digits, 3 splits, 6 scaled ones, 60 models, 60 accuracies, a table and a plot

# Prints a line for each node that is done.
WATCHED = """
import digits, furu
furu.run_local([digits.plot], on_event=lambda event: print(type(event).__name__, flush=True))
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, which tests may edit."""
    path = tmp_path_factory.mktemp("digits") / "digits.py"
    path.write_text((EXAMPLES / "digits.py").read_text())
    return path


def counts(program: Path) -> tuple[int, int]:
    """Run the example, and return how many nodes it computed and reused."""
    match = re.match(r"computed (\d+), reused (\d+), failed 0\n", run(program, program.parent))
    assert match is not None
    return int(match[1]), int(match[2])


def stored() -> int:
    return sum(artifact.status() is Status.DONE for artifact in catalog.walk(current_settings()))


def edit(old: str, new: str) -> Callable[[Path], None]:
    """Return an edit of the example."""

    def apply(program: Path) -> None:
        text = program.read_text()
        assert old in text
        program.write_text(text.replace(old, new))

    return apply


@pytest.mark.timeout(300)  # it starts six programs that import scikit-learn
def test_sweep_goes_on_after_it_was_killed_and_keeps_its_artifacts_when_classes_are_edited(
    program: Path,
) -> None:
    """A field is added with `added=True`, a class is renamed with `_name`, and the code of one changes."""
    watched = subprocess.Popen(
        [sys.executable, "-c", WATCHED], cwd=program.parent, stdout=subprocess.PIPE, text=True
    )
    assert watched.stdout is not None
    finished = (line for line in watched.stdout if line == "NodeDone\n")
    for _ in range(60):
        next(finished)
    watched.kill()
    watched.communicate()

    before = stored()
    assert 60 <= before < NODES
    assert NODES - before == counts(program)[0]
    assert NODES == stored()

    edit(
        "    strength: float\n",
        "    strength: float\n    fit_intercept: bool = furu.field(default=True, added=True)\n",
    )(program)
    edit("from furu import Furu, run_local", "import furu\nfrom furu import Furu, run_local")(program)
    assert (0, 1) == counts(program)

    edit("Split", "Halved")(program)
    edit(
        "    digits: Digits\n    seed: int\n",
        '    _name = "digits:Split"\n    digits: Digits\n    seed: int\n',
    )(program)
    assert (0, 1) == counts(program)
    assert NODES == stored()

    edit("test_size=0.5", "test_size=0.4")(program)
    plan = subprocess.run(
        [sys.executable, "-c", "import digits, furu; print(furu.plan_local(digits.splits))"],
        cwd=program.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "digits:Split: 3 of 3 made by other code" in plan.stdout

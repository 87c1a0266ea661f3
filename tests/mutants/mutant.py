"""The class of mutants, and the copy of the sources to which a mutant is applied."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src" / "furu"


@dataclass(frozen=True)
class Mutant:
    """A fault: `old` is replaced by `new` in `file`, a path in the package. `name` describes the fault.
    `tests` are pytest ids, relative to the directory `tests`, that must fail on the mutant."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The pytest ids of the tests, relative to the root of the project."""
        return tuple(f"tests/{test}" for test in self.tests)

    def mutated(self) -> str:
        """Return the text of the file with the fault in it.

        Raises `ValueError` if the old text does not occur exactly once, or the new text is not Python.
        """
        path = SOURCES / self.file
        text = path.read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: its old text occurs {count} times in {path}, not once")
        try:
            broken = text.replace(self.old, self.new)
            compile(broken, str(path), "exec")
        except SyntaxError as error:
            raise ValueError(f"{self.name}: its new text breaks the syntax of {path}: {error}") from error
        return broken


def copy_sources(directory: Path, mutant: Mutant | None = None) -> None:
    """Copy the package into a directory, and apply the mutant, if one is given."""
    shutil.copytree(SOURCES, directory / "furu", ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        (directory / "furu" / mutant.file).write_text(mutant.mutated(), encoding="utf-8")

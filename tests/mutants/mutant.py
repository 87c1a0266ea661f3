"""What a mutant is, and how it is applied to a copy of the sources."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src" / "furu"


@dataclass(frozen=True)
class Mutant:
    """A break: in `file`, below the package, `old` becomes `new`. `name` says what no longer holds; `tests`
    are the pytest ids, below `tests`, that must fail on it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The tests as pytest takes them from the root of the project."""
        return tuple(f"tests/{test}" for test in self.tests)

    def mutated(self) -> str:
        """Return the broken text of the file.

        Raises `ValueError` if the old text does not occur exactly once, or the new one is not Python.
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
    """Copy the package into a directory, with one mutant applied to it, or none."""
    shutil.copytree(SOURCES, directory / "furu", ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        (directory / "furu" / mutant.file).write_text(mutant.mutated(), encoding="utf-8")

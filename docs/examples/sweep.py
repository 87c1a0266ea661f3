"""A sweep that breaks off, and goes on where it stopped."""

import sys
from pathlib import Path

from furu import File, Furu, FuruComputeError, run_local

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
(folder / "data.csv").write_text("1,2,3,4\n5,6,7,8\n")
(folder / "fixed").unlink(missing_ok=True)


class Table(Furu[list[list[float]]]):
    """The numbers of a file."""

    source: File

    def _create(self) -> list[list[float]]:
        lines = self.source.get().read_text().splitlines()
        return [[float(cell) for cell in line.split(",")] for line in lines]


class Model(Furu[float]):
    """One configuration of the sweep."""

    table: Table
    power: int

    def _create(self) -> float:
        if self.power == 3 and not (folder / "fixed").exists():
            raise ValueError("power 3 is not supported yet")
        self.logger.info("fitting with power %d", self.power)
        return sum(cell**self.power for row in self.table.get() for cell in row)


class Best(Furu[tuple[int, float]]):
    """The configuration with the greatest result."""

    models: tuple[Model, ...]

    def _create(self) -> tuple[int, float]:
        best = max(self.models, key=lambda model: model.get())
        return best.power, best.get()


table = Table(source=File(path=folder / "data.csv"))
best = Best(models=tuple(Model(table=table, power=power) for power in range(1, 6)))

try:
    report = run_local([best], max_workers=2, on_failure="continue")
except FuruComputeError as error:
    print("failed:", error.__cause__)
    report = error.report
print("so far:", report.summary().partition(" in ")[0])

(folder / "fixed").touch()
print("then:", run_local([best]).summary().partition(" in ")[0])
print("best:", best.get())

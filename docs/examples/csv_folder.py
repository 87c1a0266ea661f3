"""A folder of CSV files, listed by a node and read by a node each. A few of them are broken."""

import csv
import sys
from pathlib import Path

import pandas as pd

from furu import File, Furu, FuruComputeError, RunReport, outcomes, run_local

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("csv")


class Listing(Furu[list[str]]):
    """The names of the files in a folder. `day` makes a new listing when files have come."""

    folder: Path
    day: int = 1

    def _create(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.csv"))


class Sales(Furu[list[tuple[int, int]]]):
    """The shops and their sales in one file."""

    source: File

    def _create(self) -> list[tuple[int, int]]:
        with open(self.source.get(), newline="") as file:
            return [(int(row["shop"]), int(row["sold"])) for row in csv.DictReader(file)]


class ByShop(Furu[pd.DataFrame]):
    """The sales of each shop, from all files that can be read. Stored as Parquet."""

    _partial = True
    listing: Listing

    def _sales(self) -> list[Sales]:
        return [Sales(source=File(path=self.listing.folder / name)) for name in self.listing.get()]

    def _dependencies(self) -> list[Sales]:
        outcomes(self._sales())
        return []

    def _create(self) -> pd.DataFrame:
        rows = [row for sales in outcomes(self._sales()) if sales.is_done for row in sales.value]
        return pd.DataFrame(rows, columns=["shop", "sold"]).groupby("shop", as_index=False).sum()


class Total(Furu[int]):
    """All sales."""

    by_shop: ByShop

    def _create(self) -> int:
        return int(self.by_shop.get()["sold"].sum())


def run() -> RunReport:
    """Compute what is missing, and say what has failed."""
    try:
        return run_local([total], on_failure="continue")
    except FuruComputeError as error:
        if error.report is None:
            raise
        return error.report


if __name__ == "__main__":
    folder.mkdir(exist_ok=True)
    for number in range(300):
        broken = number in (7, 70, 170)
        sold = f"about {number}" if broken else f"{number}"
        (folder / f"{number:03}.csv").write_text(f"shop,sold\n{number % 3},{sold}\n")

    total = Total(by_shop=ByShop(listing=Listing(folder=folder)))
    report = run()
    print(f"computed {report.computed}, failed {report.failed}: {total.get():,} sold")

    (folder / "070.csv").write_text("shop,sold\n1,70\n")
    report = run()
    print(f"computed {report.computed}, failed {report.failed}: {total.get():,} sold")

"""The example with a folder of files: only what depends on a mended file is computed again."""

from __future__ import annotations

from pathlib import Path

from furu import catalog, current_settings
from tests.test_docs import EXAMPLES, run


def test_mended_file_computes_only_what_depends_on_it(tmp_path: Path) -> None:
    """The first run makes the listing, the sales of 297 files, the aggregate and the total. The second one
    makes the sales of the mended file, and the aggregate and the total once more."""
    total = sum(range(300))
    printed = run(EXAMPLES / "csv_folder.py", tmp_path)
    assert printed.splitlines() == [
        f"computed 300, failed 3: {total - 7 - 70 - 170:,} sold",
        f"computed 3, failed 2: {total - 7 - 170:,} sold",
    ]
    frames = [one for one in catalog.walk(current_settings()) if one.node_class == "csv_folder:ByShop"]
    assert 2 == len(catalog.inspect(frames[0]).missing)
    assert 1 == len(list(Path(frames[0].files.directory).rglob("*.parquet")))

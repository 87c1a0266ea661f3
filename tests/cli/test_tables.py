"""`furu ls` and `furu table`: what they print, without importing the class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from furu import File, Furu, FuruComputeError, run_local
from furu.cli.app import app


class Data(Furu[int]):
    seed: int

    def _create(self) -> int:
        return self.seed


class Train(Furu[dict[str, float]]):
    data: Data
    rate: float

    def _create(self) -> dict[str, float]:
        if self.rate > 5:
            raise ValueError("diverged")
        return {"score": self.rate * 2, "loss": 1.0}


def furu(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, prog_name="furu")


@pytest.fixture
def nodes(store: Path) -> list[Train]:
    """Three stored nodes, and one that failed. The class of the store's nodes cannot be imported."""
    nodes = [Train(data=Data(seed=1), rate=rate) for rate in (0.5, 0.25, 2.0)]
    run_local(nodes)
    with pytest.raises(FuruComputeError):
        run_local([Train(data=Data(seed=1), rate=9.0)])
    (store / __name__).rename(store / "nosuch")
    for path in (store / "nosuch").rglob("*"):
        if path.is_file():
            path.write_text(path.read_text().replace(f"{__name__}:", "nosuch:"))
    return nodes


def test_table_shows_rows_by_field_and_equal_columns_once(nodes: list[Train]) -> None:
    done = furu("table", "nosuch:Train")
    assert 0 == done.exit_code
    lines = done.stdout.splitlines()
    assert ["nosuch:Train: 3 nodes", "in every row: data=Data, data.seed=1, result.loss=1"] == lines[:2]
    assert ["hash", "rate", "result.score"] == lines[2].split()
    assert [[nodes[1].furu_hash[:12], "0.25", "0.5"], [nodes[0].furu_hash[:12], "0.5", "1"]] == [
        line.split() for line in lines[4:6]
    ]


@pytest.mark.usefixtures("nodes")
def test_table_is_sorted_chosen_and_written_as_csv_and_json() -> None:
    """CSV and JSON have all columns."""
    done = furu("table", "Train", "--sort", "result.score", "--descending", "--json")
    assert [2.0, 0.5, 0.25] == [row["rate"] for row in json.loads(done.stdout)]
    done = furu("table", "Train", "--where", "data.seed=1", "--where", "rate=0.25", "--csv")
    header, row = done.stdout.splitlines()
    assert "hash,data,data.seed,rate,result.score,result.loss" == header
    assert row.endswith(",Data,1,0.25,0.5,1.0")


def test_ls_shows_state_duration_and_fields(nodes: list[Train]) -> None:
    done = furu("ls", "Train")
    assert "nosuch:Train: 4 nodes" == done.stdout.splitlines()[0]
    assert ["hash", "state", "duration", "data", "rate"] == done.stdout.splitlines()[1].split()
    row = next(line for line in done.stdout.splitlines() if line.startswith(nodes[0].furu_hash[:12]))
    assert f"Data {nodes[0].data.furu_hash[:12]}   0.5" in " ".join(row.split()).replace(" 0.5", "   0.5")
    assert "DONE" in row
    assert " ms " in row
    failed = json.loads(furu("ls", "Train", "--state", "failed", "--json").stdout)["nodes"]
    assert [("FAILED", 9.0)] == [(node["state"], node["fields"]["rate"]) for node in failed]
    assert "1 node\n" in furu("ls", "Train", "--where", "rate=0.5").stdout


@pytest.mark.usefixtures("nodes")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("table", "Trian"), 1, "no nodes of a class 'Trian'; it has nosuch:Data, nosuch:Train"),
        (("ls", "Trian"), 1, "no nodes of a class 'Trian'"),
        (("table", "Train", "--sort", "x"), 2, "no column 'x'; it has hash, data, data.seed, rate"),
        (("table", "Train", "--where", "x=1"), 2, "no column 'x'"),
        (("table", "Train", "--where", "rate"), 2, "'rate' is not NAME=VALUE"),
        (("table", "Train", "--csv", "--json"), 2, "give --csv or --json, not both"),
        (("ls", "Train", "--state", "gone"), 2, "a state is DONE, FAILED"),
    ],
)
def test_wrong_arguments_are_errors(arguments: tuple[str, ...], code: int, message: str) -> None:
    done = furu(*arguments)
    assert (code, "") == (done.exit_code, done.stdout)
    assert message in " ".join(done.stderr.replace("│", "").split())


class Words(Furu[int]):
    source: File

    def _create(self) -> int:
        return 1


def test_explain_and_show_name_the_path_of_a_changed_file(tmp_path: Path) -> None:
    path = tmp_path / "project" / "raw" / "words"
    path.parent.mkdir(parents=True)
    (tmp_path / "project" / "pyproject.toml").touch()
    nodes = []
    for text in "ab":
        path.write_text(text)
        nodes.append(Words(source=File(path=path)))
        nodes[-1].get()
    before, after = (node.source.furu_hash[:8] for node in nodes)
    told = f"source: furu.node.file:File raw/words {before} -> furu.node.file:File raw/words {after}"
    assert told in furu("explain", nodes[1].furu_hash).stdout
    assert '"path": "raw/words"' in furu("show", nodes[1].furu_hash).stdout
    assert "raw/words" in furu("ls", "Words").stdout


def test_unreadable_nodes_are_named_on_stderr(nodes: list[Train], store: Path) -> None:
    (store / "nosuch" / "Train" / nodes[0].furu_hash).write_text("{")
    for command in ("ls", "table"):
        done = furu(command, "Train")
        assert 0 == done.exit_code
        assert nodes[0].furu_hash in done.stderr

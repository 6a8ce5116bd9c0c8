"""The results table of a report, and the command that prints it."""

import json
from pathlib import Path

import pytest

from dagnn_core.artifacts import write_artifact, write_json
from dagnn_core.errors import ArtifactError
from dagnn_core.reports.evaluation.table import results_table
from pipeline.cli.report import results

FIGURES = {
    f"{prefix}{name}": number / 100
    for number, (prefix, name) in enumerate(
        (prefix, name)
        for prefix in ("", "cca_", "chance_")
        for name in (
            "map_i2t", "map_t2i", "map_mean", "map_i2t_at_50", "map_t2i_at_50",
            "ndcg_i2t", "ndcg_t2i", "ndcg_i2t_at_10", "ndcg_t2i_at_10", "recall_i2t_at_10", "recall_t2i_at_10",
        )
    )
}  # fmt: skip


def test_every_metric_stands_under_its_title() -> None:
    title, *rows = results_table(FIGURES).splitlines()
    assert title.split("  ")[-1].strip() == "R@10 t2i"
    assert [row.split()[0] for row in rows] == ["model", "CCA", "chance"]
    assert [float(cell) for row in rows for cell in row.split()[1:]] == list(FIGURES.values())
    assert {len(line) for line in (title, *rows)} == {len(title)}


def test_further_rows_and_columns_stand_where_the_metrics_have_them() -> None:
    pretrained = {f"pretrained_{name}": 0.25 for name in FIGURES if not name.startswith(("cca", "chance"))}
    unseen = {
        f"{prefix}unseen_{name}": number / 10
        for number, prefix in enumerate(("", "cca_", "chance_"))
        for name in ("map_i2t", "map_t2i", "map_mean", "ndcg_i2t", "ndcg_t2i")
    }
    lines = results_table(FIGURES | pretrained | unseen).splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["model", "CCA", "pretrained", "chance"]
    assert len({len(line) for line in lines[:5]}) == 1 and set(lines[3].split()[1:]) == {"0.250"}
    assert lines[5:7] == ["", "queries with an unseen label, relevance by unseen labels:"]
    assert [line.split() for line in lines[8:]] == [
        ["model", *["0.000"] * 5],
        ["CCA", *["0.100"] * 5],
        ["chance", *["0.200"] * 5],
    ]


def test_the_command_prints_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with write_artifact(tmp_path / "report", kind="report", provenance={}) as draft:
        write_json(draft.path / "metrics.json", FIGURES)
    results(tmp_path / "report")
    assert capsys.readouterr().out == results_table(FIGURES) + "\n"
    results(tmp_path / "report", as_json=True)
    assert json.loads(capsys.readouterr().out) == FIGURES
    with pytest.raises(ArtifactError, match="does not exist, expected a report artifact; run `dvc repro evaluate`"):
        results(tmp_path / "missing")

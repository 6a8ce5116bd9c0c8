"""Reports on the same test split: differences, corrections, changed queries, tables, page, and what is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dagnn_core.artifacts import write_artifact
from dagnn_core.data.dataset import Dataset
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.reports.comparison.compare import ComparedReport, compare_reports
from dagnn_core.reports.comparison.html import render_comparison
from dagnn_core.reports.comparison.table import comparison_lines
from dagnn_core.reports.evaluation.queries import FILE, Queries
from dagnn_core.retrieval.comparison import holm
from dagnn_core.retrieval.directions import DIRECTIONS
from pipeline.cli.report import compare, queries
from tests.fixtures.evaluation import dataset, make_evaluation

__all__ = ["dataset"]


def make_report(dataset: Dataset, name: str, seed: int) -> ComparedReport:
    evaluation = make_evaluation(dataset, seed)
    table = Queries.of(dataset, evaluation.rows, scores=evaluation.scores, first=evaluation.first)
    return ComparedReport(
        name=name,
        queries=table,
        label_counts={"boat": 3, "<b>sea</b>": 1, "night": 2},
        digest=str(seed) * 64,
        data_digest=dataset.artifact.content_digest,
    )


@pytest.fixture(scope="module")
def three(dataset: Dataset) -> list[ComparedReport]:
    return [make_report(dataset, f"model-{seed}", seed) for seed in range(3)]


def test_rows_are_means_differences_and_corrected_p_values(three: list[ComparedReport]) -> None:
    comparison = compare_reports(three)
    tables = [report.queries for report in three]
    both = [table.mean_average_precision for table in tables]
    i2t, t2i = ([table.average_precision[direction] for table in tables] for direction in DIRECTIONS)
    for row, values in zip(comparison.family("overall"), (i2t, t2i, both), strict=True):
        assert row.num_queries == 11 and row.reference == pytest.approx(np.nanmean(values[0]))
        for change, value in zip(row.changes, values[1:], strict=True):
            assert change.mean == pytest.approx(np.nanmean(value))
            assert change.difference is not None
            assert change.difference.mean == pytest.approx(np.nanmean(value - values[0]))
            assert change.difference.low < change.difference.mean < change.difference.high
    looks = [
        stats.ttest_rel(new[~np.isnan(new)], old[~np.isnan(old)]).pvalue
        for old, *others in (i2t, t2i, both)
        for new in others
    ]
    found = [change.p_value for row in comparison.family("overall") for change in row.changes]
    assert found == pytest.approx(holm(looks))
    labels = {row.name: row for row in comparison.family("label")}
    boats = np.array(["boat" in labels for labels in tables[0].labels])
    assert set(labels) == {"boat", "<b>sea</b>", "night"}
    assert labels["boat"].num_queries == boats.sum()
    assert labels["boat"].reference == pytest.approx(both[0][boats].mean())
    slices = {row.name: row.num_queries for row in comparison.family("slice")}
    assert slices["one label"] + slices["several labels"] == 11
    assert slices["a rare label"] == sum("<b>sea</b>" in labels for labels in tables[0].labels)
    assert slices["a dark image"] == 5
    assert "short texts as queries" not in slices, "all texts are as short"


def test_the_same_numbers_have_changed_by_nothing(three: list[ComparedReport]) -> None:
    comparison = compare_reports([three[0], replace(three[0], name="again")])
    for row in comparison.rows:
        [change] = row.changes
        assert change.difference == (0.0, 0.0, 0.0) and change.p_value == 1.0
    assert comparison.better == comparison.worse == ()


def test_items_are_matched_by_their_ids(three: list[ComparedReport]) -> None:
    shuffled = replace(three[1], queries=three[1].queries.take(np.random.default_rng(0).permutation(12)))
    assert compare_reports([three[0], shuffled]).rows == compare_reports(three[:2]).rows


def test_the_queries_that_changed_by_most(three: list[ComparedReport]) -> None:
    comparison = compare_reports(three[:2])
    changes = sorted(
        float(new - old)
        for direction in DIRECTIONS
        for old, new in zip(*(report.queries.average_precision[direction] for report in three[:2]), strict=True)
        if not np.isnan(old)
    )
    assert [query.changed - query.reference for query in comparison.better] == changes[::-1][:6]
    assert [query.changed - query.reference for query in comparison.worse] == changes[:6]


def test_json_is_plain_and_whole(three: list[ComparedReport]) -> None:
    found = json.loads(json.dumps(compare_reports(three).to_json(), allow_nan=False))
    assert found["reference"] == "model-0" and set(found["reports"]) == {"model-0", "model-1", "model-2"}
    assert {row["family"] for row in found["rows"]} == {"overall", "slice", "label"}
    assert set(found["rows"][0]["changes"]["model-2"]) == {"mean", "difference", "low", "high", "p_value"}
    assert len(found["better"]) <= 12 and {query["report"] for query in found["better"]} == {"model-1", "model-2"}


def test_the_table_has_a_line_for_each_row(three: list[ComparedReport]) -> None:
    comparison = compare_reports(three)
    lines = list(comparison_lines(comparison))
    assert sum(line.startswith("boat ") for line in lines) == 2
    overall = next(line for line in lines if line.startswith("image → text"))
    assert overall.split()[3:6] == [
        "11",
        f"{comparison.rows[0].reference:.4f}",
        f"{comparison.rows[0].changes[0].mean:.4f}",
    ]


def test_a_label_of_one_query_is_too_little(three: list[ComparedReport]) -> None:
    def with_rare_label(report: ComparedReport) -> ComparedReport:
        labels = list(report.queries.labels)
        labels[4] = (*labels[4], "once")
        return replace(report, queries=replace(report.queries, labels=tuple(labels)))

    one = list(map(with_rare_label, three[:2]))
    comparison = compare_reports(one)
    [row] = [row for row in comparison.family("label") if row.name == "once"]
    assert row.changes[0].difference is None and row.changes[0].p_value is None
    assert any("too few queries to compare" in line for line in comparison_lines(comparison))
    assert "too few queries" in render_comparison(comparison, None)


def test_reports_that_cannot_be_compared(three: list[ComparedReport]) -> None:
    first, second = three[0], three[1]
    fewer = replace(second, queries=second.queries.take(np.arange(11)))
    labels = tuple(("lake",) if number == 3 else labels for number, labels in enumerate(second.queries.labels))
    other = replace(second, queries=replace(second.queries, labels=labels))
    nothing = {name: dict.fromkeys(DIRECTIONS, np.full(12, np.nan)) for name in first.queries.scores}
    undefined = [replace(report, queries=replace(report.queries, scores=nothing)) for report in (first, second)]
    for reports, message in (
        ([first], "1 report to compare, expected at least two"),
        ([first, first], "model-0 is named twice"),
        ([first, fewer], r"model-1 and model-0 are about other test items \(1 that only one of the two has, such as"),
        ([first, other], r"have other labels \(lake in one of the two alone\): 1 items differ, such as 'item-6'"),
        (undefined, "no query has a relevant item"),
    ):
        with pytest.raises(InputError, match=message):
            compare_reports(reports)


def links(html: str) -> list[str]:
    return re.findall(r'(?:src|href)="([^"]*)"', html)


def test_the_page_shows_both_models_side_by_side_and_needs_nothing_from_outside(
    dataset: Dataset, three: list[ComparedReport]
) -> None:
    comparison = compare_reports(three)
    html = render_comparison(comparison, dataset)
    assert html == render_comparison(comparison, dataset)
    assert all(link.startswith(("#", "data:image/jpeg;base64,", "data:text/csv")) for link in links(html))
    assert "<script" not in html and "&lt;script&gt;alert(" in html and "&lt;b&gt;sea" in html
    assert html.count('<article class="card changed">') == len(comparison.better) + len(comparison.worse)
    assert html.count("<h4>model-0:") == len(comparison.better) + len(comparison.worse)
    images = sum(link.startswith("data:image") for link in links(html))
    by_text = sum(query.direction == "t2i" for query in (*comparison.better, *comparison.worse))
    by_image = len(comparison.better) + len(comparison.worse) - by_text
    assert images == by_text * 2 * 5 + by_image
    assert "name it with <code>--dataset</code>" in render_comparison(comparison, None)


def write_folder(folder: Path, report: ComparedReport, dataset: Dataset) -> str:
    with write_artifact(folder, kind="report", provenance={}) as draft:
        report.queries.write(draft.path / FILE)
        data = dataset.artifact
        counts = {split: dict.fromkeys(dataset.label_names, 1) for split in ("train", "val", "test")}
        draft.content["data"] = data.content | {
            "content_digest": data.content_digest,
            "raw": None,
            "label_counts": counts,
            "rejected": {},
        }
    return str(folder)


def test_the_commands(
    dataset: Dataset, three: list[ComparedReport], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [write_folder(tmp_path / report.name, report, dataset) for report in three]
    compare(folders, html=tmp_path / "page.html", dataset=dataset.artifact.path)
    out = capsys.readouterr().out
    assert f"reference: {folders[0]}, 12 test items" in out and f"{folders[2]} against it" in out
    page = (tmp_path / "page.html").read_text()
    assert "data:image/jpeg" in page
    compare(folders[:2], as_json=True)
    assert json.loads(capsys.readouterr().out)["reference"] == folders[0]
    queries(report=Path(folders[0]), worst=3, label="boat", direction="t2i")
    title, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and title.startswith("direction") and all("boat" in line for line in lines)
    queries(report=Path(folders[0]), worst=0, as_json=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 22 and rows[0]["average_precision"] <= rows[1]["average_precision"]
    with pytest.raises(InputError, match="--direction up, expected i2t or t2i"):
        queries(report=Path(folders[0]), direction="up")
    with pytest.raises(
        InputError, match="'no such' is no report; give a folder, the id of an MLflow run, or a version"
    ):
        compare([folders[0], "no such"])
    with pytest.raises(ArtifactError, match="does not exist, expected a report artifact"):
        compare([folders[0], "./missing"])

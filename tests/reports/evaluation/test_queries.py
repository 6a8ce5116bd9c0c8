"""The table of queries: what it holds, that metrics are its means, and what is refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dagnn_core.artifacts import read_artifact, write_artifact
from dagnn_core.data.dataset import Dataset
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.reports.evaluation.measure import Evaluation
from dagnn_core.reports.evaluation.queries import FILE, SCORES, Queries
from dagnn_core.retrieval.directions import DIRECTIONS
from tests.fixtures.evaluation import dataset, evaluation, make_dataset, make_evaluation

__all__ = ["dataset", "evaluation"]

Table = tuple[Queries, Evaluation]


@pytest.fixture(scope="module")
def table(dataset: Dataset, evaluation: Evaluation) -> Table:
    queries = Queries.of(dataset, evaluation.rows, scores=evaluation.scores, first=evaluation.first)
    return queries, evaluation


def write_report(folder: Path, queries: Queries | pa.Table | None) -> Path:
    with write_artifact(folder, kind="report", provenance={}) as draft:
        if isinstance(queries, Queries):
            queries.write(draft.path / FILE)
        elif queries is not None:
            pq.write_table(queries, draft.path / FILE)
        (draft.path / "report.html").write_text("")
    return folder


def test_metrics_are_means_of_the_table_to_the_digit(table: Table, tmp_path: Path) -> None:
    queries, measured = table
    read = Queries.read(read_artifact(write_report(tmp_path / "report", queries), "report"))
    names = ("map_{}", "map_{}_at_50", "ndcg_{}", "ndcg_{}_at_10", "ndcg_jaccard_{}", "ndcg_jaccard_{}_at_10")
    for score, name in zip(SCORES, (*names, "recall_{}_at_10"), strict=True):
        for direction in DIRECTIONS:
            values = read.scores[score][direction]
            assert values[~np.isnan(values)].mean() == measured.methods[0].metrics[name.format(direction)]


def test_what_is_written_is_read(table: Table, tmp_path: Path) -> None:
    queries, measured = table
    read = Queries.read(read_artifact(write_report(tmp_path / "report", queries), "report"))
    assert (read.ids, read.texts, read.labels) == (queries.ids, queries.texts, queries.labels)
    assert read.ids[0] == "item-3" and read.labels[0] == () and len(read) == 12
    assert read.text_lengths.tolist() == [1] * 12
    # red, and half transparent green on white
    assert set(read.brightness.round().tolist()) == {76.0, 202.0}
    for direction in DIRECTIONS:
        first = measured.first[direction]
        assert read.partner_rank[direction].tolist() == first.partner_rank.tolist()
        assert read.num_relevant[direction].tolist() == first.num_relevant.tolist()
        assert read.retrieved[direction] == [[read.ids[item] for item in row[:10]] for row in first.order.tolist()]
        assert np.isnan(read.average_precision[direction]).tolist() == (first.num_relevant == 0).tolist()


def test_columns_of_the_source_are_written_and_read(table: Table, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "dataset", columns=["camera", "direction"])
    measured = make_evaluation(data)
    queries = Queries.of(data, measured.rows, scores=measured.scores, first=measured.first)
    with write_artifact(tmp_path / "report", kind="report", provenance={}) as draft:
        queries.write(draft.path / FILE)
        draft.content = {"data": data.artifact.content | {"content_digest": data.artifact.content_digest, "raw": None}}
    read = Queries.read(read_artifact(tmp_path / "report", "report"))
    assert read.columns["camera"] == [f"camera {number}" for number in range(3, 15)]
    assert read.columns["direction"][0] == "direction 3" and list(read.columns) == ["camera", "direction"]
    assert read.take(np.array([5, 2])).columns["camera"] == ["camera 8", "camera 5"]
    names = pq.read_schema(tmp_path / "report" / FILE).names
    assert names == [*pq.read_schema(write_report(tmp_path / "none", table[0]) / FILE).names, *names[-2:]]
    assert names[-2:] == ["column_camera", "column_direction"]


def test_hardest_queries_by_label_and_direction(table: Table) -> None:
    queries, _ = table
    places = queries.hardest(DIRECTIONS)
    scores = [queries.average_precision[place.direction][place.item] for place in places]
    assert len(places) == 22 and scores == sorted(scores), "the item without labels is left out"
    boats = queries.hardest(["t2i"], "boat")
    assert {place.direction for place in boats} == {"t2i"}
    assert {place.item for place in boats} == {item for item, labels in enumerate(queries.labels) if "boat" in labels}
    with pytest.raises(InputError, match=r"no test item has the label 'boats'; did you mean boat\?"):
        queries.hardest(["t2i"], "boats")
    with pytest.raises(InputError, match=r"no test item has the label 'x'; those that there are begin with <b>sea</b>"):
        queries.hardest(["t2i"], "x")


def test_some_items_in_another_order(table: Table) -> None:
    queries, _ = table
    some = queries.take(np.array([5, 2]))
    assert some.ids == (queries.ids[5], queries.ids[2])
    assert some.average_precision["i2t"].tolist() == queries.average_precision["i2t"][[5, 2]].tolist()
    assert some.retrieved["t2i"] == [queries.retrieved["t2i"][5], queries.retrieved["t2i"][2]]


def test_a_report_of_an_older_program_and_damaged_tables(table: Table, tmp_path: Path) -> None:
    queries, _ = table
    whole = pq.read_table(write_report(tmp_path / "whole", queries) / FILE)
    foreign = whole.set_column(
        whole.schema.get_field_index("retrieved"), "retrieved", pa.array([["elsewhere"]] * len(whole))
    )
    for number, (found, message) in enumerate(
        (
            (None, r"has no queries.parquet: an older program wrote this report; run `dvc repro --force evaluate`"),
            (whole.slice(1), "expected the same items as queries of both directions"),
            (whole.slice(0, 0), "expected the same items as queries of both directions"),
            (whole.drop_columns(["cosines"]), "has the columns .* expected id"),
            (foreign, "expected test items alone as results"),
        )
    ):
        folder = write_report(tmp_path / str(number), found)
        with pytest.raises(ArtifactError, match=message):
            Queries.read(read_artifact(folder, "report"))

"""`dagnn bench data`: every stage of growing data sets is timed, near copies included."""

from pathlib import Path

import pytest

from components.benchmarks import data
from dagnn_core.data.dataset import Dataset


@pytest.mark.slow
def test_stages_of_growing_data_sets_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "COPY_EVERY", 20)
    monkeypatch.setattr(data, "ITEMS_PER_SHARD", 70)
    graph, datasets = data.build_label_graph.run, []

    def watched(**arguments: Path) -> None:
        datasets.append(Dataset.read(arguments["dataset"]))
        graph(**arguments)

    monkeypatch.setattr(data.build_label_graph, "run", watched)
    rows = data.run(sizes=[100, 200], folder=tmp_path)
    assert [(row["items"], row["stage"]) for row in rows] == [
        (size, stage) for size in (100, 200) for stage in ("import, with data card", "data check", "label graph")
    ]
    assert [len(dataset) for dataset in datasets] == [100, 200]
    assert all(0 < row["CPU microseconds an item"] == row["CPU seconds"] / row["items"] * 1e6 for row in rows)
    assert not list(tmp_path.iterdir())

"""Exported rankings: trec_eval measures what we measure, and what cannot be exported."""

from pathlib import Path

import numpy as np
import pytest
import pytrec_eval

from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.features import Features
from dagnn_core.model.files import TrainedNetwork
from dagnn_core.reports.trec import export_rankings
from dagnn_core.retrieval.directions import DIRECTIONS
from dagnn_core.retrieval.metrics import score_pairs
from tests.fixtures.collection import Collection, collection

__all__ = ["collection"]


def test_trec_eval_measures_the_same(collection: Collection, tmp_path: Path) -> None:
    features = collection.best.parent / "features"
    export_rankings(tmp_path / "whole", model=collection.best, features=features, depth=0)
    data, model = Features.read(features), TrainedNetwork.read(collection.best)
    rows = data.pairs("test")
    scores = score_pairs(
        model.embed_image_features(data.image[rows]), model.embed_text_features(data.text[rows]), data.labels[rows]
    )
    with (tmp_path / "whole" / "qrels").open() as stream:
        qrels = pytrec_eval.parse_qrel(stream)
    for direction, expected in zip(DIRECTIONS, scores, strict=True):
        with (tmp_path / "whole" / f"{direction}.run").open() as stream:
            run = pytrec_eval.parse_run(stream)
        measured = pytrec_eval.RelevanceEvaluator(qrels, {"map", "ndcg", "ndcg_cut.10"}).evaluate(run)
        assert len(measured) == len(rows) and not np.isnan(expected.average_precision).any()
        for place, row in enumerate(rows.tolist()):
            found = measured[data.ids[row]]
            assert found["map"] == pytest.approx(expected.average_precision[place], abs=1e-9)
            assert found["ndcg"] == pytest.approx(expected.ndcg[place], abs=1e-9)
            assert found["ndcg_cut_10"] == pytest.approx(expected.ndcg_at_10[place], abs=1e-9)


def test_depth_and_form_of_the_lines(collection: Collection, tmp_path: Path) -> None:
    features = collection.best.parent / "features"
    written = export_rankings(tmp_path / "some", model=collection.best, features=features, depth=3)
    assert [path.name for path in written] == ["i2t.run", "t2i.run", "qrels"]
    ids = {Features.read(features).ids[row] for row in Features.read(features).pairs("test")}
    lines = [line.split() for line in written[1].read_text().splitlines()]
    assert len(lines) == 3 * len(ids) and {line[0] for line in lines} == ids
    assert [line[3] for line in lines[:4]] == ["1", "2", "3", "1"]
    assert [int(line[4]) for line in lines[:3]] == [len(ids), len(ids) - 1, len(ids) - 2]
    beyond = export_rankings(tmp_path / "beyond", model=collection.best, features=features, depth=10**6)
    assert len(beyond[0].read_text().splitlines()) == len(ids) ** 2


def test_what_cannot_be_exported_leaves_nothing(collection: Collection, tmp_path: Path) -> None:
    features = collection.best.parent / "features"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="full is there already, expected a new or an empty folder"):
        export_rankings(tmp_path / "full", model=collection.best, features=features, depth=0)
    with pytest.raises(ArtifactError, match="is a dataset artifact, expected a features artifact"):
        export_rankings(tmp_path / "out", model=collection.best, features=collection.dataset, depth=0)
    assert not (tmp_path / "out").exists()

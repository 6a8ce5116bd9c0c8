"""Versions measured on a test split: what a model can encode, how two compare, and the load test."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from components.services.promotion import load_test as load_test_module
from components.services.promotion.gate import NotApplicable
from components.services.promotion.load_test import load_test
from components.services.promotion.rescoring import Scored, compare, rows_of_test, sample, score
from dagnn_core.config.register import GateConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.errors import InputError
from dagnn_core.features.encoders.precomputed import PrecomputedEncoder
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.retrieval.bootstrap import paired_bootstrap

CONFIG = GateConfig(num_resamples=200)


@pytest.fixture
def model(scenes):
    return lambda name: TrainedModel.read(scenes.models[name])


@pytest.fixture
def data(scenes):
    return lambda name: Dataset.read(scenes.datasets[name])


@pytest.mark.parametrize("name", ["good", "vectors"])
def test_metrics_are_those_of_the_report(scenes, model, data, name):
    metrics = score(model(name), data("scenes" if name == "good" else name), name="it").metrics
    report = json.loads((scenes.models[name].parent / "report" / "metrics.json").read_text())
    assert metrics == pytest.approx({metric: report[metric] for metric in metrics}, abs=1e-6)


def with_encoders(model, **encoders):
    other = replace(model)
    other.__dict__.update(encoders)
    return other


def test_data_that_a_model_cannot_encode(model, data):
    ready = model("vectors")
    other_dim = with_encoders(ready, image_encoder=PrecomputedEncoder(modality="image", dim=3))
    ready_texts = with_encoders(ready, text_encoder=PrecomputedEncoder(modality="text", dim=4))
    content = ready.artifact.content | {"image": ready.artifact.content["image"] | {"vectors_sha256": "0" * 64}}
    of_a_file = replace(ready, artifact=replace(ready.artifact, content=content))
    wordless = replace(data("vectors"), texts=("",) * len(data("vectors")))
    empty = replace(data("vectors"), splits=np.full(len(data("vectors")), "train"))
    for one, dataset, reason in (
        (
            model("good"),
            data("vectors"),
            "it takes images (classic), but the data set has precomputed image vectors only",
        ),
        (ready, data("scenes"), "it takes precomputed image vectors, and the data set has none"),
        (other_dim, data("vectors"), "it takes image vectors of 3 numbers, and those of the data set have 10"),
        (ready_texts, data("vectors"), "it takes precomputed text vectors, and the data set has none"),
        (of_a_file, data("vectors"), "it takes image vectors of a file of its own (features.image_vectors)"),
        (ready, wordless, "it takes texts (bow), but item 'item-4' has a precomputed text vector only"),
    ):
        with pytest.raises(InputError, match=re.escape(f"version 2 cannot encode these data: {reason}")):
            score(one, dataset, name="version 2")
    with pytest.raises(InputError, match="has no test items with image and text"):
        score(ready, empty, name="version 2")


def scored(i2t, t2i):
    none = np.empty((len(i2t), 0), np.float32)
    return Scored(none, none, {}, {"i2t": np.array(i2t), "t2i": np.array(t2i)})


def test_comparison_by_direction_and_slice(data):
    dataset = data("vectors")
    size = len(rows_of_test(dataset))
    rng = np.random.default_rng(0)
    new, old = scored(*rng.random((2, size))), scored(*rng.random((2, size)))
    found = compare(new, old, dataset, CONFIG)
    for direction in ("i2t", "t2i"):
        pair = (new.average_precision[direction], old.average_precision[direction])
        expected = paired_bootstrap(*pair, num_resamples=200, seed=CONFIG.seed, level=0.9)
        assert tuple(found.directions[direction]) == pytest.approx(tuple(expected))
    counts = dataset.labels[dataset.rows("train")].sum(axis=0)
    rare = dataset.labels[rows_of_test(dataset), counts.argmin()] > 0
    change = np.mean([new.average_precision[way] - old.average_precision[way] for way in ("i2t", "t2i")], axis=0)
    assert found.slices["rare_labels"].mean == pytest.approx(change[rare].mean())
    lengths = np.array([len(dataset.texts[row].split()) for row in rows_of_test(dataset)])
    short = lengths <= np.sort(lengths)[size // 4]
    change = new.average_precision["t2i"] - old.average_precision["t2i"]
    assert found.slices["short_texts"].mean == pytest.approx(change[short].mean())


def test_the_same_model_has_dropped_by_nothing(data):
    dataset = data("vectors")
    one = scored(*np.random.default_rng(0).random((2, len(rows_of_test(dataset)))))
    found = compare(one, one, dataset, CONFIG)
    assert {tuple(part) for part in (*found.directions.values(), *found.slices.values())} == {(0.0, 0.0, 0.0)}


def test_a_slice_that_is_too_small_or_not_there_is_named_as_such(data):
    dataset = data("vectors")
    size = len(rows_of_test(dataset))
    values = np.full(size, np.nan)
    values[np.flatnonzero(dataset.labels[rows_of_test(dataset)].all(axis=1))[:1]] = 0.5
    few = scored(values, values)
    with pytest.raises(InputError, match=r"1 of \d+ queries have finite scores"):
        compare(few, few, dataset, CONFIG)
    wordless = replace(dataset, texts=("",) * len(dataset))
    one = scored(*np.random.default_rng(0).random((2, size)))
    assert compare(one, one, wordless, CONFIG).slices["short_texts"] == NotApplicable(
        "the data set has precomputed text vectors, not texts in words"
    )
    common = np.zeros_like(dataset.labels)
    common[:, 0] = 1
    common[rows_of_test(dataset)[0], 1] = 1
    slices = compare(one, one, replace(dataset, labels=common), CONFIG).slices
    assert slices["rare_labels"] == NotApplicable("queries with a rare label in the test split: 1, too few to compare")


@pytest.mark.slow  # `test_promote.py` loads a version of images in a fresh process
def test_a_version_on_precomputed_vectors_is_loaded_apart_from_this_process(scenes, model, data):
    ready, dataset = model("vectors"), data("vectors")
    queries = sample(ready, dataset, score(ready, dataset, name="it"))
    assert len(queries.rows) == len(queries.embeddings) == 32
    assert len(json.loads(queries.rows[-1]["image"])) == 10
    ballast = np.ones((512 << 20) // 8)  # 512 MiB that are not the version's
    measured = load_test(scenes.files("vectors"), queries)
    assert measured.served_difference < 1e-5
    assert 0 < measured.latency_p50_ms <= measured.latency_p95_ms
    assert 100 < measured.peak_memory_mib < 900 + ballast[0]


def test_difference_of_embeddings_is_relative_to_their_length():
    expected = np.array([[3.0, 4.0], [0.1, 0.0]])
    assert load_test_module._difference(expected + np.array([[0.5, 0.0], [0.0, 0.0]]), expected) == pytest.approx(0.1)
    assert load_test_module._difference(expected + np.array([[0.0, 0.0], [0.0, 0.2]]), expected) == pytest.approx(0.2)
    assert load_test_module._difference(expected[:, :1], expected) == math.inf
    assert math.isnan(load_test_module._difference(expected * math.nan, expected))


def test_a_version_that_hangs(scenes, model, data, monkeypatch):
    ready, dataset = model("vectors"), data("vectors")
    queries = sample(ready, dataset, score(ready, dataset, name="it"))
    monkeypatch.setattr(load_test_module, "SECONDS", 0.01)
    with pytest.raises(InputError, match=r"the version did not embed 32 queries in 0.01 seconds"):
        load_test(scenes.files("vectors"), queries)

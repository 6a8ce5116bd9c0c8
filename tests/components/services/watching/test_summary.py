"""The summary of a log: counts and trend by hand, drift against a real model and its data."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.services.serving.query_log import decode_vector, encode_vector
from components.services.watching.lines import LoggedQuery
from components.services.watching.summary import MAX_HOURS, LogSummary, Reservoir
from dagnn_core.data.dataset import Dataset
from dagnn_core.data_check.queries import QueryLimits
from dagnn_core.features.tokens import tokenize
from dagnn_core.model.embedder import TrainedModel
from tests.fixtures.collection import Collection

START = datetime(2026, 11, 1, 10, 30, tzinfo=UTC)


def query(number: int = 0, *, digest: str = "d", after: timedelta = timedelta(), **changes: Any) -> LoggedQuery:
    values = {
        "time": (START + after).isoformat(),
        "kind": "text",
        "target": "image",
        "milliseconds": float(number),
        "model": {"name": "dagnn", "version": "1", "digest": digest},
        "text": "a boat",
        "relevant": True,
        "words": 2,
        "unknown_words": 0,
    }
    return LoggedQuery.model_validate(values | changes)


def values(findings: Any) -> dict[str, tuple[str, float]]:
    return {finding.name: (finding.verdict, pytest.approx(finding.value)) for finding in findings}


def test_what_the_log_alone_says() -> None:
    queries = [query(number, relevant=number >= 60, unknown_words=int(number < 30)) for number in range(100)]
    found = values(LogSummary(queries).check(QueryLimits(nothing_relevant=0.3, latency_p95_ms=90)))
    assert found == {
        "nothing_relevant": ("failed", 0.6),
        "unknown_words": ("ok", 0.15),  # 30 of 200: above 0.1, but perhaps by chance
        "latency_p95_ms": ("failed", 94.05),
    }
    tight = QueryLimits(unknown_words=0.02)
    assert values(LogSummary(queries).check(tight))["unknown_words"][0] == "failed"
    silent = [query(relevant=None, words=None, unknown_words=None)]
    assert set(values(LogSummary(silent).check(QueryLimits()))) == {"latency_p95_ms"}
    # a model without calibration says so of no result alone, as where a filter leaves none
    filtered = [query(relevant=None), *[query(relevant=False)] * 20, *[query(relevant=None)] * 79]
    assert values(LogSummary(filtered).check(QueryLimits()))["nothing_relevant"] == ("ok", 0.2)


def test_queries_of_other_models_are_left_out_and_counted() -> None:
    others = [query(digest="e", model={"name": "dagnn", "version": "2", "digest": "e"}) for _ in range(3)]
    summary = LogSummary([query(5), *others, query(model={"digest": "f" * 64})], "d")
    assert summary.total.queries == 1
    assert summary.others == {"dagnn 2": 3, "model ffffffffffff": 1}
    assert LogSummary(others).total.models == {"dagnn 2": 3}


def test_the_trend_is_by_hour_and_of_a_long_log_by_day() -> None:
    hours = [query(after=timedelta(hours=number), relevant=bool(number)) for number in (0, 0, 1, 5)]
    trend = LogSummary(hours).trend()
    assert [(point.time, point.counts.queries) for point in trend] == [
        ("2026-11-01 10:00", 2),
        ("2026-11-01 11:00", 1),
        ("2026-11-01 15:00", 1),
    ]
    assert trend[0].counts.irrelevant == 2
    days = LogSummary([query(after=timedelta(hours=number)) for number in range(MAX_HOURS + 1)]).trend()
    assert [point.time for point in days] == ["2026-11-01", "2026-11-02", "2026-11-03", "2026-11-04"]
    assert sum(point.counts.queries for point in days) == MAX_HOURS + 1


def test_the_sample_is_fair_and_bounded() -> None:
    taken = np.zeros(200)
    reservoir = Reservoir(50)
    for number in range(200):
        reservoir.add(query(number))
    for item in reservoir.items:
        taken[int(item.milliseconds)] += 1
    assert taken.max() == 1 and taken.sum() == 50
    assert 10 < taken[100:].sum() < 40


def test_an_embedding_keeps_three_digits() -> None:
    vector = np.random.default_rng(0).normal(size=61).astype(np.float32)
    text = encode_vector(vector)
    assert len(text) == 4 * -(-2 * 61 // 3)
    assert decode_vector(text) == pytest.approx(vector, rel=1e-3, abs=1e-3)


@pytest.fixture(scope="module")
def model(collection: Collection) -> TrainedModel:
    return TrainedModel.read(collection.best)


@pytest.fixture(scope="module")
def dataset(collection: Collection) -> Dataset:
    return Dataset.read(collection.dataset)


def by_text(model: TrainedModel, texts: list[str]) -> list[LoggedQuery]:
    vectors = model.encode_texts(texts)
    return [query(text=text, embedding=encode_vector(vector)) for text, vector in zip(texts, vectors, strict=True)]


def check(model: TrainedModel, dataset: Dataset, queries: list[LoggedQuery]) -> dict[str, Any]:
    return {finding.name: finding for finding in LogSummary(queries).check_against(model, dataset, QueryLimits())}


def test_queries_like_the_data_do_not_drift(model: TrainedModel, dataset: Dataset) -> None:
    texts = [dataset.texts[row] for row in dataset.rows("test")]
    rows = dataset.rows("test").tolist()
    vectors = model.encode_images([image or b"" for image in dataset.images(rows)])
    images = [
        query(kind="image", target="text", text=None, words=None, embedding=encode_vector(vector)) for vector in vectors
    ]
    found = check(model, dataset, by_text(model, texts) + images)
    assert {name: finding.verdict for name, finding in found.items()} == dict.fromkeys(
        [
            *("unseen_words", "text_length_shift", "text_label_shift", "text_embedding_shift"),
            *("image_label_shift", "image_embedding_shift"),
        ],
        "ok",
    )
    assert found["text_embedding_shift"].value == 0.0


def test_queries_about_one_thing_in_new_words_drift(model: TrainedModel, dataset: Dataset) -> None:
    one = dataset.texts[int(dataset.rows("test")[0])]
    found = check(model, dataset, by_text(model, [f"{one} zeppelin gramophone xylophone harmonica"] * 200))
    assert {name for name, finding in found.items() if finding.verdict == "failed"} == {"unseen_words"}
    # keywords about what the data has look like this as well
    assert {found[name].verdict for name in ("text_embedding_shift", "text_label_shift")} == {"warning"}
    assert found["unseen_words"].examples == ("gramophone", "harmonica", "xylophone")
    assert found["text_length_shift"].verdict == "warning"
    assert all("of queries" in text for text in found["text_label_shift"].examples)


def test_queries_about_one_thing_in_known_words_drift(model: TrainedModel, dataset: Dataset) -> None:
    texts = [" ".join(["boat"] * len(tokenize(dataset.texts[row]))) for row in dataset.rows("test")]
    found = check(model, dataset, by_text(model, texts * 3))
    assert {name: finding.verdict for name, finding in found.items()} == {
        "unseen_words": "ok",
        "text_length_shift": "ok",
        "text_label_shift": "failed",
        "text_embedding_shift": "failed",
    }


def test_embeddings_that_mean_nothing_here_are_passed_over(model: TrainedModel, dataset: Dataset) -> None:
    (whole,) = by_text(model, [dataset.texts[0]])
    strange = [
        query(embedding=encode_vector(np.ones(3))),
        query(embedding=encode_vector(np.full(len(decode_vector(whole.embedding)), np.inf))),
        query(kind="text", target="text", embedding=whole.embedding),  # within its own modality
        query(),
    ]
    found = check(model, dataset, strange)
    assert set(found) == {"unseen_words", "text_length_shift"}


def test_lines_of_the_service_are_what_is_read(tmp_path: Path) -> None:
    text = query(3).model_dump_json()
    assert LoggedQuery.model_validate_json(text) == query(3)
    assert json.loads(text)["milliseconds"] == 3.0

"""The report as one self-contained page: metrics, curves, example queries, and origin."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from dagnn_core.artifacts import Artifact
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.reports.evaluation.curves import Curve, draw_curves
from dagnn_core.reports.evaluation.measure import Evaluation
from dagnn_core.reports.page.template import read_template
from dagnn_core.reports.page.thumbnail import data_uri, thumbnail
from dagnn_core.retrieval.directions import ARROWS, DIRECTIONS
from dagnn_core.retrieval.metrics import RECALL_STEPS, map_by_label, rank_gallery

TEMPLATE = Path(__file__).with_name("report.html.j2")
TITLES = {direction: words.capitalize() for direction, words in ARROWS.items()}
COLUMNS = {"map_{}": "MAP", "map_{}_at_50": "MAP@50", "recall_{}_at_10": "R@10"}
GRADED_COLUMNS = {
    "ndcg_{}": "NDCG",
    "ndcg_{}_at_10": "NDCG@10",
    "ndcg_jaccard_{}": "NDCG, Jaccard",
    "ndcg_jaccard_{}_at_10": "NDCG@10, Jaccard",
}

UNSEEN_COLUMNS = {"unseen_map_{}": "MAP", "unseen_ndcg_{}": "NDCG"}


class _Cell(NamedTuple):
    """A value of the results table."""

    value: float
    is_best: bool
    ratio: float
    """To the same value of CCA."""


class _Label(NamedTuple):
    name: str
    is_shared: bool


class _Item(NamedTuple):
    """A pair as an example shows it."""

    id: str
    text: str
    image: str
    """Data URI; empty where the data set has precomputed vectors only."""
    labels: Sequence[_Label]


class _Hit(NamedTuple):
    """A retrieved item."""

    item: _Item
    is_relevant: bool
    is_own: bool
    """It is the query's own partner."""


class _Example(NamedTuple):
    """A query and the first items of its ranking."""

    query: _Item
    average_precision: float
    hits: Sequence[_Hit]


class _LabelMap(NamedTuple):
    """MAP of the queries with one label."""

    name: str
    num_queries: int
    image_to_text: float
    text_to_image: float


def render_report(
    evaluation: Evaluation,
    *,
    dataset: Dataset,
    history: Sequence[Mapping[str, float]],
    artifacts: Sequence[Artifact],
    config: EvaluateConfig,
) -> str:
    """Render the page; equal input gives equal text.

    Args:
        evaluation: metrics and embeddings of the test split.
        dataset: texts and images.
        history: metrics of every epoch of the training.
        artifacts: what the report is about, oldest first, the model last.
        config: how many examples, and their seed.

    Returns:
        HTML without references to anything outside it.
    """
    page = read_template(TEMPLATE).render(
        titles=TITLES,
        methods=evaluation.methods,
        intervals=evaluation.intervals,
        columns=list(COLUMNS.values()),
        table=_table(evaluation, [*_in_both_directions(COLUMNS), "map_mean"]),
        graded_columns=list(GRADED_COLUMNS.values()),
        graded_table=_table(evaluation, _in_both_directions(GRADED_COLUMNS)),
        unseen_columns=list(UNSEEN_COLUMNS.values()),
        unseen_table=_table(evaluation, [*_in_both_directions(UNSEEN_COLUMNS), "unseen_map_mean"])
        if dataset.unseen_label_names
        else [],
        unseen_labels=dataset.unseen_label_names,
        baseline=evaluation.baseline,
        curves=_curves(evaluation, history),
        label_bars=_label_bars(evaluation, dataset),
        examples=_examples(evaluation, dataset, config),
        num_labels=len(dataset.label_names),
        num_train=int((dataset.splits == "train").sum()),
        artifacts=artifacts,
        git=artifacts[-1].recorded("git"),
        params=_flat_params(artifacts),
        config=config,
    )
    return page.rstrip() + "\n"


def _in_both_directions(patterns: Iterable[str]) -> list[str]:
    return [pattern.format(direction) for direction in DIRECTIONS for pattern in patterns]


def _table(evaluation: Evaluation, names: Sequence[str]) -> list[tuple[str, list[_Cell]]]:
    """Name and values of every method."""
    cca = next(method for method in evaluation.methods if method.name == "CCA")
    rows = []
    for method in evaluation.methods:
        cells = []
        for name in names:
            value = method.metrics[name]
            best = max(other.metrics[name] for other in evaluation.methods)
            cells.append(_Cell(value, value == best, value / cca.metrics[name] if cca.metrics[name] > 0 else np.inf))
        rows.append((method.name, cells))
    return rows


def _curves(evaluation: Evaluation, history: Sequence[Mapping[str, float]]) -> dict[str, Markup]:
    epochs = [entry["epoch"] for entry in history]
    best = max(history, key=lambda entry: entry["val_map_mean"])["epoch"]
    recall = np.arange(RECALL_STEPS + 1) / RECALL_STEPS
    losses = [key for key in history[0] if key.startswith("loss_")]
    svg = {}
    if losses:  # of what is fitted in closed form there is nothing to see
        svg["Training loss"] = draw_curves(
            [
                Curve(key.removeprefix("loss_").replace("_", " "), epochs, [entry[key] for entry in history])
                for key in losses
            ],
            name="Training loss by epoch",
            x_label="epoch",
            y_label="mean loss",
            mark=best,
        )
        svg["Validation MAP"] = draw_curves(
            [
                Curve(TITLES[direction], epochs, [entry[f"val_map_{direction}"] for entry in history])
                for direction in DIRECTIONS
            ],
            name="Validation MAP by epoch",
            x_label="epoch",
            y_label="MAP",
            mark=best,
        )
    for direction in DIRECTIONS:
        svg[f"Precision and recall, {TITLES[direction].lower()}"] = draw_curves(
            [Curve(method.name, recall, method.precision[direction]) for method in evaluation.methods],
            name=f"Precision and recall, {direction}",
            x_label="recall",
            y_label="precision",
            x_range=(0, 1),
            y_range=(0, 1.02),
        )
    return {title: Markup(figure) for title, figure in svg.items()}  # noqa: S704 - our own drawing


def _label_bars(evaluation: Evaluation, dataset: Dataset) -> list[_LabelMap]:
    """Labels that some test item carries, the best retrieved first."""
    labels = dataset.labels[evaluation.rows]
    by_direction = [map_by_label(evaluation.average_precision[direction], labels) for direction in DIRECTIONS]
    counts = labels.sum(axis=0, dtype=np.int64)
    bars = [
        _LabelMap(name, int(count), float(image_to_text), float(text_to_image))
        for name, count, image_to_text, text_to_image in zip(dataset.label_names, counts, *by_direction, strict=True)
        if count > 0
    ]
    return sorted(bars, key=lambda bar: (-(bar.image_to_text + bar.text_to_image), bar.name))


def _examples(evaluation: Evaluation, dataset: Dataset, config: EvaluateConfig) -> dict[str, list[_Example]]:
    """Queries drawn from the test items that have a label, each with the start of its ranking, by direction."""
    draw = np.random.default_rng(config.seed)
    examples = {}
    for direction, query, gallery in (
        ("t2i", evaluation.text, evaluation.image),
        ("i2t", evaluation.image, evaluation.text),
    ):
        average_precision = evaluation.average_precision[direction]
        candidates = np.flatnonzero(~np.isnan(average_precision))
        queries = draw.choice(candidates, size=min(config.num_queries, len(candidates)), replace=False)
        rankings = rank_gallery(query[queries], gallery)[:, : config.num_retrieved]
        shown = np.unique(np.concatenate([queries, rankings.ravel()])) if direction == "t2i" else queries
        images = _thumbnails(dataset, evaluation.rows[shown])
        examples[direction] = [
            _example(
                evaluation,
                dataset,
                images,
                query=number,
                ranking=ranking,
                average_precision=float(average_precision[number]),
            )
            for number, ranking in zip(queries.tolist(), rankings.tolist(), strict=True)
        ]
    return examples


def _example(
    evaluation: Evaluation,
    dataset: Dataset,
    images: Mapping[int, str],
    *,
    query: int,
    ranking: Sequence[int],
    average_precision: float,
) -> _Example:
    query_labels = dataset.labels[evaluation.rows[query]]

    def item(number: int) -> _Item:
        row = int(evaluation.rows[number])
        labels = dataset.labels[row]
        names = [
            _Label(dataset.label_names[column], bool(query_labels[column]))
            for column in np.flatnonzero(labels).tolist()
        ]
        return _Item(dataset.ids[row], dataset.texts[row], images.get(row, ""), names)

    hits = []
    for number in ranking:
        found = item(number)
        hits.append(_Hit(found, any(label.is_shared for label in found.labels), number == query))
    return _Example(item(query), average_precision, hits)


def _thumbnails(dataset: Dataset, rows: NDArray[np.int64]) -> dict[int, str]:
    """Small copies of images as data URIs, by row; rows without an image are left out."""
    images = dataset.images(rows.tolist())
    return {
        row: data_uri(thumbnail(encoded), "jpeg") for row, encoded in zip(rows.tolist(), images, strict=True) if encoded
    }


def _flat_params(artifacts: Sequence[Artifact]) -> dict[str, dict[str, Any]]:
    """Section of the configuration -> key -> value, of every step that made one of the artifacts."""
    sections: dict[str, dict[str, Any]] = {}
    for artifact in artifacts:
        sections |= artifact.provenance.get("params", {})
    return {name.removesuffix("Config"): values for name, values in sections.items()}

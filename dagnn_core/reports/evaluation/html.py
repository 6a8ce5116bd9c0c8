"""The report as one self-contained page: metrics, examples, failures, slices, charts, the common space, and origin."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagnn_core.artifacts import Artifact
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.reports.evaluation.analysis import Analysis
from dagnn_core.reports.evaluation.charts import (
    TITLES,
    label_chart,
    reliability_chart,
    retrieval_charts,
    training_charts,
)
from dagnn_core.reports.evaluation.examples import (
    Example,
    Showcase,
    ShownItem,
    shown_images,
)
from dagnn_core.reports.evaluation.failures import Mistake, confident_mistakes, hardest
from dagnn_core.reports.evaluation.measure import Evaluation
from dagnn_core.reports.evaluation.queries import NUM_RETRIEVED
from dagnn_core.reports.page.numbers import csv_uri
from dagnn_core.reports.page.template import read_template
from dagnn_core.reports.page.thumbnail import THUMBNAIL_PIXELS
from dagnn_core.retrieval.directions import DIRECTIONS

TEMPLATE = Path(__file__).with_name("report.html.j2")
COLUMNS = {"map_{}": "MAP", "map_{}_at_50": "MAP@50", "recall_{}_at_10": "R@10"}
GRADED_COLUMNS = {
    "ndcg_{}": "NDCG",
    "ndcg_{}_at_10": "NDCG@10",
    "ndcg_jaccard_{}": "NDCG, Jaccard",
    "ndcg_jaccard_{}_at_10": "NDCG@10, Jaccard",
}

UNSEEN_COLUMNS = {"unseen_map_{}": "MAP", "unseen_ndcg_{}": "NDCG"}
NUM_HARDEST = 4  # queries of each direction
NUM_MISTAKES = 6  # of each direction
NUM_OF_SLICE = 6  # items of each found slice
MAX_MATRIX = 30  # labels of a matrix: more are not readable, the CSV has all
SMALL_PIXELS, TINY_PIXELS = 112, 56
MAX_TIP = 140  # letters of a text on the map
MAX_BYTES = 5_000_000
SCALES = (1.0, 0.7, 0.5, 0.35, 0.2)  # of the images, until the page has at most MAX_BYTES


class _Cell(NamedTuple):
    """A value of the results table."""

    value: float
    is_best: bool
    ratio: float
    """To the same value of CCA."""


class _ShownMistake(NamedTuple):
    query: ShownItem
    found: ShownItem
    cosine: float
    rank: int


class _ShownSlice(NamedTuple):
    rule: str
    num_queries: int
    mean: float
    low: float
    high: float
    rest: float
    p_value: float
    items: Sequence[ShownItem]
    """The hardest."""


class _Matrix(NamedTuple):
    """A matrix of labels, of which a page shows some."""

    names: Sequence[str]
    rows: Sequence[Sequence[float | None]]
    """Percent."""
    num_labels: int
    """Of all of it."""
    numbers: str
    """All of it, as CSV."""


class _Point(NamedTuple):
    """A point of the map."""

    modality: str
    pca: tuple[float, float]
    tsne: tuple[float, float]
    labels: Sequence[int]
    """Places in the list of labels that can be highlighted."""
    item: ShownItem


class _Map(NamedTuple):
    points: Sequence[_Point]
    labels: Sequence[str]
    """The most frequent ones."""
    numbers: str


def render_report(
    evaluation: Evaluation,
    analysis: Analysis,
    *,
    dataset: Dataset,
    history: Sequence[Mapping[str, float]],
    artifacts: Sequence[Artifact],
    config: EvaluateConfig,
    resources: Mapping[str, str],
) -> str:
    """Render the page; equal input gives equal text.

    Args:
        evaluation: metrics and embeddings of the test split.
        analysis: what there is beyond the metrics.
        dataset: texts and images.
        history: metrics of every epoch of the training.
        artifacts: what the report is about, oldest first, the model last.
        config: how many examples, and their seed.
        resources: what the step of each artifact has used, in words.

    Returns:
        HTML without references to anything outside it.
    """
    examples = _draw_queries(evaluation, config)
    worst = {direction: hardest(evaluation.average_precision[direction], NUM_HARDEST) for direction in DIRECTIONS}
    mistakes = {direction: confident_mistakes(evaluation.first[direction], NUM_MISTAKES) for direction in DIRECTIONS}
    shown = _images_of(examples, evaluation, config.num_retrieved) | _images_of(worst, evaluation, config.num_retrieved)
    shown |= {mistake.query for mistake in mistakes["i2t"]} | {mistake.item for mistake in mistakes["t2i"]}
    shown |= {item for part in analysis.slices for item in part.items[:NUM_OF_SLICE]}
    shown |= set(analysis.space.items.tolist()) if analysis.space else set()
    showcase = Showcase(dataset, evaluation.rows, shown)
    params = flat_params(artifacts)
    facts = {
        "titles": TITLES,
        "methods": evaluation.methods,
        "intervals": evaluation.intervals,
        "columns": list(COLUMNS.values()),
        "table": _table(evaluation, [*_in_both_directions(COLUMNS), "map_mean"]),
        "graded_columns": list(GRADED_COLUMNS.values()),
        "graded_table": _table(evaluation, _in_both_directions(GRADED_COLUMNS)),
        "unseen_columns": list(UNSEEN_COLUMNS.values()),
        "unseen_table": _table(evaluation, [*_in_both_directions(UNSEEN_COLUMNS), "unseen_map_mean"])
        if dataset.unseen_label_names
        else [],
        "unseen_labels": dataset.unseen_label_names,
        "baseline": evaluation.baseline,
        "protocols": evaluation.protocols,
        "training": training_charts(history, params.get("train", {})),
        "retrieval": retrieval_charts(evaluation, analysis),
        "labels": analysis.labels,
        "label_chart": label_chart(analysis),
        "num_first": NUM_RETRIEVED,
        "confusions": _confusions(analysis, dataset),
        "has_source_columns": bool(analysis.queries.columns),
        "slice_numbers": _slice_numbers(analysis),
        "reliability": analysis.reliability,
        "reliability_chart": reliability_chart(analysis.reliability) if analysis.reliability else None,
        "centroid_distance": analysis.centroid_distance,
        "hubness": analysis.hubness,
        "edges": _edges(evaluation, dataset),
        "num_labels": len(dataset.label_names),
        "num_train": int((dataset.splits == "train").sum()),
        "artifacts": artifacts,
        "git": artifacts[-1].recorded("git"),
        "resources": resources,
        "params": params,
        "config": config,
    }
    for scale in SCALES:
        showcase.scale = scale
        page = read_template(TEMPLATE).render(
            facts,
            examples=_show_examples(examples, showcase, evaluation, config, THUMBNAIL_PIXELS),
            hardest=_show_examples(worst, showcase, evaluation, config, SMALL_PIXELS),
            mistakes={
                direction: [_show_mistake(mistake, direction, showcase) for mistake in mistakes[direction]]
                for direction in ("t2i", "i2t")
            },
            slices=_show_slices(analysis, showcase),
            space=_show_map(analysis, showcase),
        )
        if len(page.encode()) <= MAX_BYTES:
            break
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


def _draw_queries(evaluation: Evaluation, config: EvaluateConfig) -> dict[str, list[int]]:
    """Queries drawn from the test items that have a label, by direction."""
    draw = np.random.default_rng(config.seed)
    drawn = {}
    for direction in ("t2i", "i2t"):
        candidates = np.flatnonzero(~np.isnan(evaluation.average_precision[direction]))
        size = min(config.num_queries, len(candidates))
        drawn[direction] = draw.choice(candidates, size=size, replace=False).tolist()
    return drawn


def _images_of(queries: Mapping[str, Sequence[int]], evaluation: Evaluation, num_retrieved: int) -> set[int]:
    """Test items of which these examples show the images."""
    shown: set[int] = set()
    for direction, chosen in queries.items():
        shown |= shown_images(chosen, direction, evaluation.first[direction], num_retrieved)
    return shown


def _show_examples(
    queries: Mapping[str, Sequence[int]],
    showcase: Showcase,
    evaluation: Evaluation,
    config: EvaluateConfig,
    pixels: int,
) -> dict[str, list[Example]]:
    return {
        direction: [
            showcase.example(
                query,
                direction,
                first=evaluation.first[direction],
                average_precision=evaluation.average_precision[direction],
                num_retrieved=config.num_retrieved,
                pixels=pixels,
            )
            for query in chosen
        ]
        for direction, chosen in queries.items()
    }


def _show_mistake(mistake: Mistake, direction: str, showcase: Showcase) -> _ShownMistake:
    image_is_query = direction == "i2t"
    return _ShownMistake(
        query=showcase.show(mistake.query, pixels=SMALL_PIXELS if image_is_query else 0),
        found=showcase.show(mistake.item, mistake.query, pixels=0 if image_is_query else SMALL_PIXELS),
        cosine=mistake.cosine,
        rank=mistake.rank,
    )


def _show_slices(analysis: Analysis, showcase: Showcase) -> list[_ShownSlice]:
    return [
        _ShownSlice(
            part.rule,
            len(part.items),
            part.mean,
            *part.interval,
            part.rest,
            part.p_value,
            [showcase.show(item, pixels=SMALL_PIXELS) for item in part.items[:NUM_OF_SLICE]],
        )
        for part in analysis.slices
    ]


def _slice_numbers(analysis: Analysis) -> str:
    return csv_uri(
        {
            "slice": [part.rule for part in analysis.slices],
            "queries": [len(part.items) for part in analysis.slices],
            "map_mean": [part.mean for part in analysis.slices],
            "low": [part.interval.low for part in analysis.slices],
            "high": [part.interval.high for part in analysis.slices],
            "map_mean_rest": [part.rest for part in analysis.slices],
            "p_value": [part.p_value for part in analysis.slices],
        }
    )


def _confusions(analysis: Analysis, dataset: Dataset) -> _Matrix | None:
    """What wrong results carry, by label of the query; None without a wrong result."""
    found = analysis.confusions
    if not found.num_wrong.any():
        return None
    # labels of the queries that find something wrong, and labels of what they find
    weight = found.num_wrong + np.nansum(found.share * found.num_wrong[:, None], axis=0)
    shown = np.argsort(-weight, kind="stable")[:MAX_MATRIX]
    shown = np.sort(shown[weight[shown] > 0])
    return _matrix(found.share, dataset.label_names, shown)


def _edges(evaluation: Evaluation, dataset: Dataset) -> dict[str, _Matrix]:
    """The learned label graph before and after the training; empty where it was not learned."""
    edges = evaluation.learned_edges
    if edges is None:
        return {}
    counts = dataset.labels[dataset.splits == "train"].sum(axis=0, dtype=np.int64)
    shown = np.sort(np.argsort(-counts, kind="stable")[:MAX_MATRIX])
    return {
        "Before the training": _matrix(edges.before, dataset.label_names, shown),
        "After the training": _matrix(edges.after, dataset.label_names, shown),
    }


def _matrix(values: NDArray[np.floating], names: Sequence[str], shown: NDArray[np.int64]) -> _Matrix:
    def cell(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    return _Matrix(
        [names[label] for label in shown],
        [[cell(100 * values[row, column]) for column in shown] for row in shown],
        len(names),
        csv_uri({"": names} | {name: list(map(cell, values[:, column])) for column, name in enumerate(names)}),
    )


def _show_map(analysis: Analysis, showcase: Showcase) -> _Map | None:
    space = analysis.space
    if space is None:
        return None
    num_items = len(space.items)
    items = [int(item) for item in space.items]
    carried = [analysis.queries.labels[item] for item in items]
    counts = Counter(label for labels in carried for label in labels)
    frequent = sorted(counts, key=lambda label: (-counts[label], label))[:MAX_MATRIX]
    points = []
    for number in range(2 * num_items):
        place = number % num_items
        modality = "image" if number < num_items else "text"
        shown = showcase.show(items[place], pixels=TINY_PIXELS if modality == "image" else 0)
        text = shown.text if len(shown.text) <= MAX_TIP else f"{shown.text[:MAX_TIP]} …"
        points.append(
            _Point(
                modality,
                (float(space.pca[number, 0]), float(space.pca[number, 1])),
                (float(space.tsne[number, 0]), float(space.tsne[number, 1])),
                [frequent.index(label) for label in carried[place] if label in frequent],
                shown._replace(text=text),
            )
        )
    numbers = csv_uri(
        {
            "id": [point.item.id for point in points],
            "modality": [point.modality for point in points],
            "pca_x": space.pca[:, 0].tolist(),
            "pca_y": space.pca[:, 1].tolist(),
            "tsne_x": space.tsne[:, 0].tolist(),
            "tsne_y": space.tsne[:, 1].tolist(),
            "labels": ["|".join(carried[number % num_items]) for number in range(2 * num_items)],
        }
    )
    return _Map(points, frequent, numbers)


def flat_params(artifacts: Sequence[Artifact]) -> dict[str, dict[str, Any]]:
    """Section of the configuration -> key -> value, of every step that made one of the artifacts.

    Sections within a section have dotted keys; those of layouts that the data set does not have are left out.
    """
    sections: dict[str, dict[str, Any]] = {}
    for artifact in artifacts:
        for name, values in artifact.provenance.get("params", {}).items():
            flat = sections.setdefault(name.removesuffix("Config"), {})
            for key, value in values.items():
                if not isinstance(value, dict):
                    flat[key] = value
                elif key == values.get("layout", key):
                    flat |= {f"{key}.{inner}": one for inner, one in value.items()}
    return sections

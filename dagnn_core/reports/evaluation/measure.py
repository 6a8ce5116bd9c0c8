"""The metrics of a report: a model on the test split, beside chance and a linear CCA on the same features."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dagnn_core.baselines.cca import SelectedCCA, select_cca
from dagnn_core.config.section import DEFAULT_SEED
from dagnn_core.errors import InputError
from dagnn_core.features.features import Features
from dagnn_core.model.files import TrainedNetwork
from dagnn_core.nn.label_graphs import LearnedGraph
from dagnn_core.reports.evaluation.protocols import Protocol, measure_protocols
from dagnn_core.retrieval.bootstrap import Interval, bootstrap_mean
from dagnn_core.retrieval.directions import DIRECTIONS, MAP_METRICS
from dagnn_core.retrieval.metrics import (
    RECALL_STEPS,
    FirstRanks,
    QueryScores,
    chance_scores,
    first_ranks,
    mean_scores,
    relevant_fraction,
    score_pairs,
    score_pairs_with_curves,
)

INTERVAL_SEED = DEFAULT_SEED  # draws the resamples of the confidence intervals
COUNTS = ("num_queries", "num_queries_excluded", "unseen_num_queries")  # of the test split, not of a method
NUM_RANKS = 100  # of each ranking, which the analysis of results looks at
UNSEEN_METRICS = (*MAP_METRICS, *(f"ndcg_{direction}" for direction in DIRECTIONS))
"""The metrics that are reported of unseen labels too, with the prefix `unseen_`."""


class Method(NamedTuple):
    """What one way of ranking scores on the test split."""

    name: str
    """As people read it."""
    prefix: str
    """Of its metrics: none for the model."""
    metrics: Mapping[str, float]
    """Metric name without prefix -> value."""
    precision: Mapping[str, NDArray[np.float64]]
    """Interpolated precision at recall 0, 1/20 ... 1."""


class LearnedEdges(NamedTuple):
    """The label graph of I-GNN, as a graph convolution multiplies with it; [C, C] each."""

    before: NDArray[np.float32]
    """Of the label vectors at initialisation."""
    after: NDArray[np.float32]
    """Of the trained ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """All metrics, and what the parts of a report are computed from."""

    methods: tuple[Method, ...]
    """The model, CCA, the features as they are where they can be compared, chance."""
    baseline: SelectedCCA
    """What the validation split chose for CCA."""
    rows: NDArray[np.int64]
    """Rows of the test items in the data set, [N]."""
    image: NDArray[np.float32]
    """The model's image embeddings of the test items, [N, d]."""
    text: NDArray[np.float32]
    """The model's text embeddings, [N, d]."""
    scores: Mapping[str, QueryScores]
    """The model's scores of every query, by direction."""
    first: Mapping[str, FirstRanks]
    """What the model ranks first, by direction."""
    intervals: Mapping[str, Interval]
    """95 % confidence interval of the model's metrics that are a mean average precision, over other test items."""
    protocols: tuple[Protocol, ...] = ()
    """MAP by other protocols than the published one, and by that one."""
    probabilities: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """The model's label probabilities, by modality, [N, C]; none where it is not calibrated."""
    is_lifted: bool = False
    """Whether the last two entries of the embeddings only make their lengths equal."""
    learned_edges: LearnedEdges | None = None
    """None where the graph is not learned."""

    @property
    def average_precision(self) -> dict[str, NDArray[np.float64]]:
        """The model's average precision of every query, [N], by direction; NaN where nothing is relevant."""
        return {direction: scores.average_precision for direction, scores in self.scores.items()}

    @property
    def compared(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What of the image and text embeddings tells items apart, [N, d] each."""
        return (self.image[:, :-2], self.text[:, :-2]) if self.is_lifted else (self.image, self.text)

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric by the name that DVC and MLflow show."""
        metrics = {name: self.methods[0].metrics[name] for name in COUNTS if name in self.methods[0].metrics}
        for name, interval in self.intervals.items():
            metrics |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
        for method in self.methods:
            metrics |= {f"{method.prefix}{name}": value for name, value in method.metrics.items() if name not in COUNTS}
        return metrics


class Baselines(NamedTuple):
    """What a model is compared with."""

    selected: SelectedCCA
    """What the validation split chose for CCA."""
    cca: Method
    pretrained: Method | None
    """The features as they are; None where image and text features are of different dimensions."""
    chance: Method

    @property
    def methods(self) -> tuple[Method, ...]:
        """Those that there are, in the order of the tables."""
        return (self.cca, *([self.pretrained] if self.pretrained else []), self.chance)


def score_baselines(features: Features) -> Baselines:
    """Score CCA, fitted on train and selected on val, and chance on the test split.

    Raises:
        InputError: no validation or test item has a label, or a feature is not finite.
    """
    train, val, test = (features.pairs(split) for split in ("train", "val", "test"))
    selected = select_cca(
        features.image[train], features.text[train], features.image[val], features.text[val], features.labels[val]
    )
    image = selected.cca.embed_images(features.image[test])
    text = selected.cca.embed_texts(features.text[test])
    labels = features.labels[test]
    unseen = features.unseen_labels[test]
    cca, _ = _score("CCA", "cca_", image, text, labels=labels, unseen=unseen)
    return Baselines(selected, cca, _pretrained(features, test), _chance(labels, unseen))


def evaluate(model: TrainedNetwork, features: Features, *, num_ranks: int = NUM_RANKS) -> Evaluation:
    """Score a model on the test split, beside the baselines.

    Args:
        model: the model.
        features: what it was trained on.
        num_ranks: of each ranking, kept for the analysis of results; at least 10.

    Raises:
        InputError: the test split is empty, no test item has a label, or an embedding is not finite.
    """
    test = features.pairs("test")
    if len(test) == 0:
        raise InputError(
            f"{features.artifact.path} has no test items, expected at least one",
            "correct the splits of the data set, or dataset.test_fraction where they are drawn",
        )
    labels = features.labels[test]
    image = model.embed_image_features(features.image[test])
    text = model.embed_text_features(features.text[test])
    scored, scores = _score("model", "", image, text, labels=labels, unseen=features.unseen_labels[test])
    own = np.arange(len(test))
    probabilities = {
        modality: found
        for modality, embeddings in (("image", image), ("text", text))
        if (found := model.label_probabilities(embeddings)) is not None
    }
    baselines = score_baselines(features)
    return Evaluation(
        methods=(scored, *baselines.methods),
        baseline=baselines.selected,
        rows=test,
        image=image,
        text=text,
        scores=scores,
        first={
            "i2t": first_ranks(image, text, labels, labels, partners=own, num_ranks=num_ranks),
            "t2i": first_ranks(text, image, labels, labels, partners=own, num_ranks=num_ranks),
        },
        intervals=map_intervals({direction: scores[direction].average_precision for direction in DIRECTIONS}),
        protocols=measure_protocols(model, features, test, image=image, text=text, scores=scores),
        probabilities=probabilities,
        is_lifted=model.network.is_lifted,
        learned_edges=_learned_edges(model),
    )


def score_unseen(
    image: NDArray[np.floating], text: NDArray[np.floating], unseen: NDArray[np.uint8]
) -> dict[str, float]:
    """Metrics of the queries that carry an unseen label, relevance by the unseen labels alone; empty without any.

    The gallery is all items, as of the other metrics.

    Args:
        image: image embeddings of the test items.
        text: their text embeddings.
        unseen: their unseen labels.

    Shape:
        image [N, d], text [N, d], unseen [N, U].

    Raises:
        InputError: there are unseen labels, but no item carries one.
    """
    return unseen_metrics(*score_pairs(image, text, unseen)) if unseen.shape[1] else {}


def unseen_chance(unseen: NDArray[np.uint8]) -> dict[str, float]:
    """The same of a random ranking, in expectation.

    Shape:
        unseen [N, U].
    """
    return unseen_metrics(*[chance_scores(unseen, unseen)] * 2) if unseen.shape[1] else {}


def unseen_metrics(image_to_text: QueryScores, text_to_image: QueryScores) -> dict[str, float]:
    """The metrics of `UNSEEN_METRICS`, by their names, of scores with relevance by unseen labels.

    Args:
        image_to_text: scores of the images of some pairs as queries.
        text_to_image: scores of the texts of the same pairs.

    Raises:
        InputError: no query has a relevant item.
    """
    metrics = mean_scores(image_to_text, text_to_image)
    return {f"unseen_{name}": metrics[name] for name in (*UNSEEN_METRICS, "num_queries")}


def map_intervals(average_precision: Mapping[str, NDArray[np.float64]]) -> dict[str, Interval]:
    """Confidence intervals of both MAPs and of their mean; for that, both queries of an item are drawn together."""
    both = (average_precision["i2t"] + average_precision["t2i"]) / 2
    values = {f"map_{direction}": average_precision[direction] for direction in DIRECTIONS} | {"map_mean": both}
    return {name: bootstrap_mean(queries, seed=INTERVAL_SEED) for name, queries in values.items()}


@torch.inference_mode()
def _learned_edges(model: TrainedNetwork) -> LearnedEdges | None:
    graph = getattr(getattr(model.network, "label_classifiers", None), "graph", None)
    if not isinstance(graph, LearnedGraph):
        return None
    scale = graph.initial.sum(dim=1) ** -0.5
    before = scale[:, None] * graph.initial.T * scale
    return LearnedEdges(before.cpu().numpy(), graph().normalized.cpu().numpy())


def _score(
    name: str,
    prefix: str,
    image: NDArray[np.floating],
    text: NDArray[np.floating],
    *,
    labels: NDArray[np.uint8],
    unseen: NDArray[np.uint8],
) -> tuple[Method, dict[str, QueryScores]]:
    scored = dict(zip(DIRECTIONS, score_pairs_with_curves(image, text, labels), strict=True))
    scores = {direction: found.scores for direction, found in scored.items()}
    metrics = mean_scores(*scores.values()) | score_unseen(image, text, unseen)
    return Method(name, prefix, metrics, {direction: found.precision for direction, found in scored.items()}), scores


def _pretrained(features: Features, rows: NDArray[np.int64]) -> Method | None:
    if features.image.shape[1] != features.text.shape[1]:
        return None
    labels = {"labels": features.labels[rows], "unseen": features.unseen_labels[rows]}
    return _score("pretrained", "pretrained_", features.image[rows], features.text[rows], **labels)[0]


def _chance(labels: NDArray[np.uint8], unseen: NDArray[np.uint8]) -> Method:
    scores = chance_scores(labels, labels)
    fraction = relevant_fraction(labels, labels)
    precision = np.full(RECALL_STEPS + 1, fraction[fraction > 0].mean())
    metrics = mean_scores(scores, scores) | unseen_chance(unseen)
    return Method("chance", "chance_", metrics, {"i2t": precision, "t2i": precision})

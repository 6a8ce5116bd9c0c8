"""The charts of a report, each with its numbers as CSV."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from dagnn_core.config.section import parse_section
from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import InputError
from dagnn_core.reports.evaluation.analysis import Analysis
from dagnn_core.reports.evaluation.curves import SERIES, Curve, Point, draw_curves, draw_points
from dagnn_core.reports.evaluation.measure import Evaluation
from dagnn_core.reports.page.numbers import csv_uri
from dagnn_core.retrieval.calibration import Reliability
from dagnn_core.retrieval.directions import ARROWS, DIRECTIONS
from dagnn_core.retrieval.metrics import RECALL_STEPS
from dagnn_core.training.optimizer import learning_rate

TITLES = {direction: words.capitalize() for direction, words in ARROWS.items()}
NAMED_LABELS = 12  # the best and the worst, in the chart of labels; the CSV has all


class Chart(NamedTuple):
    """A chart with its numbers."""

    title: str
    svg: Markup
    file: str
    """Name of the CSV file."""
    numbers: str
    """The CSV file as data URI."""


def training_charts(history: Sequence[Mapping[str, float]], params: Mapping[str, object]) -> list[Chart]:
    """Losses, validation MAP, discriminator accuracies, gradient norm and learning rate by epoch.

    Args:
        history: metrics of every epoch.
        params: the section `train` of the training.

    Returns:
        None where the model was fitted in closed form.
    """
    losses = [key for key in history[0] if key.startswith("loss_")]
    if not losses:
        return []
    curves = {"Training loss": {"total": "loss_total"}}
    terms = [key for key in losses if key != "loss_total"]
    for start in range(0, len(terms), len(SERIES)):
        some = terms[start : start + len(SERIES)]
        title = "Terms of the loss" + (f", {start // len(SERIES) + 1}" if start else "")
        curves[title] = {key.removeprefix("loss_").replace("_", " "): key for key in some}
    curves["Validation MAP"] = {TITLES[direction]: f"val_map_{direction}" for direction in DIRECTIONS}
    accuracies = [key for key in history[0] if key.startswith("discriminator_accuracy_")]
    if accuracies:
        curves["Accuracy of the discriminators"] = {key.rpartition("_")[2]: key for key in accuracies}
    if "gradient_norm" in history[0]:
        curves["Gradient norm, last step"] = {"norm": "gradient_norm"}
    labels = {"Validation MAP": "MAP", "Accuracy of the discriminators": "accuracy", "Gradient norm, last step": "norm"}
    best = max(history, key=lambda entry: entry["val_map_mean"])["epoch"]
    epochs = [entry["epoch"] for entry in history]
    charts = [
        _chart(
            title,
            [Curve(name, epochs, [entry[key] for entry in history]) for name, key in keys.items()],
            name=f"{title} by epoch",
            x_label="epoch",
            y_label=labels.get(title, "mean loss"),
            mark=best,
            level=0.5 if accuracies and title.startswith("Accuracy") else None,
        )
        for title, keys in curves.items()
    ]
    rates = _learning_rates(epochs, params)
    if rates:
        curve = Curve("rate", epochs, rates)
        charts.append(
            _chart("Learning rate", [curve], name="Learning rate by epoch", x_label="epoch", y_label="rate", mark=best)
        )
    return charts


def _learning_rates(epochs: Sequence[float], params: Mapping[str, object]) -> list[float]:
    """The rate at the end of each epoch, as the parameters say; none where an older program knew other ones."""
    try:
        config = parse_section(TrainConfig, params, TrainConfig.NAME)
    except InputError:
        return []
    return [learning_rate(config, epoch) for epoch in epochs]


def retrieval_charts(evaluation: Evaluation, analysis: Analysis) -> list[Chart]:
    """Precision by recall of all methods, and precision of the model by number of results."""
    recall = np.arange(RECALL_STEPS + 1) / RECALL_STEPS
    charts = [
        _chart(
            f"Precision and recall, {TITLES[direction].lower()}",
            [Curve(method.name, recall, method.precision[direction]) for method in evaluation.methods],
            name=f"Precision and recall, {direction}",
            x_label="recall",
            y_label="precision",
            x_range=(0, 1),
            y_range=(0, 1.02),
        )
        for direction in DIRECTIONS
    ]
    ranks = np.arange(1, len(analysis.precision_of_ranks["i2t"]) + 1)
    charts.append(
        _chart(
            "Precision among the first results",
            [Curve(TITLES[direction], ranks, analysis.precision_of_ranks[direction]) for direction in DIRECTIONS],
            name="Precision by number of results",
            x_label="number of results",
            y_label="precision",
            y_range=(0, 1.02),
        )
    )
    return charts


def label_chart(analysis: Analysis) -> Chart | None:
    """MAP of each label by its training items; None where no label of the test split is among them."""
    labels = [label for label in analysis.labels if label.num_train]
    if not labels:
        return None
    order = sorted(labels, key=lambda label: label.map_mean)
    named = {label.name for label in (*order[: NAMED_LABELS // 2], *order[-NAMED_LABELS // 2 :])}
    points = [
        Point(label.name[:24] if label.name in named else "", label.num_train, label.map_mean) for label in labels
    ]
    svg = draw_points(
        points, name="MAP of labels by training items", x_label="training items with the label", y_label="mean MAP"
    )
    numbers: dict[str, list[object]] = {
        "label": [label.name for label in analysis.labels],
        "training_items": [label.num_train for label in analysis.labels],
        "test_items": [label.num_queries for label in analysis.labels],
        **{
            f"map_{direction}": [label.map_by_direction[direction] for label in analysis.labels]
            for direction in DIRECTIONS
        },
        "calibration_error": [label.calibration_error for label in analysis.labels],
    }
    return Chart("MAP by frequency", Markup(svg), "labels.csv", csv_uri(numbers))  # noqa: S704 - our own drawing


def reliability_chart(diagrams: Mapping[str, Reliability]) -> Chart:
    """Observed by predicted probabilities of each modality, beside the diagonal."""
    curves = [
        Curve(f"{modality}s", diagram.predicted[diagram.sizes > 0], diagram.observed[diagram.sizes > 0])
        for modality, diagram in diagrams.items()
    ]
    svg = draw_curves(
        [*curves, Curve("calibrated", [0, 1], [0, 1])],
        name="Reliability of label probabilities",
        x_label="probability",
        y_label="share with the label",
        x_range=(0, 1),
        y_range=(0, 1.02),
    )
    numbers: dict[str, list[object]] = {"modality": [], "count": [], "predicted": [], "observed": []}
    for modality, diagram in diagrams.items():
        numbers["modality"] += [modality] * len(diagram.sizes)
        numbers["count"] += diagram.sizes.tolist()
        numbers["predicted"] += _cells(diagram.predicted)
        numbers["observed"] += _cells(diagram.observed)
    return Chart("Reliability", Markup(svg), "reliability.csv", csv_uri(numbers))  # noqa: S704 - our own drawing


def _cells(values: NDArray[np.float64]) -> list[object]:
    return [None if np.isnan(value) else value for value in values.tolist()]


def _chart(
    title: str,
    curves: Sequence[Curve],
    *,
    name: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    mark: float | None = None,
    level: float | None = None,
) -> Chart:
    """Curves over one x, with their numbers."""
    svg = draw_curves(
        curves, name=name, x_label=x_label, y_label=y_label, x_range=x_range, y_range=y_range, mark=mark, level=level
    )
    columns = {
        x_label: np.asarray(curves[0].x).tolist(),
        **{curve.name: np.asarray(curve.y).tolist() for curve in curves},
    }
    values = {title: np.asarray(column).tolist() for title, column in columns.items()}
    file = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name.lower()) + ".csv"
    return Chart(title, Markup(svg), file, csv_uri(values))  # noqa: S704 - our own drawing

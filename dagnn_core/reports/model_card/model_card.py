"""Write the model card of a model and its report, as Markdown and as a self-contained page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dagnn_core.artifacts import Artifact
from dagnn_core.data.dataset import SPLITS
from dagnn_core.features.encoders.registry import Encoder
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.reports.comparison.champion import BesideChampion
from dagnn_core.reports.page.template import read_template
from dagnn_core.resources import recorded_resources
from dagnn_core.retrieval.directions import ARROWS

MARKDOWN, HTML = "card.md", "card.html"
RARE = 50  # training items: labels with fewer are named as rare
SMALL = 5000  # training items: data sets with fewer are called small

_KINDS = {
    "dagnn": "DAGNN (Qian et al., AAAI 2021), preset {preset}",
    "two_tower": "Two towers with InfoNCE",
    "dscmr": "DSCMR (Zhen et al., CVPR 2019)",
    "cca": "Linear CCA",
    "ridge": "Ridge regression to the labels",
    "pretrained": "Pretrained features as they are",
}
_METHODS = (("this model", ""), ("CCA", "cca_"), ("chance", "chance_"))  # name, prefix of its metrics
_METRICS = {"MAP": "map_{}", "MAP@50": "map_{}_at_50", "NDCG@10": "ndcg_{}_at_10", "R@10": "recall_{}_at_10"}


class ModelCard(NamedTuple):
    """The same card twice."""

    markdown: str
    """Its longest part, the table of labels, comes last."""
    html: str


class _Metric(NamedTuple):
    """A metric of one direction: of the model with its interval, if it has one, CCA, chance and the champion."""

    name: str
    direction: str
    values: Sequence[float | None]
    """None: the champion's report has no such metric."""
    low: float | None
    high: float | None


def render_model_card(
    name: str,
    model: TrainedModel,
    report: Artifact,
    metrics: Mapping[str, float],
    *,
    licence: str,
    beside: BesideChampion | None = None,
) -> ModelCard:
    """Say what a model is for, what it was made of, how good it is, and where it falls short.

    Args:
        name: of the registered model.
        model: the model.
        report: the report artifact of this model.
        metrics: its metrics on the test split.
        licence: of the data.
        beside: the champion of the time of registration, on the same test split; None where there is none.
    """
    data, recorded = report.content["data"], model.artifact.recorded
    champion = beside.metrics if beside else {}
    facts = {
        "name": name,
        "what": _KINDS[model.config.kind].format(preset=model.config.preset),
        "model": model,
        "dim": model.artifact.content["output_dim"],
        "columns": [
            ("text", _cell(model.text_encoder, "a text")),
            ("image", _cell(model.image_encoder, "an encoded image (JPEG, PNG ...) as base64 text")),
        ],
        "data": data,
        "labels": _label_rows(data),
        "splits": SPLITS,
        "licence": licence,
        "rare": [label for label in model.label_names if data["label_counts"]["train"][label] < RARE],
        "rare_below": RARE,
        "is_small": data["splits"]["train"] < SMALL,
        "is_better": metrics["map_mean_low"] > metrics["cca_map_mean"],
        "methods": [method for method, _ in _METHODS]
        + ([f"champion, {beside.champion}"] if beside and champion else []),
        "metrics": _rows(metrics, champion),
        "beside": beside,
        "num_test": report.content["num_test"],
        "params": recorded("params"),
        "git": recorded("git"),
        "packages": recorded("packages"),
        "resources": recorded_resources("model", model.artifact.provenance)
        | recorded_resources("report", {**report.provenance, "origins": {}}),
        "digests": recorded("ancestors") | {"model": model.artifact.content_digest, "report": report.content_digest},
    }
    templates = (Path(__file__).with_name(f"model_{file}.j2") for file in (MARKDOWN, HTML))
    return ModelCard(*(read_template(template).render(facts).rstrip() + "\n" for template in templates))


def shorten(markdown: str, limit: int) -> str:
    """Leave out whole sections from the end until the text is not longer than `limit`, and say where they are."""
    if len(markdown) <= limit:
        return markdown
    note = f"\nThe rest is in `{MARKDOWN}` and `{HTML}` beside the model's files.\n"
    sections = markdown.split("\n## ")
    while len(sections) > 1:
        sections.pop()
        short = "\n## ".join(sections).rstrip() + "\n" + note
        if len(short) <= limit:
            return short
    return markdown[: limit - len(note)] + note


def _cell(encoder: Encoder, raw: str) -> str:
    """What the input's column for an encoder takes."""
    if encoder.kind != "precomputed":
        return raw
    return f"the JSON text of a list of {encoder.dim} numbers, for this model was trained on precomputed vectors"


def _label_rows(data: Mapping[str, Any]) -> list[tuple[str, list[int]]]:
    """Labels with their counts by split, the most frequent first."""
    counts = data["label_counts"]
    rows = [(name, [int(counts[split][name]) for split in SPLITS]) for name in data["label_names"]]
    return sorted(rows, key=lambda row: (-sum(row[1]), row[0]))


def _rows(metrics: Mapping[str, float], champion: Mapping[str, float]) -> list[_Metric]:
    names = [
        (title, direction, pattern.format(key))
        for title, pattern in _METRICS.items()
        for key, direction in ARROWS.items()
    ]
    names.insert(2, ("MAP", "mean", "map_mean"))
    return [
        _Metric(
            title,
            direction,
            [*(metrics[prefix + name] for _, prefix in _METHODS), *([champion.get(name)] if champion else [])],
            metrics.get(f"{name}_low"),
            metrics.get(f"{name}_high"),
        )
        for title, direction, name in names
    ]

"""Write the data card of a data set: `card.html`, `card.md`, and the folder `card/` with the images of the latter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dagnn_core.config.section import DEFAULT_SEED
from dagnn_core.data.dataset import SPLITS, Dataset
from dagnn_core.disk import writing
from dagnn_core.label_graph.cooccurrence import conditional_probabilities, count_cooccurrences
from dagnn_core.reports.data_card.facts import QUANTILES, SampleItem, gather_facts
from dagnn_core.reports.data_card.matrix import MAX_LABELS, draw_matrix, order_labels
from dagnn_core.reports.page.template import read_template
from dagnn_core.reports.page.thumbnail import data_uri

TEMPLATES = [Path(__file__).with_name(name) for name in ("card.html.j2", "card.md.j2")]
FOLDER = "card"
MAX_TEXT = 400  # letters of a sample


class _LabelBar(NamedTuple):
    """How often a label occurs: value for each split."""

    name: str
    counts: Sequence[int]
    fractions: Sequence[float]
    """Of the split's items."""


class _Image(NamedTuple):
    """An image of the card."""

    file: str
    """Its path from the card."""
    uri: str
    """Itself as an address."""


class _Sample(NamedTuple):
    """A training item as the card shows it."""

    id: str
    text: str
    labels: Sequence[str]
    image: _Image | None


class _Matrix(NamedTuple):
    """The image of how labels go together."""

    image: _Image
    num_shown: int


def write_card(dataset: Dataset) -> None:
    """Describe a data set, an artifact that is being written, in its own folder.

    Equal content gives equal bytes, so neither date nor path of the source is in it: the manifest has them.
    """
    out = dataset.artifact.path
    facts = gather_facts(dataset, seed=DEFAULT_SEED)
    (out / FOLDER).mkdir()
    samples = [_sample(out, number, sample) for number, sample in enumerate(facts.samples, start=1)]
    matrix = _matrix(out, dataset)
    bars = _label_bars(dataset.artifact.content)
    for template in TEMPLATES:
        page = read_template(template).render(
            artifact=dataset.artifact,
            splits=SPLITS,
            facts=facts,
            samples=samples,
            bars=bars,
            longest_bar=max((fraction for bar in bars for fraction in bar.fractions), default=0.0) or 1.0,
            labels_per_item=float(dataset.labels.sum(axis=1).mean()),
            matrix=matrix,
            copies_rule=_copies_rule(dataset.artifact.content["copies"]),
            quantiles=list(QUANTILES),
        )
        with writing(out / template.stem):
            (out / template.stem).write_text(page.rstrip() + "\n", encoding="utf-8")


def _copies_rule(copies: Mapping[str, Any]) -> str:
    """What became of copies of images when the splits were drawn."""
    if not copies["drawn_items"]:
        return "The data names the splits, so that copies stay where they are."
    drawn = f"The splits of {copies['drawn_items']:,} items were drawn (dataset.copies: {copies['rule']})"
    if copies["rule"] == "keep":
        return f"{drawn}: each by itself, also where images are copies of each other."
    rule = "every group of copies is in one split" if copies["rule"] == "group" else "the first of every group was kept"
    found = f"{copies['items']:,} in {copies['groups']:,} groups, the largest of {copies['largest_group']:,}"
    dropped = f", {copies['dropped']:,} dropped" if copies["rule"] == "drop" else ""
    return f"{drawn}: {rule}, identical and near-identical images ({found if copies['groups'] else 'none'}{dropped})."


def _sample(out: Path, number: int, sample: SampleItem) -> _Sample:
    image = None
    if sample.image is not None:
        image = _Image(f"{FOLDER}/sample-{number:02d}.jpg", data_uri(sample.image, "jpeg"))
        with writing(out / image.file):
            (out / image.file).write_bytes(sample.image)
    text = sample.text if len(sample.text) <= MAX_TEXT else f"{sample.text[: MAX_TEXT - 1]}…"
    return _Sample(sample.id, text, sample.labels, image)


def _matrix(out: Path, dataset: Dataset) -> _Matrix | None:
    """The matrix of the most frequent labels; None where fewer than two occur in the training split."""
    counted = count_cooccurrences(dataset.labels[dataset.rows("train")])
    shown = np.argsort(-counted.label_counts, kind="stable")[:MAX_LABELS]
    shown = shown[counted.label_counts[shown] > 0]
    if len(shown) < 2:
        return None
    conditional = conditional_probabilities(counted.counts[np.ix_(shown, shown)], counted.label_counts[shown])
    order = order_labels(conditional)
    names = [dataset.label_names[label] for label in shown[order].tolist()]
    file = f"{FOLDER}/labels.png"
    draw_matrix(out / file, names, conditional[np.ix_(order, order)])
    return _Matrix(_Image(file, data_uri((out / file).read_bytes(), "png")), len(shown))


def _label_bars(content: Mapping[str, Any]) -> list[_LabelBar]:
    """All labels, the most frequent first."""
    bars = []
    for name in content["label_names"]:
        counts = [content["label_counts"][split][name] for split in SPLITS]
        sizes = [content["splits"][split] for split in SPLITS]
        fractions = [count / size if size else 0.0 for count, size in zip(counts, sizes, strict=True)]
        bars.append(_LabelBar(name, counts, fractions))
    return sorted(bars, key=lambda bar: (-sum(bar.counts), bar.name))

"""The program behind `dagnn bench quality`: variants x seeds on the same features, compared with the first of them.

Every model is trained and selected on train and val; then all are scored on val, or, for final results, on test. What
an earlier, interrupted call has finished is not trained again. Where the data set has unseen labels with vectors, every
network that generates classifiers for them has further rows on test: the same network, ranked by these as well.
"""

import logging
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from components.locations import WORK
from components.params_file import load_params
from components.services.tracking.mlflow import Tracking
from components.steps import train
from dagnn_core.artifacts import read_artifact, write_json
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import DEFAULT_SEED, parse_section
from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import InputError
from dagnn_core.features.features import Features
from dagnn_core.label_graph.label_graph import LabelGraph
from dagnn_core.model.files import KIND, TrainedNetwork
from dagnn_core.model.generated import can_generate, embed_with_generated
from dagnn_core.model.kinds import kind_of
from dagnn_core.records import read_metrics
from dagnn_core.reports.evaluation.measure import unseen_chance, unseen_metrics
from dagnn_core.retrieval.bootstrap import Difference, paired_bootstrap
from dagnn_core.retrieval.metrics import QueryScores, chance_scores, mean_scores, score_pairs
from dagnn_core.retrieval.slices import rare_label_items

log = logging.getLogger(__name__)

Metrics = Mapping[str, float]
Embed = Callable[[TrainedNetwork, NDArray[np.float32], NDArray[np.float32]], tuple[NDArray[np.float32], ...]]
"""Image and text features [N, d_I] and [N, d_T] to what is ranked by cosine, [N, K] each."""

COLUMNS = {
    "map_mean": "mean MAP",
    "rare_map_mean": "rare mean MAP",
    "map_i2t": "MAP i2t",
    "map_t2i": "MAP t2i",
    "map_i2t_at_50": "MAP@50 i2t",
    "map_t2i_at_50": "MAP@50 t2i",
    "ndcg_i2t": "NDCG i2t",
    "ndcg_t2i": "NDCG t2i",
    "ndcg_jaccard_i2t": "NDCG-J i2t",
    "ndcg_jaccard_t2i": "NDCG-J t2i",
    "recall_i2t_at_10": "R@10 i2t",
    "recall_t2i_at_10": "R@10 t2i",
}


RARE_LABELS = 0.25
"""Fraction of the labels, the least frequent ones, whose queries `rare_map_mean` is about: the default of the gate."""

UNSEEN_COLUMNS = {
    "unseen_map_mean": "unseen mean MAP",
    "unseen_map_i2t": "unseen MAP i2t",
    "unseen_map_t2i": "unseen MAP t2i",
    "unseen_ndcg_i2t": "unseen NDCG i2t",
    "unseen_ndcg_t2i": "unseen NDCG t2i",
}
"""Shown too where the data set has unseen labels, which the test split alone carries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    runs: Sequence[Metrics]
    """Retrieval metrics, one mapping for each seed."""
    average_precision: NDArray[np.float64]
    """Of every item, mean over directions and seeds, [N]; NaN where nothing is relevant."""
    unseen_average_precision: NDArray[np.float64] | None
    """The same with relevance by the unseen labels; None where there are none."""
    val_map_mean: float | None
    """Validation MAP of the kept epochs, mean over seeds; None of chance."""


def run(
    *,
    features: Path,
    label_graph: Path,
    variants: Sequence[Path],
    seeds: Sequence[int],
    split: Literal["val", "test"],
    tracking: Tracking,
    out: Path,
) -> str:
    """Train every variant with every seed, then compare all of them on one split.

    Args:
        features: features artifact.
        label_graph: label graph artifact of the same data set.
        variants: configuration files; their sections `model` and `train` count, their names name the rows, and the
            first is what the others are compared with.
        seeds: one training each; they replace `train.seed`. What is fitted in closed form knows no seed: one fit.
        split: `val` while anything is still to be chosen, `test` once, for the final results.
        tracking: gets the metrics of every training.
        out: folder for the models, `quality.json` and `quality.md`; the models that it holds already are kept.

    Returns:
        The table, as Markdown.

    Raises:
        ArtifactError: an input is missing or damaged, or the two do not belong together.
        InputError: a configuration file with a mistake, or two files of one name.
    """
    configs = {path.stem: load_params(path) for path in variants}
    if len(configs) < len(variants):
        raise InputError(
            f"{len(variants)} variants have {len(configs)} names, expected a name each", "rename the files"
        )
    inputs = {
        kind: read_artifact(path, kind).content_digest
        for kind, path in (("features", features), ("label_graph", label_graph))
    }
    models: dict[str, list[Path]] = {}
    for name, sections in configs.items():
        one_fit = bool(kind_of(sections["model"]).fit)
        models[name] = []
        for seed in seeds[:1] if one_fit else seeds:
            model_out = out / name / f"seed-{seed}"
            params = replace(sections["train"], seed=seed)
            models[name].append(model_out)
            if _is_done(model_out, inputs, (sections["model"], params)):
                log.info("%s: already there", model_out)
                continue
            log.info("%s: training", model_out)
            train.run(
                features=features,
                label_graph=label_graph,
                model_params=sections["model"],
                params=params,
                tracking=tracking,
                work=WORK,
                model_out=model_out,
            )
    data = Features.read(features)
    vectors = LabelGraph.read(label_graph).unseen_embeddings
    rows = [_score(data, split, name, paths, _embed) for name, paths in models.items()]
    if split == "test" and len(vectors):
        rows += [row for name, paths in models.items() for row in _generated(data, split, name, paths, vectors)]
    differences = {row.name: _difference(row.average_precision, rows[0].average_precision) for row in rows[1:]}
    unseen_differences = {
        row.name: _difference(row.unseen_average_precision, rows[0].unseen_average_precision)
        for row in rows[1:]
        if row.unseen_average_precision is not None and rows[0].unseen_average_precision is not None
    }
    rows.append(_chance(data, split))
    record = {
        "split": split,
        "seeds": list(seeds),
        "reference": rows[0].name,
        "results": {row.name: {"val_map_mean": row.val_map_mean, "runs": list(row.runs)} for row in rows},
        "map_mean_minus_reference": {name: difference._asdict() for name, difference in differences.items()},
        "unseen_map_mean_minus_reference": {
            name: difference._asdict() for name, difference in unseen_differences.items()
        },
    }
    write_json(out / "quality.json", record)
    table = _table(rows, differences, unseen_differences, split)
    (out / "quality.md").write_text(table, encoding="utf-8")
    return table


def _is_done(model_out: Path, inputs: Mapping[str, str], wanted: tuple[ModelConfig, TrainConfig]) -> bool:
    """Whether a model of exactly these inputs (kind -> content digest) and parameters is there."""
    if not model_out.exists():
        return False
    provenance = read_artifact(model_out, KIND, verify=True).provenance
    try:
        # a key that this program has since got had its present default
        used = [parse_section(type(section), provenance["params"][section.NAME], "") for section in wanted]
    except InputError:  # a key that it no longer has
        return False
    return used == list(wanted) and provenance["ancestors"].items() >= inputs.items()


def _embed(
    model: TrainedNetwork, image: NDArray[np.float32], text: NDArray[np.float32]
) -> tuple[NDArray[np.float32], ...]:
    return model.embed_image_features(image), model.embed_text_features(text)


def _generated(
    data: Features, split: str, name: str, paths: Sequence[Path], vectors: NDArray[np.float32]
) -> Iterator[Row]:
    """Rows of a variant with generated classifiers of the unseen labels that have vectors, [U, e]."""
    first = TrainedNetwork.read(paths[0])
    if not can_generate(first):
        return
    yield _score(data, split, f"{name} + generated", paths, partial(embed_with_generated, vectors=vectors))
    if first.config.ranking == "labels":
        alone = partial(embed_with_generated, vectors=vectors, alone=True)
        yield _score(data, split, f"{name}: generated alone", paths, alone)


def _score(data: Features, split: str, name: str, paths: Sequence[Path], embed: Embed) -> Row:
    rows = data.pairs(split)
    labels, unseen = data.labels[rows], _unseen_labels(data, split)
    rare = _rare_items(data, labels)
    runs, precisions, unseen_precisions, validations = [], [], [], []
    for path in paths:
        model = TrainedNetwork.read(path)
        image, text = embed(model, data.image[rows], data.text[rows])
        scores = score_pairs(image, text, labels)
        precisions.append(_both_directions(*scores))
        metrics = mean_scores(*scores) | {"rare_map_mean": float(np.nanmean(precisions[-1][rare]))}
        if unseen.shape[1]:
            unseen_scores = score_pairs(image, text, unseen)
            unseen_precisions.append(_both_directions(*unseen_scores))
            metrics |= unseen_metrics(*unseen_scores)
        runs.append(metrics)
        file, key = model.artifact.file("val_metrics.json"), "val_map_mean"
        validations.append(read_metrics(file, model.artifact.remedy, [key])[key])
    return Row(
        name=name,
        runs=runs,
        average_precision=np.mean(precisions, axis=0),
        unseen_average_precision=np.mean(unseen_precisions, axis=0) if unseen_precisions else None,
        val_map_mean=statistics.mean(validations),
    )


def _chance(data: Features, split: str) -> Row:
    labels = data.labels[data.pairs(split)]
    scores = chance_scores(labels, labels)
    rare = float(np.nanmean(scores.average_precision[_rare_items(data, labels)]))
    metrics = mean_scores(scores, scores) | {"rare_map_mean": rare} | unseen_chance(_unseen_labels(data, split))
    return Row(
        name="chance",
        runs=[metrics],
        average_precision=scores.average_precision,
        unseen_average_precision=None,
        val_map_mean=None,
    )


def _rare_items(data: Features, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of the items that are scored carry a rare label, [N]."""
    return rare_label_items(labels, data.labels[data.rows("train")].sum(axis=0, dtype=np.int64), RARE_LABELS)


def _both_directions(image_to_text: QueryScores, text_to_image: QueryScores) -> NDArray[np.float64]:
    return (image_to_text.average_precision + text_to_image.average_precision) / 2


def _difference(challenger: NDArray[np.float64], reference: NDArray[np.float64]) -> Difference:
    return paired_bootstrap(challenger, reference, seed=DEFAULT_SEED)


def _unseen_labels(data: Features, split: str) -> NDArray[np.uint8]:
    """Unseen labels of the items that are scored, [N, U]; no column on val, whose items carry none."""
    unseen = data.unseen_labels[data.pairs(split)]
    return unseen if split == "test" else unseen[:, :0]


def _table(
    rows: Sequence[Row],
    differences: Mapping[str, Difference],
    unseen_differences: Mapping[str, Difference],
    split: str,
) -> str:
    selection = ["val mean MAP"] if split == "test" else []  # scored on val, it is the first column already
    against = f"against {rows[0].name}"
    titles = ["", f"{split} mean MAP", against, *selection, *list(COLUMNS.values())[1:]]
    has_unseen = "unseen_map_mean" in rows[0].runs[0]
    if has_unseen:
        first, *others = UNSEEN_COLUMNS.values()
        titles += [first, f"unseen {against}", *others]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for row in rows:
        first, *others = _cells(row, COLUMNS)
        validation = ["" if row.val_map_mean is None else f"{row.val_map_mean:.4f}" for _ in selection]
        cells = [row.name, first, _interval(differences.get(row.name)), *validation, *others]
        if has_unseen:
            first, *others = _cells(row, UNSEEN_COLUMNS)
            cells += [first, _interval(unseen_differences.get(row.name)), *others]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cells(row: Row, columns: Mapping[str, str]) -> list[str]:
    return [_mean_and_spread([metrics[key] for metrics in row.runs]) for key in columns]


def _interval(difference: Difference | None) -> str:
    return "" if difference is None else f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def _mean_and_spread(values: Sequence[float]) -> str:
    """Mean and, of several seeds, the sample standard deviation."""
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.4f}"

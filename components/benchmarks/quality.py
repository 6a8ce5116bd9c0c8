"""The program behind `dagnn bench quality`: variants x seeds on the same features, compared with the first of them.

Every model is trained and selected on train and val; then all are scored on val, or, for final results, on test. What
an earlier, interrupted call has finished is not trained again.
"""

import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from dagnn_core.model.files import KIND, TrainedNetwork
from dagnn_core.model.kinds import kind_of
from dagnn_core.records import read_metrics
from dagnn_core.reports.evaluation.measure import score_unseen, unseen_chance
from dagnn_core.retrieval.bootstrap import Difference, paired_bootstrap
from dagnn_core.retrieval.metrics import chance_scores, mean_scores, score_pairs

log = logging.getLogger(__name__)

Metrics = Mapping[str, float]
COLUMNS = {
    "map_mean": "mean MAP",
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
    rows = [_score(data, split, name, paths) for name, paths in models.items()]
    differences = {
        row.name: paired_bootstrap(row.average_precision, rows[0].average_precision, seed=DEFAULT_SEED)
        for row in rows[1:]
    }
    rows.append(_chance(data, split))
    record = {
        "split": split,
        "seeds": list(seeds),
        "reference": rows[0].name,
        "results": {row.name: {"val_map_mean": row.val_map_mean, "runs": list(row.runs)} for row in rows},
        "map_mean_minus_reference": {name: difference._asdict() for name, difference in differences.items()},
    }
    write_json(out / "quality.json", record)
    table = _table(rows, differences, split)
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


def _score(data: Features, split: str, name: str, paths: Sequence[Path]) -> Row:
    rows = data.pairs(split)
    labels, unseen = data.labels[rows], _unseen_labels(data, split)
    runs, precisions, validations = [], [], []
    for path in paths:
        model = TrainedNetwork.read(path)
        image, text = model.embed_image_features(data.image[rows]), model.embed_text_features(data.text[rows])
        i2t, t2i = score_pairs(image, text, labels)
        runs.append(mean_scores(i2t, t2i) | score_unseen(image, text, unseen))
        precisions.append((i2t.average_precision + t2i.average_precision) / 2)
        file, key = model.artifact.file("val_metrics.json"), "val_map_mean"
        validations.append(read_metrics(file, model.artifact.remedy, [key])[key])
    return Row(
        name=name,
        runs=runs,
        average_precision=np.mean(precisions, axis=0),
        val_map_mean=statistics.mean(validations),
    )


def _chance(data: Features, split: str) -> Row:
    labels = data.labels[data.pairs(split)]
    scores = chance_scores(labels, labels)
    metrics = mean_scores(scores, scores) | unseen_chance(_unseen_labels(data, split))
    return Row(name="chance", runs=[metrics], average_precision=scores.average_precision, val_map_mean=None)


def _unseen_labels(data: Features, split: str) -> NDArray[np.uint8]:
    """Unseen labels of the items that are scored, [N, U]; no column on val, whose items carry none."""
    unseen = data.unseen_labels[data.pairs(split)]
    return unseen if split == "test" else unseen[:, :0]


def _table(rows: Sequence[Row], differences: Mapping[str, Difference], split: str) -> str:
    selection = ["val mean MAP"] if split == "test" else []  # scored on val, it is the first column already
    columns = COLUMNS | (UNSEEN_COLUMNS if "unseen_map_mean" in rows[0].runs[0] else {})
    titles = ["", f"{split} mean MAP", f"against {rows[0].name}", *selection, *list(columns.values())[1:]]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for row in rows:
        figures = {key: _mean_and_spread([metrics[key] for metrics in row.runs]) for key in columns}
        difference = differences.get(row.name)
        cells = [
            row.name,
            figures.pop("map_mean"),
            "" if difference is None else f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]",
            *("" if row.val_map_mean is None else f"{row.val_map_mean:.4f}" for _ in selection),
            *figures.values(),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _mean_and_spread(values: Sequence[float]) -> str:
    """Mean and, of several seeds, the sample standard deviation."""
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.4f}"

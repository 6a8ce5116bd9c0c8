"""The program behind `dagnn bench quality`: variants x seeds on the same features, beside CCA and chance.

Every model is trained and selected on train and val first; the test split is opened once, when all of them are there.
A model that an earlier, interrupted call has finished is not trained again.
"""

import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from components import train
from components.params import load_params
from components.services.tracking import Tracking
from dagnn_core.artifacts import read_artifact, write_json
from dagnn_core.config import ModelConfig, TrainConfig
from dagnn_core.features.features import Features
from dagnn_core.model import KIND, TrainedModel
from dagnn_core.report.evaluation import score_baselines
from dagnn_core.retrieval.ranking import evaluate_retrieval

log = logging.getLogger(__name__)

Metrics = dict[str, float]
METRICS = (("map", ""), ("map", "_at_50"), ("ndcg", "_at_10"), ("recall", "_at_10"))
COLUMNS = (
    "map_mean",
    *(f"{metric}_{direction}{cutoff}" for metric, cutoff in METRICS for direction in ("i2t", "t2i")),
)


def run(
    *, features: Path, label_graph: Path, variants: Sequence[Path], seeds: Sequence[int], tracking: Tracking, out: Path
) -> str:
    """Train every variant with every seed, then compare all of them on the test split.

    Args:
        features: features artifact.
        label_graph: label graph artifact of the same data set.
        variants: configuration files; their sections `model` and `train` count, their names name the rows.
        seeds: one training each; they replace `train.seed`.
        tracking: gets the figures of every training.
        out: folder for the models, `quality.json` and `quality.md`; what it holds already is kept.

    Returns:
        The table, as Markdown.

    Raises:
        ArtifactError: an input is missing or damaged, or the two do not belong together.
        InputError: a configuration file with a mistake.
    """
    configs = {path.stem: load_params(path) for path in variants}
    inputs = {
        kind: read_artifact(path, kind).content_digest
        for kind, path in (("features", features), ("label_graph", label_graph))
    }
    models: dict[str, list[Path]] = {name: [] for name in configs}
    for name, sections in configs.items():
        for seed in seeds:
            model_out = out / name / f"seed-{seed}"
            params = replace(sections["train"], seed=seed)
            models[name].append(model_out)
            if _is_done(model_out, inputs, sections["model"], params):
                log.info("%s: already there", model_out)
                continue
            log.info("%s: training", model_out)
            train.run(
                features=features,
                label_graph=label_graph,
                model_params=sections["model"],
                params=params,
                tracking=tracking,
                work=train.WORK,
                model_out=model_out,
            )
    data = Features.read(features)
    baselines = score_baselines(data)
    results = {
        method.name: [{name: method.metrics[name] for name in COLUMNS}] for method in (baselines.chance, baselines.cca)
    }
    results |= {name: [_test_metrics(data, path) for path in paths] for name, paths in models.items()}
    write_json(out / "quality.json", {"seeds": list(seeds), "results": results})
    table = _table(results)
    (out / "quality.md").write_text(table, encoding="utf-8")
    return table


def _is_done(model_out: Path, inputs: Mapping[str, str], model_params: ModelConfig, params: TrainConfig) -> bool:
    """Whether a model of exactly these inputs (kind -> content digest) and parameters is there."""
    if not model_out.exists():
        return False
    provenance = read_artifact(model_out, KIND, verify=True).provenance
    wanted = {"ModelConfig": asdict(model_params), "TrainConfig": asdict(params)}
    return bool(provenance["params"] == wanted and provenance["ancestors"].items() >= inputs.items())


def _test_metrics(data: Features, path: Path) -> Metrics:
    model = TrainedModel.read(path)
    rows = data.rows("test")
    image, text = model.embed_image_features(data.image[rows]), model.embed_text_features(data.text[rows])
    metrics = evaluate_retrieval(image, text, data.labels[rows])
    return {name: metrics[name] for name in COLUMNS}


def _table(results: Mapping[str, Sequence[Metrics]]) -> str:
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, runs in results.items():
        cells = [_mean_and_spread([metrics[column] for metrics in runs]) for column in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _mean_and_spread(values: Sequence[float]) -> str:
    """Mean and, of several seeds, the sample standard deviation."""
    mean = f"{statistics.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f}"

"""The `report` artifact, which has these files.

`metrics.json` (flat), `queries.parquet` (one row for each query, of which the metrics are means), `analysis.json`
(protocols, labels, slices, calibration, common space), `history.csv`, `precision_recall.csv`, and `report.html`.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from dagnn_core.artifacts import ArtifactDraft, write_json
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.disk import writing
from dagnn_core.features.features import Features
from dagnn_core.model.files import TrainedNetwork
from dagnn_core.records import read_history
from dagnn_core.reports.evaluation.analysis import analyse
from dagnn_core.reports.evaluation.html import render_report
from dagnn_core.reports.evaluation.measure import Evaluation
from dagnn_core.reports.evaluation.queries import FILE as QUERIES
from dagnn_core.retrieval.directions import DIRECTIONS
from dagnn_core.retrieval.metrics import RECALL_STEPS

KIND = "report"
PAGE = "report.html"
ANALYSIS = "analysis.json"


def write_report(
    draft: ArtifactDraft,
    evaluation: Evaluation,
    *,
    dataset: Dataset,
    features: Features,
    model: TrainedNetwork,
    config: EvaluateConfig,
    resources: Mapping[str, str],
) -> None:
    """Write the files of a report into a draft, and describe them in its content.

    Args:
        draft: the artifact being written.
        evaluation: what the report is about.
        dataset: texts and images of the examples.
        features: what the model was trained on.
        model: the model.
        config: how many examples, and their seed.
        resources: what the step of each artifact has used, in words; of the report itself, until now.
    """
    history = read_history(model.artifact.file("history.jsonl"), model.artifact.remedy)
    metrics = evaluation.metrics
    write_json(draft.path / "metrics.json", metrics)
    analysis = analyse(evaluation, dataset)
    analysis.queries.write(draft.path / QUERIES)
    write_json(draft.path / ANALYSIS, analysis.summary(evaluation))
    _write_csv(draft.path / "history.csv", history)
    _write_csv(draft.path / "precision_recall.csv", _precision_recall(evaluation))
    page = render_report(
        evaluation,
        analysis,
        dataset=dataset,
        history=history,
        artifacts=[dataset.artifact, features.artifact, model.artifact],
        config=config,
        resources=resources,
    )
    with writing(draft.path / PAGE):
        (draft.path / PAGE).write_text(page, encoding="utf-8")
    data = dataset.artifact
    draft.content |= {
        "metrics": metrics,
        "num_test": len(evaluation.rows),
        "data": data.content | {"content_digest": data.content_digest, "raw": data.provenance.get("raw")},
    }


def _precision_recall(evaluation: Evaluation) -> list[dict[str, float]]:
    return [
        {"recall": step / RECALL_STEPS}
        | {
            f"{method.name.lower()}_{direction}": float(method.precision[direction][step])
            for method in evaluation.methods
            for direction in DIRECTIONS
        }
        for step in range(RECALL_STEPS + 1)
    ]


def _write_csv(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    with writing(path), path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

"""Step `evaluate`: a model on the test split, beside CCA and chance, becomes a report."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from components.command import ParamsOption, run_step
from components.params import load_section
from components.services.lineage.provenance import provenance
from components.services.lineage.resources import record_use, used_so_far
from components.services.tracking.mlflow import Tracking
from dagnn_core.artifacts import Artifact, rerun, write_artifact
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.errors import ArtifactError
from dagnn_core.features.features import Features
from dagnn_core.model.files import TrainedNetwork
from dagnn_core.reports.evaluation.measure import NUM_RANKS, evaluate
from dagnn_core.reports.evaluation.report import KIND, PAGE, write_report
from dagnn_core.reports.evaluation.table import results_table
from dagnn_core.resources import recorded_resources

log = logging.getLogger(__name__)


def run(
    *,
    dataset: Path,
    features: Path,
    model: Path,
    params: EvaluateConfig,
    tracking: Tracking,
    report_out: Path,
    uri: str = "",
) -> None:
    """Evaluate a model on the test split, which no other step touches, and write the report.

    Args:
        dataset: dataset artifact, for texts and images of the examples.
        features: features artifact that the model was trained on.
        model: model artifact.
        params: what the report shows beside the metrics.
        tracking: gets the metrics and the report, in the run that trained the model.
        report_out: where the report goes.
        uri: where a pipeline run stores it, for the record.

    Raises:
        ArtifactError: an input is missing or damaged, or they do not belong together.
        InputError: the test split is empty, or has no labels.
        BackendError: the tracking server cannot be reached.
    """
    data = Dataset.read(dataset, verify=True)
    matrices = Features.read(features, verify=True)
    trained = TrainedNetwork.read(model, verify=True)
    _check_made_from(matrices.artifact, data.artifact, remedy=rerun("extract_features"))
    _check_made_from(trained.artifact, matrices.artifact, remedy=rerun("train"))
    parents = [data.artifact, matrices.artifact, trained.artifact]
    record = provenance("evaluate", params, parents=parents, uris={KIND: uri})
    with tracking.resumed_run(trained.artifact) as tracked:
        evaluation = evaluate(trained, matrices, num_ranks=max(NUM_RANKS, params.num_retrieved))
        with write_artifact(report_out, kind=KIND, provenance=record) as draft:
            used_so_far(record)
            resources = recorded_resources(KIND, record)
            write_report(
                draft, evaluation, dataset=data, features=matrices, model=trained, config=params, resources=resources
            )
            used = record_use(record)
        tracked.log_metrics(evaluation.metrics | {f"evaluate_{name}": value for name, value in used.items()})
        tracked.log_directory(report_out, KIND)
    log.info("test split, %d pairs", len(evaluation.rows))
    for line in results_table(evaluation.metrics).splitlines():
        log.info("%s", line)
    log.info("report: %s", report_out / PAGE)


def _check_made_from(artifact: Artifact, parent: Artifact, *, remedy: str) -> None:
    found = artifact.provenance.get("ancestors", {}).get(parent.kind)
    if found != parent.content_digest:
        raise ArtifactError(
            f"{artifact.path} was made from another {parent.kind} artifact than {parent.path} "
            f"(digest {str(found)[:12]}, expected {parent.content_digest[:12]})",
            remedy,
        )


if __name__ == "__main__":

    def main(
        dataset: Annotated[Path, typer.Option(help="dataset artifact")],
        features: Annotated[Path, typer.Option(help="features artifact")],
        model: Annotated[Path, typer.Option(help="model artifact")],
        report_out: Annotated[Path, typer.Option(help="where the report artifact goes")],
        params: ParamsOption = "params.yaml",
    ) -> None:
        """Evaluate a model on the test split."""
        run(
            dataset=dataset,
            features=features,
            model=model,
            params=load_section(params, EvaluateConfig),
            tracking=Tracking.from_environment(),
            report_out=report_out,
        )

    run_step(main)

"""`dagnn results`: the metrics of a report."""

import json
from pathlib import Path
from typing import Annotated

import typer

from components.locations import REPORT


def results(
    report: Annotated[Path, typer.Option(help="report artifact")] = REPORT,
    as_json: Annotated[bool, typer.Option("--json", help="print the metrics as one JSON object")] = False,
) -> None:
    """Print the results on the test split, beside CCA and chance."""
    from dagnn_core.artifacts import read_artifact
    from dagnn_core.records import read_metrics
    from dagnn_core.reports.evaluation.table import TABLE_METRICS, results_table

    artifact = read_artifact(report, "report", verify=True)
    metrics = read_metrics(artifact.file("metrics.json"), artifact.remedy, TABLE_METRICS)
    typer.echo(json.dumps(metrics, indent=2) if as_json else results_table(metrics))

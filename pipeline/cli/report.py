"""`dagnn results`: the figures of a report."""

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
    from dagnn_core.reports.evaluation.table import results_table

    metrics = read_artifact(report, "report").file("metrics.json").read_text(encoding="utf-8")
    typer.echo(metrics.strip() if as_json else results_table(json.loads(metrics)))

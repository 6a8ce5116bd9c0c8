"""`dagnn results`: the metrics of a report."""

import json
from pathlib import Path
from typing import Annotated

import typer

from components.locations import REPORT
from dagnn_core.text import one_line


def results(
    report: Annotated[Path, typer.Option(help="report artifact")] = REPORT,
    as_json: Annotated[bool, typer.Option("--json", help="print the metrics as one JSON object")] = False,
) -> None:
    """Print the results on the test split, beside CCA and chance."""
    from dagnn_core.artifacts import read_artifact
    from dagnn_core.errors import ArtifactError
    from dagnn_core.reports.evaluation.table import results_table

    path = read_artifact(report, "report").file("metrics.json")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        table = results_table(metrics)
        text = json.dumps(metrics, indent=2, allow_nan=False) if as_json else table
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is damaged ({one_line(repr(error))})", "run `dvc repro --force evaluate`"
        ) from error
    typer.echo(text)

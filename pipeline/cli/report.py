"""`dagnn results`, `dagnn report` and `dagnn compare`: what reports say."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.locations import DATASET, FEATURES, MODEL, REPORT
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.text import cell, clip

if TYPE_CHECKING:
    from dagnn_core.data.dataset import Dataset
    from dagnn_core.reports.comparison.compare import ReportComparison
    from dagnn_core.reports.evaluation.queries import Queries, QueryPlace

app = typer.Typer(
    help="Look at the queries of a report, and export rankings.", no_args_is_help=True, rich_markup_mode=None
)

ReportOption = Annotated[Path, typer.Option(help="Report artifact.")]
MAX_TEXT = 60


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


@app.command("queries")
def queries(
    *,
    report: ReportOption = REPORT,
    worst: Annotated[int, typer.Option(min=0, help="So many, the lowest average precision first; 0: all.")] = 20,
    label: Annotated[str | None, typer.Option(help="Only queries that carry this label.")] = None,
    direction: Annotated[
        str | None, typer.Option(metavar="i2t|t2i", help="Only images as queries, or only texts.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List the queries of a report, the hardest first; those without a relevant item are left out."""
    from dagnn_core.artifacts import read_artifact
    from dagnn_core.reports.evaluation.queries import Queries
    from dagnn_core.retrieval.directions import DIRECTIONS

    if direction is not None and direction not in DIRECTIONS:
        raise InputError(f"--direction {direction}, expected {' or '.join(DIRECTIONS)}", "correct it")
    table = Queries.read(read_artifact(report, "report", verify=True))
    places = table.hardest(DIRECTIONS if direction is None else [direction], label)
    for line in _query_lines(table, places[: worst or None], as_json=as_json):
        print(line)


def _query_lines(table: "Queries", places: "Sequence[QueryPlace]", *, as_json: bool) -> Iterator[str]:
    from dagnn_core.data.dataset import COLUMN_PREFIX

    if not as_json:
        yield "direction      AP   AP@50    NDCG  partner  relevant  id, text, labels"
    for direction, item in places:
        scores = {name: values[direction][item] for name, values in table.scores.items()}
        partner, relevant = int(table.partner_rank[direction][item]), int(table.num_relevant[direction][item])
        if as_json:
            yield json.dumps(
                {
                    "id": table.ids[item],
                    "direction": direction,
                    **{name: float(score) for name, score in scores.items()},
                    "partner_rank": partner,
                    "num_relevant": relevant,
                    "labels": table.labels[item],
                    "text": table.texts[item],
                    "retrieved": list(table.retrieved[direction][item]),
                    **{COLUMN_PREFIX + name: cells[item] for name, cells in table.columns.items()},
                },
                ensure_ascii=False,
            )
            continue
        shown = (scores["average_precision"], scores["average_precision_at_50"], scores["ndcg"])
        numbers = "".join(f"  {score:6.4f}" for score in shown)
        named, labels = (
            f"{cell(table.ids[item])}: {clip(cell(table.texts[item]), MAX_TEXT)}",
            ", ".join(table.labels[item]),
        )
        yield f"{direction:<9}{numbers}  {partner:>7}  {relevant:>8}  {named} [{cell(labels)}]"


@app.command("trec")
def trec(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for i2t.run, t2i.run and qrels; new or empty.")],
    *,
    model: Annotated[Path, typer.Option(help="Model artifact.")] = MODEL,
    features: Annotated[Path, typer.Option(help="Features artifact that it was trained on.")] = FEATURES,
    depth: Annotated[int, typer.Option(min=0, help="Results of each query; 0: the whole gallery.")] = 1000,
) -> None:
    """Export the rankings of the test split for trec_eval and its relatives."""
    from dagnn_core.reports.trec import export_rankings

    written = export_rankings(out, model=model, features=features, depth=depth)
    for path in written:
        print(path)


def compare(
    reports: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C]...",
            help="Folder of a report, MLflow run, or version (NAME@ALIAS, NAME/3); A: the reference.",
        ),
    ],
    *,
    html: Annotated[Path | None, typer.Option(help="Write the comparison as a page, too.")] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(help="Data set, for the images of the page; default: artifacts/dataset if it is theirs."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare models on the same test split: MAP overall, by slice and by label, with intervals and p-values.

    Models in service, by the logs of their queries: `dagnn watch LOG --compare OTHER`.
    """
    from components.services.lineage.reports import open_report
    from components.services.tracking.mlflow import Tracking
    from dagnn_core.reports.comparison.compare import ComparedReport, compare_reports
    from dagnn_core.reports.comparison.table import comparison_lines

    if files := [reference for reference in reports if Path(reference).is_file()]:
        raise InputError(
            f"{files[0]} is a file, expected the folder of a report, an MLflow run, or a version",
            "`dagnn watch LOG --compare OTHER` compares logs of queries",
        )
    tracking = Tracking.from_environment()
    with tempfile.TemporaryDirectory() as folder:
        comparison = compare_reports(
            [
                ComparedReport.read(reference, open_report(reference, tracking, Path(folder) / str(number)))
                for number, reference in enumerate(reports)
            ]
        )
    if html is not None:
        _write_page(html, comparison, _data_of(comparison, dataset))
    if as_json:
        print(json.dumps(comparison.to_json(), ensure_ascii=False))
        return
    for line in comparison_lines(comparison):
        print(line)
    if html is not None:
        print(f"page: {html}")


def _write_page(path: Path, comparison: "ReportComparison", dataset: "Dataset | None") -> None:
    from dagnn_core.disk import writing
    from dagnn_core.reports.comparison.html import render_comparison

    page = render_comparison(comparison, dataset)
    with writing(path):
        path.write_text(page, encoding="utf-8")


def _data_of(comparison: "ReportComparison", named: Path | None) -> "Dataset | None":
    """The data set of the reports; None where it is not there and none was named."""
    from dagnn_core.data.dataset import Dataset

    digests = {report.data_digest for report in comparison.reports}
    try:
        found = Dataset.read(named or DATASET, verify=True)
    except ArtifactError:
        if named is not None:
            raise
        return None
    if found.artifact.content_digest in digests:
        return found
    if named is None:
        return None
    raise InputError(
        f"{named} is not the data set of these reports (digest {found.artifact.content_digest[:12]}, expected "
        f"{', '.join(sorted(digest[:12] for digest in digests))})",
        "name theirs",
    )

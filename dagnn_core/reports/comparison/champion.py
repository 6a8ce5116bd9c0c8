"""A model beside the champion of its time, by both reports: what the model card says of it, and a page."""

from collections.abc import Mapping
from dataclasses import dataclass

from dagnn_core.artifacts import Artifact
from dagnn_core.errors import InputError
from dagnn_core.records import read_metrics
from dagnn_core.reports.comparison.compare import ComparedReport, compare_reports
from dagnn_core.reports.comparison.html import render_comparison
from dagnn_core.retrieval.bootstrap import Difference
from dagnn_core.retrieval.directions import MAP_METRICS


@dataclass(frozen=True, kw_only=True, slots=True)
class BesideChampion:
    """The champion on the test split of a model."""

    champion: str
    """NAME/VERSION."""
    metrics: Mapping[str, float]
    """The champion's, from its report."""
    differences: Mapping[str, Difference]
    """Of MAP, model minus champion, paired by query, with 95 % intervals: by direction, and of the mean of both."""
    page: str
    """The whole comparison, as HTML."""
    fault: str = ""
    """Why the two cannot be compared; all the rest is empty then."""

    @classmethod
    def of(cls, report: Artifact, champion: str, champion_report: Artifact) -> "BesideChampion":
        """Compare a report with the champion's.

        Args:
            report: of the model.
            champion: NAME/VERSION.
            champion_report: of the champion.

        Raises:
            ArtifactError: a report has no table of queries, since an older program wrote it, or is damaged.
            InputError: the reports are about other test items, or other labels, or too few queries to compare.
        """
        comparison = compare_reports(
            [ComparedReport.read(f"champion, {champion}", champion_report), ComparedReport.read("this model", report)]
        )
        differences = {row.name: row.changes[0].difference for row in comparison.family("overall")}
        known = {name: difference for name, difference in differences.items() if difference is not None}
        if len(known) < len(differences):
            raise InputError("fewer than two queries have a relevant item")
        return cls(
            champion=champion,
            metrics=read_metrics(champion_report.file("metrics.json"), champion_report.remedy, MAP_METRICS),
            differences=known,
            page=render_comparison(comparison, None),
        )

    @classmethod
    def impossible(cls, champion: str, fault: str) -> "BesideChampion":
        """Say why there is no comparison."""
        return cls(champion=champion, metrics={}, differences={}, page="", fault=fault)

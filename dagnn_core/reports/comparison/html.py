"""A comparison of reports as one self-contained page."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dagnn_core.data.dataset import Dataset
from dagnn_core.reports.comparison.compare import FAMILIES, ChangedQuery, ComparedReport, ReportComparison
from dagnn_core.reports.page.numbers import csv_uri
from dagnn_core.reports.page.template import read_template
from dagnn_core.reports.page.thumbnail import data_uri, thumbnail
from dagnn_core.retrieval.directions import ARROWS

TEMPLATE = Path(__file__).with_name("compare.html.j2")
TITLES = {"overall": "Overall", "slice": "By slice", "label": "By label"}
NUM_HITS = 5
PIXELS = 112


class _Result(NamedTuple):
    text: str
    image: str
    """Data URI; empty where none is shown."""
    is_relevant: bool
    is_own: bool


class _Side(NamedTuple):
    """What one model finds."""

    name: str
    average_precision: float
    partner_rank: int
    results: Sequence[_Result]


class _Changed(NamedTuple):
    direction: str
    text: str
    image: str
    labels: Sequence[str]
    sides: tuple[_Side, _Side]


def render_comparison(comparison: ReportComparison, dataset: Dataset | None) -> str:
    """Render the page; equal input gives equal text.

    Args:
        comparison: the reports.
        dataset: theirs, for the images; None: texts alone are shown.

    Returns:
        HTML without references to anything outside it.
    """
    images = _images(comparison, dataset)

    @cache
    def image(item_id: str) -> str:
        encoded = images.get(item_id)
        return data_uri(thumbnail(encoded, PIXELS), "jpeg") if encoded else ""

    queries = comparison.reference.queries
    places = {item_id: number for number, item_id in enumerate(queries.ids)}

    def side(report: ComparedReport, query: ChangedQuery) -> _Side:
        own = queries.ids[query.item]
        return _Side(
            report.name,
            float(report.queries.average_precision[query.direction][query.item]),
            int(report.queries.partner_rank[query.direction][query.item]),
            [
                _Result(
                    queries.texts[places[item_id]] or item_id,
                    image(item_id) if query.direction == "t2i" else "",
                    not set(queries.labels[places[item_id]]).isdisjoint(queries.labels[query.item]),
                    item_id == own,
                )
                for item_id in report.queries.retrieved[query.direction][query.item][:NUM_HITS]
            ],
        )

    def show(query: ChangedQuery) -> _Changed:
        own = queries.ids[query.item]
        return _Changed(
            ARROWS[query.direction],
            queries.texts[query.item] or own,
            image(own) if query.direction == "i2t" else "",
            queries.labels[query.item],
            (side(comparison.reference, query), side(comparison.challengers[query.challenger], query)),
        )

    page = read_template(TEMPLATE).render(
        comparison=comparison,
        families=[(family, TITLES[family], comparison.family(family)) for family in FAMILIES],
        numbers=_numbers(comparison),
        changed=[
            (what, [show(query) for query in queries])
            for what, queries in (("better", comparison.better), ("worse", comparison.worse))
        ],
        has_images=dataset is not None,
        num_hits=NUM_HITS,
    )
    return page.rstrip() + "\n"


def _images(comparison: ReportComparison, dataset: Dataset | None) -> dict[str, bytes | None]:
    """The encoded images that the page shows, by id."""
    if dataset is None:
        return {}
    shown: set[str] = set()
    for query in (*comparison.better, *comparison.worse):
        if query.direction == "i2t":
            shown.add(comparison.reference.queries.ids[query.item])
            continue
        for report in (comparison.reference, comparison.challengers[query.challenger]):
            shown.update(report.queries.retrieved["t2i"][query.item][:NUM_HITS])
    rows = [row for row, item_id in enumerate(dataset.ids) if item_id in shown]
    return {dataset.ids[row]: encoded for row, encoded in zip(rows, dataset.images(rows), strict=True)}


def _numbers(comparison: ReportComparison) -> str:
    """All rows as CSV, one for each challenger."""
    cells = [
        (row.family, row.name, row.num_queries, report.name, row.reference, change.mean)
        + (change.difference or (None, None, None))
        + (change.p_value,)
        for row in comparison.rows
        for report, change in zip(comparison.challengers, row.changes, strict=True)
    ]
    titles = ("family", "name", "queries", "report", "reference", "changed", "difference", "low", "high", "p_value")
    return csv_uri(dict(zip(titles, zip(*cells, strict=True), strict=True)))

"""Compare reports on the same test split: overall, by label and by slice, and query by query.

Everything is computed from the tables of queries, paired: a query of one report beside the same query of another.

Shapes: N test items.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from dagnn_core.artifacts import Artifact
from dagnn_core.config.register import GateConfig
from dagnn_core.config.section import DEFAULT_SEED
from dagnn_core.errors import InputError
from dagnn_core.reports.evaluation.queries import Queries
from dagnn_core.retrieval.bootstrap import Difference
from dagnn_core.retrieval.comparison import holm, mean_of_directions, paired_test
from dagnn_core.retrieval.directions import ARROWS, DIRECTIONS
from dagnn_core.retrieval.slices import rare_label_items, short_text_items
from dagnn_core.text import clip, name_first

MIN_QUERIES = 2  # with scores, to compare
NUM_CHANGED = 6  # queries that got better, and as many that got worse
DARK = 0.25  # of the images, the darkest; the brightest likewise

Family = Literal["overall", "slice", "label"]
FAMILIES: tuple[Family, ...] = get_args(Family)


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedReport:
    """A report that is compared."""

    name: str
    """As the user calls it."""
    queries: Queries
    label_counts: Mapping[str, int]
    """Training items with each label; empty where the report does not say."""
    digest: str
    """Content digest of the report."""
    data_digest: str
    """Content digest of its data set; empty where the report does not say."""

    @classmethod
    def read(cls, name: str, artifact: Artifact) -> "ComparedReport":
        """Open a report artifact.

        Raises:
            ArtifactError: it has no table of queries, or is damaged.
        """
        data = artifact.content.get("data", {})
        return cls(
            name=name,
            queries=Queries.read(artifact),
            label_counts=data.get("label_counts", {}).get("train", {}),
            digest=artifact.content_digest,
            data_digest=data.get("content_digest", ""),
        )


class Change(NamedTuple):
    """A challenger against the reference, on one set of queries."""

    mean: float
    """The challenger's MAP."""
    difference: Difference | None
    """Challenger minus reference, with a 95 % interval; None where there are too few queries."""
    p_value: float | None
    """Paired t-test, corrected for all rows of the family and all challengers (Holm)."""


class Row(NamedTuple):
    """MAP over one set of queries."""

    family: Family
    name: str
    num_queries: int
    """Items that have a score."""
    reference: float
    """The reference's MAP; NaN without any query."""
    changes: tuple[Change, ...]
    """Of each challenger."""


class ChangedQuery(NamedTuple):
    """A query that does much better or worse than with the reference."""

    challenger: int
    """Which one, from 0."""
    direction: str
    item: int
    reference: float
    """Average precision."""
    changed: float
    """The challenger's average precision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportComparison:
    """Reports side by side; the first one is the reference."""

    reports: tuple[ComparedReport, ...]
    """Their items are in the same order."""
    rows: tuple[Row, ...]
    better: tuple[ChangedQuery, ...]
    """The largest gains first, for each challenger."""
    worse: tuple[ChangedQuery, ...]
    """The largest losses first, for each challenger."""

    @property
    def reference(self) -> ComparedReport:
        """What the others are compared with."""
        return self.reports[0]

    @property
    def challengers(self) -> tuple[ComparedReport, ...]:
        """The others."""
        return self.reports[1:]

    def family(self, family: Family) -> list[Row]:
        """Rows of one family."""
        return [row for row in self.rows if row.family == family]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values; what is not defined is null."""
        names = [report.name for report in self.challengers]
        return {
            "reference": self.reference.name,
            "reports": {report.name: report.digest for report in self.reports},
            "num_items": len(self.reference.queries),
            "rows": [
                {
                    "family": row.family,
                    "name": row.name,
                    "num_queries": row.num_queries,
                    "reference": _defined(row.reference),
                    "changes": {name: _change(change) for name, change in zip(names, row.changes, strict=True)},
                }
                for row in self.rows
            ],
            **{
                key: [
                    {
                        "report": names[query.challenger],
                        "direction": query.direction,
                        "id": self.reference.queries.ids[query.item],
                        "reference": query.reference,
                        "changed": query.changed,
                    }
                    for query in queries
                ]
                for key, queries in (("better", self.better), ("worse", self.worse))
            },
        }


def compare_reports(reports: Sequence[ComparedReport]) -> ReportComparison:
    """Compare reports with the first of them.

    Args:
        reports: at least two.

    Raises:
        InputError: two have one name, or they are not about the same items with the same labels; no query has a
            relevant item.
    """
    _check_names([report.name for report in reports])
    aligned = (reports[0], *(_align(report, reports[0]) for report in reports[1:]))
    sets = _sets_of_queries(reports[0])
    rows = [
        row for family in FAMILIES for row in _compare_family(family, sets[family], [one.queries for one in aligned])
    ]
    changed = [
        query for number in range(1, len(aligned)) for query in _changed(number - 1, aligned[0], aligned[number])
    ]
    return ReportComparison(
        reports=aligned,
        rows=tuple(rows),
        better=tuple(query for query in changed if query.changed > query.reference),
        worse=tuple(query for query in changed if query.changed < query.reference),
    )


def _check_names(names: Sequence[str]) -> None:
    if len(names) < 2:
        raise InputError(f"{len(names)} report to compare, expected at least two", "name another one")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{twice} is named twice, expected different reports", "name each once")


def _align(report: ComparedReport, reference: ComparedReport) -> ComparedReport:
    """A report with its items in the order of the reference.

    Raises:
        InputError: its items or their labels are others.
    """
    known = {item: number for number, item in enumerate(report.queries.ids)}
    only = set(known) ^ set(reference.queries.ids)
    if only:
        raise InputError(
            f"{report.name} and {reference.name} are about other test items ({len(only)} that only one of the two has, "
            f"such as {clip(min(only))!r}), so they cannot be compared",
            "evaluate both models on the same data set",
        )
    order = np.array([known[item] for item in reference.queries.ids])
    queries = report.queries.take(order)
    differing = [
        number for number, labels in enumerate(queries.labels) if set(labels) != set(reference.queries.labels[number])
    ]
    if differing:
        names = {name for labels in queries.labels for name in labels}
        names ^= {name for labels in reference.queries.labels for name in labels}
        which = f" ({name_first(sorted(names))} in one of the two alone)" if names else ""
        raise InputError(
            f"{report.name} and {reference.name} have other labels{which}: {len(differing)} items differ, such as "
            f"{clip(reference.queries.ids[differing[0]])!r}, so relevance is not the same",
            "evaluate both models on the same data set",
        )
    return replace(report, queries=queries)


class _QuerySet(NamedTuple):
    name: str
    directions: tuple[str, ...]
    items: NDArray[np.bool_]


def _sets_of_queries(reference: ComparedReport) -> dict[Family, list[_QuerySet]]:
    """What is compared, by family; slices of no item, or of all, are left out."""
    queries, both = reference.queries, tuple(DIRECTIONS)
    everything = np.ones(len(queries), dtype=np.bool_)
    names = sorted({name for labels in queries.labels for name in labels})
    carried = queries.label_matrix(names)
    num_labels = carried.sum(axis=1)
    gate = GateConfig()
    slices = {"one label": num_labels == 1, "several labels": num_labels > 1}
    if reference.label_counts and names:
        counts = np.array([reference.label_counts.get(name, 0) for name in names])
        slices["a rare label"] = rare_label_items(carried, counts, gate.rare_labels)
    if not np.isnan(queries.brightness).any():
        slices["a dark image"] = queries.brightness <= np.quantile(queries.brightness, DARK)
        slices["a bright image"] = queries.brightness >= np.quantile(queries.brightness, 1 - DARK)
    found = [_QuerySet(name, both, items) for name, items in slices.items()]
    if all(queries.texts):
        short = short_text_items(queries.texts, gate.short_texts)
        found.append(_QuerySet("short texts as queries", ("t2i",), short))
    return {
        "overall": [
            *(_QuerySet(ARROWS[direction], (direction,), everything) for direction in DIRECTIONS),
            _QuerySet("mean of both", both, everything),
        ],
        "slice": [one for one in found if one.items.any() and not one.items.all()],
        "label": [_QuerySet(name, both, carried[:, column] > 0) for column, name in enumerate(names)],
    }


def _compare_family(family: Family, sets: Iterable[_QuerySet], tables: Sequence[Queries]) -> list[Row]:
    rows = []
    for name, directions, items in sets:
        means = [mean_of_directions(table.average_precision, directions, items) for table in tables]
        num_queries = int((~np.isnan(means[0])).sum())
        changes = []
        for number, mean in enumerate(means[1:], start=1):
            if num_queries < MIN_QUERIES:
                changes.append(Change(_mean(mean), None, None))
                continue
            tested = paired_test(
                tables[number].average_precision, tables[0].average_precision, directions, items, seed=DEFAULT_SEED
            )
            changes.append(Change(_mean(mean), tested.difference, tested.p_value))
        rows.append(Row(family, name, num_queries, _mean(means[0]), tuple(changes)))
    if family == "overall" and rows and not rows[0].num_queries:
        raise InputError("no query has a relevant item, so MAP is undefined", "check the labels of the data set")
    return _corrected(rows)


def _corrected(rows: Sequence[Row]) -> list[Row]:
    """Rows with p-values that are corrected for all of them."""
    looks = [change.p_value for row in rows for change in row.changes if change.p_value is not None]
    corrected = iter(holm(looks))
    return [
        row._replace(
            changes=tuple(
                change if change.p_value is None else change._replace(p_value=next(corrected)) for change in row.changes
            )
        )
        for row in rows
    ]


def _changed(number: int, reference: ComparedReport, challenger: ComparedReport) -> list[ChangedQuery]:
    """The queries that got better by most, then those that got worse by most."""
    found = [
        ChangedQuery(number, direction, item, before, after)
        for direction in DIRECTIONS
        for item, (before, after) in enumerate(
            zip(
                reference.queries.average_precision[direction].tolist(),
                challenger.queries.average_precision[direction].tolist(),
                strict=True,
            )
        )
        if before != after and not math.isnan(before)
    ]
    found.sort(key=lambda query: query.reference - query.changed)
    better = [query for query in found[:NUM_CHANGED] if query.changed > query.reference]
    worse = [query for query in reversed(found[-NUM_CHANGED:]) if query.changed < query.reference]
    return better + worse


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _change(change: Change) -> dict[str, float | None]:
    difference = change.difference
    return {
        "mean": _defined(change.mean),
        "difference": difference.mean if difference else None,
        "low": difference.low if difference else None,
        "high": difference.high if difference else None,
        "p_value": change.p_value,
    }

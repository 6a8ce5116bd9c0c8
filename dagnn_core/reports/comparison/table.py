"""A comparison of reports as tables for a terminal."""

from collections.abc import Iterator

from dagnn_core.reports.comparison.compare import Change, Family, ReportComparison
from dagnn_core.text import cell, clip

TITLES: dict[Family, str] = {"overall": "MAP", "slice": "mean MAP by slice", "label": "mean MAP by label"}
MAX_NAME = 40
SIGNIFICANT = 0.05


def comparison_lines(comparison: ReportComparison) -> Iterator[str]:
    """Lines of the tables: overall, slices, labels; `*` marks a corrected p-value below 0.05."""
    yield f"reference: {cell(comparison.reference.name)}, {len(comparison.reference.queries)} test items"
    for number, report in enumerate(comparison.challengers):
        yield ""
        yield f"{cell(report.name)} against it"
        for family, title in TITLES.items():
            rows = comparison.family(family)
            if not rows:
                continue
            width = max(len(title), *(len(clip(cell(row.name), MAX_NAME)) for row in rows))
            yield f"{title:<{width}}  queries  reference  changed  difference  95 % interval       p, corrected"
            for row in rows:
                shown = _change(row.changes[number])
                name = clip(cell(row.name), MAX_NAME)
                yield f"{name:<{width}}  {row.num_queries:>7}  {row.reference:>9.4f}  {shown}".rstrip()


def _change(change: Change) -> str:
    if change.difference is None or change.p_value is None:
        return f"{change.mean:>7.4f}  too few queries to compare"
    mean, low, high = change.difference
    mark = " *" if change.p_value < SIGNIFICANT else ""
    p_value = f"{change.p_value:.4f}" if change.p_value >= 0.0001 else "< 0.0001"
    return f"{change.mean:>7.4f}  {mean:>+10.4f}  {low:>+8.4f} to {high:>+8.4f}  {p_value}{mark}"

"""What a log of queries says, as one self-contained page: findings, and the trend."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dagnn_core.reports.page.template import read_template

TEMPLATE = Path(__file__).with_name("page.html.j2")
WIDTH, HEIGHT = 640, 120  # of a chart, in its own units


class Series(NamedTuple):
    """A value over time."""

    title: str
    values: Sequence[float | None]
    """One for each point in time; None where there is none."""
    limit: float | None
    """The largest value that is ok; None: there is no limit."""
    kind: str
    """How a value is written: `count`, `share` or `milliseconds`."""


class _Chart(NamedTuple):
    """A series, drawn."""

    title: str
    lines: Sequence[str]
    """Coordinates of each unbroken piece, as SVG's polyline takes them."""
    dots: Sequence[tuple[float, float, str]]
    """Coordinates and text of each value."""
    limit: float | None
    """Height at which the limit is drawn."""
    top: str
    last: str


def render_page(
    title: str,
    *,
    facts: Mapping[str, str],
    findings: Sequence[Mapping[str, Any]],
    times: Sequence[str],
    series: Sequence[Series],
) -> str:
    """Render the page; equal input gives equal text.

    Args:
        title: what the page is about.
        facts: name -> value, for readers.
        findings: as `Finding` has them.
        times: beginning of each point in time.
        series: the values at these times.

    Returns:
        HTML without references to anything outside it.
    """
    return read_template(TEMPLATE).render(
        title=title,
        facts=facts,
        findings=findings,
        times=times,
        charts=[_draw(one, times) for one in series if any(value is not None for value in one.values)],
        width=WIDTH,
        height=HEIGHT,
    )


def _draw(series: Series, times: Sequence[str]) -> _Chart:
    known = [value for value in series.values if value is not None]
    top = max([*known, series.limit or 0.0]) or 1.0
    step = WIDTH / max(len(times) - 1, 1)

    def height(value: float) -> float:
        return round(HEIGHT * (1 - value / top), 1)

    pieces: list[list[str]] = [[]]
    dots = []
    for place, (time, value) in enumerate(zip(times, series.values, strict=True)):
        if value is None:
            pieces.append([])
            continue
        x, y = round(place * step, 1), height(value)
        pieces[-1].append(f"{x},{y}")
        dots.append((x, y, f"{time}: {_written(value, series.kind)}"))
    return _Chart(
        title=series.title,
        lines=[" ".join(piece) for piece in pieces if len(piece) > 1],
        dots=dots,
        limit=None if series.limit is None else height(series.limit),
        top=_written(top, series.kind),
        last=_written(known[-1], series.kind),
    )


def _written(value: float, kind: str) -> str:
    if kind == "share":
        return f"{value:.1%}"
    digits = 1 if kind == "milliseconds" and not math.isclose(value, round(value)) else 0
    return f"{value:,.{digits}f}" + (" ms" if kind == "milliseconds" else "")

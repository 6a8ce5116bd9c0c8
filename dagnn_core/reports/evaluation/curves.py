"""Charts as SVG to be put into a page: colours are the page's CSS variables, so they follow its light or dark theme."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

WIDTH, HEIGHT = 5.4, 3.3  # inches
FADED, GRID = "#000001", "#000002"  # stand-ins, which the page's variables replace
SERIES = ("#000011", "#000012", "#000013", "#000014", "#000015")
VARIABLES = {FADED: "var(--faded)", GRID: "var(--line)"} | {
    color: f"var(--series-{number})" for number, color in enumerate(SERIES, start=1)
}
DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (5, 1.5, 1.2, 1.5)), (0, (9, 2)))  # told apart without colour


class Curve(NamedTuple):
    """One line of a figure."""

    name: str
    x: ArrayLike
    y: ArrayLike
    is_scatter: bool = False
    """Points that no line connects."""


class Point(NamedTuple):
    """One point of a scatter plot."""

    name: str
    """Written beside it; empty: not."""
    x: float
    y: float


def draw_curves(
    curves: Sequence[Curve],
    *,
    name: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    mark: float | None = None,
    level: float | None = None,
    log_x: bool = False,
) -> str:
    """Draw lines; equal input gives equal text.

    Args:
        curves: at most five.
        name: of the figure, for readers that do not see it; different in every figure of a page.
        x_label: what x is.
        y_label: what y is.
        x_range: ends of the x axis; else as the data.
        y_range: ends of the y axis; else as the data.
        mark: draws a vertical line at this x.
        level: draws a horizontal line at this y.
        log_x: scales the x axis by the logarithm.

    Returns:
        An `<svg>` element.
    """
    assert len(curves) <= len(SERIES)
    written = io.StringIO()
    with _figure(name, written) as (figure, axes):
        for curve, color, dashes in zip(curves, SERIES, DASHES, strict=False):
            drawn = {"marker": "o", "markersize": 4, "linestyle": ""} if curve.is_scatter else {"linestyle": dashes}
            axes.plot(curve.x, curve.y, label=curve.name, color=color, linewidth=2, **drawn)
        for line, place in ((axes.axvline, mark), (axes.axhline, level)):
            if place is not None:
                line(place, color=FADED, linewidth=1, linestyle=(0, (2, 3)))
        axes.set(xlabel=x_label, ylabel=y_label, xlim=x_range, ylim=y_range)
        if log_x:
            axes.set_xscale("log")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=x_range is None))
        columns = len(curves) if len(curves) <= 3 else 2
        figure.legend(loc="outside upper center", ncols=columns, frameon=False, handlelength=2.6)
    return _svg(written.getvalue(), name)


def draw_points(points: Sequence[Point], *, name: str, x_label: str, y_label: str) -> str:
    """Draw a scatter plot with a logarithmic x axis; equal input gives equal text.

    Args:
        points: x is at least 1.
        name: of the figure, for readers that do not see it; different in every figure of a page.
        x_label: what x is.
        y_label: what y is.

    Returns:
        An `<svg>` element.
    """
    written = io.StringIO()
    with _figure(name, written) as (_, axes):
        axes.scatter([point.x for point in points], [point.y for point in points], s=22, color=SERIES[0], linewidths=0)
        for point in points:
            if point.name:
                place, shift = (point.x, point.y), {"xytext": (4, 3), "textcoords": "offset points"}
                axes.annotate(point.name, place, **shift, fontsize=8, color=FADED, parse_math=False)
        axes.set(xlabel=x_label, ylabel=y_label, xscale="log")
        axes.margins(0.12)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
    return _svg(written.getvalue(), name)


@contextmanager
def _figure(name: str, written: io.StringIO) -> Iterator[tuple[Figure, Any]]:
    """An empty figure and its axes, which is written after the body."""
    style = mpl.rc_context(
        {
            "svg.fonttype": "none",  # text stays text
            "svg.hashsalt": name,  # identifiers do not change from run to run, nor clash with another figure's
            "font.size": 10,
            "text.color": FADED,
            "axes.labelcolor": FADED,
            "axes.edgecolor": GRID,
            "axes.facecolor": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.color": FADED,
            "ytick.color": FADED,
            "grid.color": GRID,
        }
    )
    with style, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the page's own font has what matplotlib's lacks
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained", facecolor="none")
        axes = figure.subplots()
        yield figure, axes
        axes.tick_params(length=0, pad=6, which="both")
        axes.grid(linewidth=0.8)
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})


def _svg(written: str, name: str) -> str:
    svg = written[written.index("<svg") :]
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, variable)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)

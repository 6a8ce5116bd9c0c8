"""Curves as SVG to be put into a page: colours are the page's CSS variables, so they follow its light or dark theme."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
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


def draw_curves(
    curves: Sequence[Curve],
    *,
    name: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    mark: float | None = None,
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
        log_x: scales the x axis by the logarithm.

    Returns:
        An `<svg>` element.
    """
    assert len(curves) <= len(SERIES)
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
    with style:
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained", facecolor="none")
        axes = figure.subplots()
        for curve, color, dashes in zip(curves, SERIES, DASHES, strict=False):
            drawn = {"marker": "o", "markersize": 4, "linestyle": ""} if curve.is_scatter else {"linestyle": dashes}
            axes.plot(curve.x, curve.y, label=curve.name, color=color, linewidth=2, **drawn)
        if mark is not None:
            axes.axvline(mark, color=FADED, linewidth=1, linestyle=(0, (2, 3)))
        axes.set(xlabel=x_label, ylabel=y_label, xlim=x_range, ylim=y_range)
        if log_x:
            axes.set_xscale("log")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=x_range is None))
        axes.tick_params(length=0, pad=6)
        axes.grid(linewidth=0.8)
        columns = len(curves) if len(curves) <= 3 else 2
        figure.legend(loc="outside upper center", ncols=columns, frameon=False, handlelength=2.6)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, variable)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)

"""The image of how labels go together: the matrix of conditional probabilities."""

# C labels

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from dagnn_core.disk import writing

DPI = 144
INK, FADED, LINE = "#1f2430", "#667085", "#c6ccd5"
COLORS = LinearSegmentedColormap.from_list("probability", ["#ffffff", "#c9dcf2", "#5b9bd5", "#08306b"])
MAX_LABELS = 120  # more would not be readable
MAX_NAME = 30  # letters
MAX_WRITTEN = 12  # labels: of more, the colours say enough
CELL_INCHES = (0.14, 0.34)  # at most that small, where there are many labels, and that large
SIDE_INCHES = 9.0


def order_labels(conditional: NDArray[np.float64]) -> list[int]:
    """Put labels that go together beside each other.

    Hierarchical clustering with average linkage of the distance 1 - (P(i | j) + P(j | i)) / 2, its leaves in the order
    with the smallest distance between neighbours (Bar-Joseph, Gifford and Jaakkola 2001).

    Shape:
        conditional [C, C], C at least 2.
    """
    distance = 1 - (conditional + conditional.T) / 2
    np.fill_diagonal(distance, 0)
    order: list[int] = leaves_list(linkage(squareform(distance), "average", optimal_ordering=True)).tolist()
    return order


def draw_matrix(path: Path, names: Sequence[str], conditional: NDArray[np.float64]) -> None:
    """Draw P(row | column) into a PNG file; equal input gives equal bytes.

    Args:
        path: the file.
        names: the labels, in the order of the matrix.
        conditional: [C, C], P_ij = P(i | j); the diagonal is left empty.
    """
    num_labels = len(names)
    cell = float(np.clip(SIDE_INCHES / num_labels, *CELL_INCHES))
    side = cell * num_labels
    font = min(9.0, 0.8 * 72 * cell)
    shown = [name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…" for name in names]
    figure = Figure(figsize=(side, side), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    values = np.where(np.eye(num_labels, dtype=bool), np.nan, conditional)
    mesh = axes.pcolormesh(values, cmap=COLORS, vmin=0, vmax=1, edgecolors="#eef1f5", linewidth=0.4)
    axes.plot([0, num_labels], [0, num_labels], color=LINE, linewidth=0.7)
    axes.set(xlim=(0, num_labels), ylim=(num_labels, 0))
    ticks = np.arange(num_labels) + 0.5
    axes.set_xticks(ticks, shown, rotation=90, parse_math=False)
    axes.set_yticks(ticks, shown, parse_math=False)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=4, labelsize=font, labelcolor=INK)
    axes.spines[:].set(color=LINE, linewidth=0.8)
    if num_labels <= MAX_WRITTEN:
        _write_values(axes, values)
    bar = figure.colorbar(mesh, cax=figure.add_axes((1 + 0.15 / side, 0, 0.14 / side, min(1, 2.5 / side))))
    bar.outline.set(edgecolor=LINE, linewidth=0.8)
    bar.set_ticks([0, 0.5, 1], labels=["0", "0.5", "1"])
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=FADED)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # names in a script that the font lacks are boxes
        with writing(path):
            figure.savefig(path, dpi=DPI, bbox_inches="tight", pad_inches=0.1, metadata={"Software": None})


def _write_values(axes: Axes, values: NDArray[np.float64]) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            text, color = f"{value:.2f}".removeprefix("0"), "white" if value > 0.6 else INK
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", size=7, color=color)

"""The image of a label graph: the labels grouped by community, beside the matrix of conditional probabilities."""

# C labels; lengths are in points (1/72 inch), and one unit of the page's and the graph's axes is one point

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path as Curve
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from numpy.typing import NDArray

from dagnn_core.disk import writing
from dagnn_core.label_graph.cooccurrence import isolated_labels
from dagnn_core.label_graph.placement import bounding_box, find_communities, place_labels

DPI = 160
INK, FADED = "#1f2430", "#667085"
# Paul Tol's "muted" scheme: told apart with every common kind of colour blindness
COMMUNITY_COLORS = ("#332288", "#44AA99", "#CC6677", "#999933", "#88CCEE", "#117733", "#882255", "#DDCC77", "#AA4499")
NO_EDGE_COLOR = "#a3a9b3"
WEAK_COLORS = ("#ffffff", "#cfd4dc")  # probability 0 ... threshold
EDGE_COLORS = ("#8fbfe0", "#08306b")  # threshold ... 1
LINE_COLOR = "#c6ccd5"
MAX_LABELS = 120  # more would be neither readable nor quick to lay out
MAX_NAME = 30  # letters
FAINTEST = 0.1  # pairs less probable than this in both directions are not drawn

MARGIN, HEADER, FOOTER, GUTTER = 24.0, 56.0, 34.0, 36.0
NAME_SIZE, TICK_SIZE, SUMMARY_SIZE = 10.0, 9.0, 10.5
NAME_GAP = 2.0  # between a node and its name
BEND = 0.14  # of an arrow, as a part of its length
MIN_RADIUS, MAX_RADIUS = 4.0, 20.0
MIN_CELL, MAX_CELL = 9.5, 22.0
MIN_MATRIX_SIDE = 250.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    names: Sequence[str]
    label_counts: NDArray[np.int64]
    conditional: NDArray[np.float64]
    threshold: float
    edges: NDArray[np.bool_]
    communities: list[list[int]]
    colors: list[str]
    radii: NDArray[np.float64]
    name_widths: NDArray[np.float64]


def draw_label_graph(
    path: Path,
    *,
    label_names: Sequence[str],
    label_counts: NDArray[np.int64],
    conditional: NDArray[np.float64],
    threshold: float,
    listener: Literal["a", "b"],
    num_items: int,
) -> None:
    """Draw graph and matrix into a PNG file; equal input gives equal bytes.

    The area of a node shows how often its label occurs. An arrow a → b stands for an edge, P(b | a) >= threshold.
    Weaker pairs are grey lines.

    Args:
        path: the file.
        label_names: C names.
        label_counts: [C], items with the label.
        conditional: [C, C], P_ij = P(i | j).
        threshold: pairs from this probability on are edges.
        listener: the end of an arrow that a graph convolution lets listen to the other.
        num_items: number of items that were counted.
    """
    shown = np.sort(np.argsort(-label_counts, kind="stable")[:MAX_LABELS])
    names = [_short(label_names[label]).replace("$", r"\$") for label in shown]  # a pair of $ would begin a formula
    graph = _graph(names, label_counts[shown], conditional[np.ix_(shown, shown)], threshold)
    sizes = 2 * graph.radii
    boxes = np.stack([np.maximum(sizes, graph.name_widths) + 22, sizes + NAME_SIZE + 28], axis=1)
    positions = place_labels(graph.communities, boxes, graph.conditional + graph.conditional.T)
    low, high = bounding_box(positions, boxes)
    summary = _summary(graph, len(label_names), num_items)
    graph_width, graph_height = np.maximum(high - low, (_text_width(summary, SUMMARY_SIZE), 0.0))

    # the matrix is as high as the graph, as far as its names stay readable
    tick_space = graph.name_widths.max() * TICK_SIZE / NAME_SIZE + 16
    cell = np.clip((graph_height - tick_space) / len(names), MIN_CELL, MAX_CELL)
    matrix_side = max(cell * len(names), MIN_MATRIX_SIDE)
    height = max(graph_height, matrix_side + tick_space)

    page_width = 2 * MARGIN + graph_width + GUTTER + tick_space + matrix_side
    page_height = 2 * MARGIN + HEADER + height + FOOTER
    figure = Figure(figsize=(page_width / 72, page_height / 72), facecolor="white")

    def panel(left: float, top: float, width: float, height: float) -> Axes:
        return figure.add_axes(
            (left / page_width, (top - height) / page_height, width / page_width, height / page_height)
        )

    page = panel(0, page_height, page_width, page_height)
    page.set(xlim=(0, page_width), ylim=(0, page_height))
    page.axis("off")
    top, right = page_height - MARGIN, page_width - MARGIN
    page.text(MARGIN, top, "Label graph", fontsize=17, fontweight="bold", color=INK, va="top")
    page.text(MARGIN, top - 26, summary, fontsize=SUMMARY_SIZE, color=FADED, va="top")
    _draw_legend(page, MARGIN, MARGIN + FOOTER / 2 - 6, graph, listener)
    page.text(right - matrix_side, top - 20, "P(row | column)", fontsize=11, fontweight="bold", color=INK)
    _draw_scale(panel(right - 130, top - 12, 130, 9), threshold)

    axes = panel(MARGIN, top - HEADER, graph_width, height)
    centre, half = (low + high) / 2, np.array([graph_width, height]) / 2
    axes.set(xlim=(centre - half)[0] + np.array([0, graph_width]), ylim=(centre - half)[1] + np.array([0, height]))
    axes.axis("off")
    _draw_communities(axes, graph, positions, boxes)
    nodes = positions + np.array([0, (NAME_GAP + NAME_SIZE) / 2])  # a box holds a node above its name
    _draw_edges(axes, graph, nodes)
    _draw_nodes(axes, graph, nodes)
    _draw_matrix(panel(right - matrix_side, top - HEADER, matrix_side, matrix_side), graph, float(matrix_side))
    with writing(path):
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _graph(
    names: Sequence[str], label_counts: NDArray[np.int64], conditional: NDArray[np.float64], threshold: float
) -> _Graph:
    communities = find_communities(conditional, threshold)
    edges: NDArray[np.bool_] = np.greater_equal(conditional, threshold)
    colors = [NO_EDGE_COLOR] * len(names)
    for number, members in enumerate(communities):
        for label in set(members) - set(isolated_labels(edges)):
            colors[label] = COMMUNITY_COLORS[number % len(COMMUNITY_COLORS)]
    return _Graph(
        names=names,
        label_counts=label_counts,
        conditional=conditional,
        threshold=threshold,
        edges=edges,
        communities=communities,
        colors=colors,
        radii=np.maximum(MAX_RADIUS * np.sqrt(label_counts / label_counts.max()), MIN_RADIUS),
        name_widths=np.array([_text_width(name, NAME_SIZE) for name in names]),
    )


def _summary(graph: _Graph, num_labels: int, num_items: int) -> str:
    num_shown, num_isolated = len(graph.names), graph.colors.count(NO_EDGE_COLOR)
    return (
        (f"{num_labels} labels" if num_shown == num_labels else f"The {num_shown} most frequent of {num_labels} labels")
        + f", {graph.edges.sum():,} edges with P(b | a) ≥ {graph.threshold:g}, counted on {num_items:,} training items"
        + (f"; {num_isolated} without an edge (grey)" if num_isolated else "")
    )


def _draw_legend(page: Axes, left: float, middle: float, graph: _Graph, listener: Literal["a", "b"]) -> None:
    def explain(text: str, symbol_width: float) -> float:
        """Write beside a symbol; returns where the next symbol begins."""
        page.text(left + symbol_width + 6, middle, text, fontsize=TICK_SIZE, color=FADED, va="center_baseline")
        return left + symbol_width + 6 + _text_width(text, TICK_SIZE) + 20

    for label in dict.fromkeys((int(graph.label_counts.argmin()), int(graph.label_counts.argmax()))):
        radius = graph.radii[label]
        page.add_patch(Circle((left + radius, middle), radius, facecolor=LINE_COLOR, edgecolor="none", alpha=0.7))
        left = explain(f"{graph.label_counts[label]:,} items", 2 * radius)
    page.add_patch(_arrow(Curve([(left, middle), (left + 30, middle)]), 1.0, graph.threshold))
    listens = "a listens to b" if listener == "a" else "b listens to a"
    left = explain(f"a → b: P(b | a) ≥ {graph.threshold:g}, {listens}", 30)
    if graph.threshold > FAINTEST:
        page.plot([left, left + 30], [middle, middle], color=LINE_COLOR, linewidth=0.8)
        explain(f"weaker, P ≥ {FAINTEST:g}", 30)


def _draw_scale(axes: Axes, threshold: float) -> None:
    axes.imshow(_probability_colors(np.linspace(0, 1, 261), threshold)[None], aspect="auto", extent=(0, 1, 0, 1))
    axes.set_yticks([])
    ticks = [threshold, *(end for end in (0, 1) if abs(end - threshold) > 0.1)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.tick_params(length=0, pad=3, labelsize=TICK_SIZE, labelcolor=FADED)
    axes.spines[:].set(color=LINE_COLOR, linewidth=0.6)


def _draw_communities(axes: Axes, graph: _Graph, positions: NDArray[np.float64], boxes: NDArray[np.float64]) -> None:
    for members in graph.communities:
        (left, bottom), (right, top) = (corner.tolist() for corner in bounding_box(positions[members], boxes[members]))
        tint = tuple(0.9 + 0.1 * channel for channel in to_rgb(graph.colors[members[0]]))
        shape = "round,pad=0,rounding_size=14"
        corner, width, height = (left, bottom), right - left, top - bottom
        axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, facecolor=tint, edgecolor="none"))


def _draw_nodes(axes: Axes, graph: _Graph, nodes: NDArray[np.float64]) -> None:
    for (x, y), name, radius, color in zip(nodes.tolist(), graph.names, graph.radii, graph.colors, strict=True):
        axes.add_patch(Circle((x, y), radius, facecolor=color, edgecolor="white", linewidth=1.2, zorder=4))
        text = axes.text(x, y - radius - NAME_GAP, name, ha="center", va="top", fontsize=NAME_SIZE, color=INK, zorder=5)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _draw_edges(axes: Axes, graph: _Graph, nodes: NDArray[np.float64]) -> None:
    either = np.maximum(graph.conditional, graph.conditional.T)
    faint = np.argwhere(np.triu((either >= FAINTEST) & (either < graph.threshold)))
    axes.add_collection(LineCollection(list(nodes[faint]), colors=LINE_COLOR, linewidths=0.5, zorder=1))

    def covers(label: int, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether a node or its name lies over the points."""
        x, y = np.abs(points[:, 0] - nodes[label, 0]), nodes[label, 1] - points[:, 1]
        radius = graph.radii[label]
        depth = radius + NAME_GAP + NAME_SIZE + 2
        under_name = (x <= graph.name_widths[label] / 2 + 1) & (y >= 0) & (y <= depth)
        covered: NDArray[np.bool_] = under_name | (np.hypot(x, y) <= radius + 1)
        return covered

    for b, a in np.argwhere(graph.edges):
        # a quadratic Bézier curve, bent to the right, of which the part between nodes and names is drawn
        (dx, dy), middle = nodes[b] - nodes[a], (nodes[a] + nodes[b]) / 2
        corner = middle + BEND * np.array([dy, -dx])
        times = np.linspace(0, 1, 201)
        points = _blossom(nodes[a], corner, nodes[b], times, times)
        begin = times[covers(a, points)].max()
        end = times[covers(b, points) & (times > begin)].min()
        begin_end = np.array([begin, begin, end]), np.array([begin, end, end])
        path = Curve(_blossom(nodes[a], corner, nodes[b], *begin_end), [Curve.MOVETO, Curve.CURVE3, Curve.CURVE3])
        axes.add_patch(_arrow(path, graph.conditional[b, a], graph.threshold))


def _blossom(
    tail: NDArray[np.float64],
    corner: NDArray[np.float64],
    head: NDArray[np.float64],
    s: NDArray[np.float64],
    t: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Polar form of a quadratic Bézier curve: its point where s = t; the corner of its part from s to t otherwise."""
    s, t = s[:, None], t[:, None]
    return (1 - s) * (1 - t) * tail + (s * (1 - t) + t * (1 - s)) * corner + s * t * head


def _draw_matrix(axes: Axes, graph: _Graph, side: float) -> None:
    order = [label for members in graph.communities for label in members]
    num_labels = len(order)
    cell = side / num_labels
    cells = _probability_colors(graph.conditional[np.ix_(order, order)], graph.threshold)
    axes.pcolormesh(cells, edgecolors="white", linewidth=0.025 * cell)
    axes.plot([0, num_labels], [0, num_labels], color=LINE_COLOR, linewidth=0.6)  # a label beside itself: not counted
    axes.set(xlim=(0, num_labels), ylim=(num_labels, 0))
    axes.spines[:].set_visible(False)
    names = [graph.names[label] for label in order]
    axes.set_xticks(np.arange(num_labels) + 0.5, names, rotation=90)
    axes.set_yticks(np.arange(num_labels) + 0.5, names)
    axes.tick_params(length=0, pad=9, labelsize=min(TICK_SIZE, 0.85 * cell), labelcolor=INK)
    start, strip = 0, 3 / cell
    for members in graph.communities:
        size, color = len(members), graph.colors[members[0]]
        axes.add_patch(Rectangle((start, start), size, size, fill=False, edgecolor=color, linewidth=1.2, clip_on=False))
        for corner, width, height in (
            ((start, num_labels + strip), size, strip),
            ((-2 * strip, start), strip, size),
        ):
            axes.add_patch(Rectangle(corner, width, height, facecolor=color, edgecolor="none", clip_on=False))
        start += size


def _arrow(path: Curve, probability: float, threshold: float) -> FancyArrowPatch:
    return FancyArrowPatch(
        path=path,
        arrowstyle="-|>",
        mutation_scale=8,
        color=tuple(_probability_colors(np.array(probability), threshold)),
        linewidth=0.6 + 1.6 * probability,
        zorder=2 + probability,  # the likely ones on top
    )


def _probability_colors(probability: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Grey below the threshold, blue from there on: [...] -> [..., 3]."""
    weak, edge = (np.array([to_rgb(color) for color in pair]) for pair in (WEAK_COLORS, EDGE_COLORS))
    p = probability[..., None]
    above = (p - threshold) / max(1 - threshold, 1e-9)
    colors = np.where(
        p >= threshold, edge[0] + above * (edge[1] - edge[0]), weak[0] + p / threshold * (weak[1] - weak[0])
    )
    clipped: NDArray[np.float64] = np.clip(colors, 0, 1)
    return clipped


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def _text_width(text: str, size: float) -> float:
    return float(TextPath((0, 0), text, size=size).get_extents().width)

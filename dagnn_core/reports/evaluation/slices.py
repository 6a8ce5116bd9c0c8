"""Slices that nobody named: a shallow decision tree finds where a model is bad, other test items show whether it is.

A tree fits whatever it is given, so it would always find something. Here it learns on a half of the test items, and the
slices are measured on the other half, against all other items of that half; p-values are corrected for the number of
slices.

Shapes: N test items, F traits.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeRegressor

from dagnn_core.config.section import DEFAULT_SEED
from dagnn_core.reports.evaluation.queries import Queries
from dagnn_core.retrieval.bootstrap import Interval, bootstrap_mean
from dagnn_core.retrieval.comparison import holm, welch_p_value
from dagnn_core.text import clip

MAX_DEPTH = 3
MIN_ITEMS = 10  # of a slice, in each half
MAX_LABELS = 200  # that the tree sees: the most frequent
MAX_VALUES = 20  # of a column of the source: with more, it divides by threshold or not at all
MAX_WHOLE = 1 << 24  # the tree sees float32, which has all whole numbers up to here


class FoundSlice(NamedTuple):
    """Test items that have some traits in common."""

    rule: str
    items: tuple[int, ...]
    """Those of the half that it is measured on, the hardest first."""
    mean: float
    """MAP over its items, mean of both directions."""
    interval: Interval
    """95 %."""
    rest: float
    """MAP over the other items of that half."""
    p_value: float
    """That both are the same, corrected for the number of slices."""


def find_slices(queries: Queries) -> list[FoundSlice]:
    """Find slices by labels, their number, length of text, brightness of image, and columns of the source.

    A column of at most 20 values divides by each value that is frequent enough; another one that holds a number in
    every cell divides by threshold. All others are left out: of ids, names and dates nearly every item has its own.

    Returns:
        The worst first; none where there are too few items, or where no trait divides them.
    """
    scores = queries.mean_average_precision
    defined = np.random.default_rng(DEFAULT_SEED).permutation(np.flatnonzero(~np.isnan(scores)))
    one, other = np.sort(defined[::2]), np.sort(defined[1::2])
    if len(other) < 2 * MIN_ITEMS:
        return []
    traits = _traits(queries)
    matrix = np.stack([trait.values for trait in traits], axis=1)
    tree = DecisionTreeRegressor(max_depth=MAX_DEPTH, min_samples_leaf=MIN_ITEMS, random_state=0)
    tree.fit(matrix[one], scores[one])
    leaves = tree.apply(matrix[other])
    found = []
    for leaf, bounds in _leaves(tree).items():
        inside = leaves == leaf
        if bounds and min(inside.sum(), (~inside).sum()) >= MIN_ITEMS:
            items = other[inside]
            part, rest = scores[items], scores[other[~inside]]
            found.append(
                FoundSlice(
                    rule=_rule(bounds, traits),
                    items=tuple(items[np.argsort(part, kind="stable")].tolist()),
                    mean=float(part.mean()),
                    interval=bootstrap_mean(part, seed=DEFAULT_SEED),
                    rest=float(rest.mean()),
                    p_value=welch_p_value(part, rest),
                )
            )
    corrected = holm([one.p_value for one in found])
    slices = [part._replace(p_value=p_value) for part, p_value in zip(found, corrected, strict=True)]
    return sorted(slices, key=lambda part: part.mean)


class _Trait(NamedTuple):
    """What the tree may divide items by."""

    name: str
    """In a rule: of a label, of a column, or of what is measured."""
    kind: Literal["label", "value", "whole", "rounded", "number"]
    """Carries a label or not, has a value in a column or not, or a number: whole, shown as if it were, or any."""
    values: NDArray[np.float64]
    """[N]."""
    value: str = ""
    """The value in the column."""


def _traits(queries: Queries) -> list[_Trait]:
    counts = Counter(name for labels in queries.labels for name in labels)
    names = _dividing(counts, len(queries), most=MAX_LABELS)
    carried = queries.label_matrix(names).astype(np.float64)
    traits = [_Trait(name, "label", column) for name, column in zip(names, carried.T, strict=True)]
    num_labels = np.array([len(labels) for labels in queries.labels], dtype=np.float64)
    traits.append(_Trait("number of labels", "whole", num_labels))
    if queries.text_lengths.any():
        traits.append(_Trait("words of the text", "whole", queries.text_lengths.astype(np.float64)))
    if not np.isnan(queries.brightness).any():
        traits.append(_Trait("brightness of the image", "rounded", queries.brightness))
    for name, cells in queries.columns.items():
        traits += _column_traits(name, cells)
    return traits


def _column_traits(name: str, cells: Sequence[str]) -> list[_Trait]:
    counts = Counter(cells)
    if len(counts) <= MAX_VALUES:
        return [
            _Trait(name, "value", np.array([cell == value for cell in cells], dtype=np.float64), value)
            for value in _dividing(counts, len(cells), most=MAX_VALUES)
        ]
    try:
        numbers = np.array([float(cell) for cell in cells])
    except ValueError:  # a cell that is empty, or no number
        return []
    if not (np.abs(numbers) <= np.finfo(np.float32).max).all():  # the tree takes no others, and no NaN
        return []
    is_whole = (numbers == np.floor(numbers)).all() and np.abs(numbers).max() <= MAX_WHOLE
    return [_Trait(name, "whole" if is_whole else "number", numbers)]


def _dividing(counts: Mapping[str, int], num_items: int, *, most: int) -> list[str]:
    """Of the most frequent values, those that divide the items into two slices which are large enough."""
    frequent = sorted(counts, key=lambda name: (-counts[name], name))[:most]
    return [name for name in frequent if MIN_ITEMS <= counts[name] <= num_items - MIN_ITEMS]


_Bounds = Mapping[int, tuple[float, float]]
"""Trait -> above which value, and up to which."""


def _leaves(tree: DecisionTreeRegressor) -> dict[int, _Bounds]:
    """The leaves of a tree, with what leads to each."""
    nodes = tree.tree_
    found: dict[int, _Bounds] = {}

    def visit(node: int, bounds: _Bounds) -> None:
        left, right, trait = nodes.children_left[node], nodes.children_right[node], int(nodes.feature[node])
        if left == right:
            found[node] = bounds
            return
        low, high = bounds.get(trait, (-np.inf, np.inf))
        threshold = float(nodes.threshold[node])
        visit(int(left), {**bounds, trait: (low, min(high, threshold))})
        visit(int(right), {**bounds, trait: (max(low, threshold), high)})

    visit(0, {})
    return found


def _rule(bounds: _Bounds, traits: Sequence[_Trait]) -> str:
    known = {traits[trait].name for trait, (low, _) in bounds.items() if traits[trait].kind == "value" and low > 0}
    words = []
    for index, (low, high) in bounds.items():
        trait = traits[index]
        if trait.kind == "label":
            words.append(f"{'with' if low > 0 else 'without'} “{trait.name}”")
        elif trait.kind == "value":
            if low > 0:
                words.append(f"{clip(trait.name)} = “{clip(trait.value)}”")
            elif trait.name not in known:  # else the value that it has says this, too
                words.append(f"{clip(trait.name)} other than “{clip(trait.value)}”")
        else:
            words.append(f"{clip(trait.name)} {_range(low, high, trait.kind)}")
    return ", ".join(words)


def _range(low: float, high: float, kind: str) -> str:
    """Above one number, up to another: infinite where there is no such bound."""
    if kind == "number":
        parts = [f"above {low:.6g}"] * bool(np.isfinite(low)) + [f"at most {high:.6g}"] * bool(np.isfinite(high))
        return " and ".join(parts)
    # numbers of labels and words are whole: above 3.5 is 4 or more
    first, last = (low, high) if kind == "rounded" else (np.floor(low) + 1, np.floor(high))
    if np.isfinite(low) and np.isfinite(high):
        return f"{first:.0f}" + (f" to {last:.0f}" if last > first else "")
    return f"{first:.0f} or more" if np.isfinite(low) else f"{last:.0f} or less"

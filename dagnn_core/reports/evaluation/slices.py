"""Slices that nobody named: a shallow decision tree finds where a model is bad, other test items show whether it is.

A tree fits whatever it is given, so it would always find something. Here it learns on a half of the test items, and the
slices are measured on the other half, against all other items of that half; p-values are corrected for the number of
slices.

Shapes: N test items, F traits.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeRegressor

from dagnn_core.config.section import DEFAULT_SEED
from dagnn_core.reports.evaluation.queries import Queries
from dagnn_core.retrieval.bootstrap import Interval, bootstrap_mean
from dagnn_core.retrieval.comparison import holm, welch_p_value

MAX_DEPTH = 3
MIN_ITEMS = 10  # of a slice, in each half
MAX_LABELS = 200  # that the tree sees: the most frequent
NUM_LABELS, NUM_WORDS, BRIGHTNESS = "number of labels", "words of the text", "brightness of the image"


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
    """Find slices by labels, number of labels, length of text and brightness of image; the worst first.

    Returns:
        None of them where there are too few items, or where no trait divides them.
    """
    scores = queries.mean_average_precision
    defined = np.random.default_rng(DEFAULT_SEED).permutation(np.flatnonzero(~np.isnan(scores)))
    one, other = np.sort(defined[::2]), np.sort(defined[1::2])
    if len(other) < 2 * MIN_ITEMS:
        return []
    traits = _traits(queries)
    matrix = np.stack(list(traits.values()), axis=1)
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
                    rule=_rule(bounds, list(traits)),
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


def _traits(queries: Queries) -> dict[str, NDArray[np.float64]]:
    """Trait -> its value of every item, [N]; labels by `=` and their names, which no other trait has."""
    counts = Counter(name for labels in queries.labels for name in labels)
    frequent = sorted(counts, key=lambda name: (-counts[name], name))[:MAX_LABELS]
    names = [name for name in frequent if MIN_ITEMS <= counts[name] <= len(queries) - MIN_ITEMS]
    carried = queries.label_matrix(names).astype(np.float64)
    traits = {f"={name}": column for name, column in zip(names, carried.T, strict=True)}
    traits[NUM_LABELS] = np.array([len(labels) for labels in queries.labels], dtype=np.float64)
    if queries.text_lengths.any():
        traits[NUM_WORDS] = queries.text_lengths.astype(np.float64)
    if not np.isnan(queries.brightness).any():
        traits[BRIGHTNESS] = queries.brightness
    return traits


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


def _rule(bounds: _Bounds, traits: list[str]) -> str:
    words = []
    for trait, (low, high) in bounds.items():
        name = traits[trait]
        if name.startswith("="):
            words.append(f"{'with' if low > 0 else 'without'} “{name[1:]}”")
        else:
            # numbers of labels and words are whole: above 3.5 is 4 or more
            first, last = (low, high) if name == BRIGHTNESS else (np.floor(low) + 1, np.floor(high))
            if np.isfinite(low) and np.isfinite(high):
                words.append(f"{name} {first:.0f}" + (f" to {last:.0f}" if last > first else ""))
            else:
                words.append(f"{name} " + (f"{first:.0f} or more" if np.isfinite(low) else f"{last:.0f} or less"))
    return ", ".join(words)

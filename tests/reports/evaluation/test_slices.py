"""Slices: one that was planted is found and holds, and in noise nothing is sure."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from dagnn_core.reports.evaluation.queries import SCORES, Queries
from dagnn_core.reports.evaluation.slices import MAX_WHOLE, FoundSlice, find_slices
from dagnn_core.retrieval.directions import DIRECTIONS


def make_queries(
    average_precision: np.ndarray,
    has_label: np.ndarray,
    lengths: np.ndarray,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> Queries:
    size = len(average_precision)
    return Queries(
        ids=tuple(map(str, range(size))),
        labels=tuple(("boat", "sea") if has else ("sea",) for has in has_label),
        texts=("",) * size,
        text_lengths=lengths,
        brightness=np.full(size, np.nan),
        scores={name: dict.fromkeys(DIRECTIONS, average_precision) for name in SCORES},
        partner_rank=dict.fromkeys(DIRECTIONS, np.ones(size, dtype=np.int64)),
        num_relevant=dict.fromkeys(DIRECTIONS, np.ones(size, dtype=np.int64)),
        retrieved=dict.fromkeys(DIRECTIONS, [[]] * size),
        cosines=dict.fromkeys(DIRECTIONS, [[]] * size),
        columns=columns or {},
    )


@pytest.fixture
def traits() -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng, rng.random(400) < 0.4, rng.integers(1, 30, 400)


def test_a_planted_slice_is_found_and_measured_on_other_items(
    traits: tuple[np.random.Generator, np.ndarray, np.ndarray],
) -> None:
    rng, has_label, lengths = traits
    is_bad = has_label & (lengths <= 10)
    scores = np.where(is_bad, 0.3, 0.8) + 0.1 * rng.normal(size=400)
    scores[::50] = np.nan
    worst, *others = find_slices(make_queries(scores, has_label, lengths))
    assert "with “boat”" in worst.rule and re.search(r"words of the text (\d to 10|10 or less)", worst.rule)
    assert is_bad[list(worst.items)].all() and not np.isnan(scores[list(worst.items)]).any()
    assert worst.p_value < 1e-6 and worst.interval.low < worst.mean < worst.interval.high < 0.4 < worst.rest
    assert scores[list(worst.items)].tolist() == sorted(scores[list(worst.items)])
    assert [part.mean for part in others] == sorted(part.mean for part in others)


def find_by_column(name: str, cells: Sequence[str], is_bad: np.ndarray) -> FoundSlice:
    """The worst slice where all items are alike but for a column."""
    scores = np.where(is_bad, 0.3, 0.8) + 0.05 * np.random.default_rng(1).normal(size=len(cells))
    alike = np.ones(len(cells), dtype=np.int64)
    return find_slices(make_queries(scores, alike > 0, alike, {"noise": ["x"] * len(cells), name: cells}))[0]


@pytest.mark.parametrize("bad", ["night", "", "twilight"])
def test_a_slice_by_a_value_of_a_column_is_found_and_named(bad: str) -> None:
    cells = [("night", "dawn, early", "")[row % 3] if row % 40 else "rare" for row in range(400)]
    is_bad = np.array([cell == bad for cell in cells])
    if bad not in cells:
        is_bad = np.array([cell == "night" for cell in cells])
        cells = [cell.replace("night", bad) for cell in cells]
    worst = find_by_column("camera", cells, is_bad)
    assert worst.rule == f"camera = “{bad}”"
    assert is_bad[list(worst.items)].all() and abs(len(worst.items) - is_bad.sum() / 2) < 15
    assert abs(worst.mean - 0.3) < 0.02 and abs(worst.rest - 0.8) < 0.02 and worst.p_value < 1e-6


def test_what_a_value_rules_out_is_not_said_again() -> None:
    cells = [("day", "night", "dawn", "dusk")[row % 4] for row in range(400)]
    scores = np.select([np.array(cells) == "day", np.array(cells) == "night"], [0.9, 0.1], 0.5)
    alike = np.ones(400, dtype=np.int64)
    rules = [part.rule for part in find_slices(make_queries(scores, alike > 0, alike, {"camera": cells}))]
    assert rules[0] == "camera = “night”" and rules[-1] == "camera = “day”"
    assert set(rules[1].split(", ")) == {"camera other than “night”", "camera other than “day”"}


@pytest.mark.parametrize(
    ("cells", "below", "rule"),
    [
        ([str(1990 + row % 30) for row in range(400)], 2000, r"year 1999 or less"),
        ([f"{(row % 50) / 8}" for row in range(400)], 2.0, r"year at most 1\.9375"),
        ([f"{2 * MAX_WHOLE + row % 50}.0" for row in range(400)], 2 * MAX_WHOLE + 20, r"year at most 3\.35544e\+07"),
    ],
    ids=["whole", "any", "large"],
)
def test_a_column_of_numbers_divides_by_threshold(cells: list[str], below: float, rule: str) -> None:
    worst = find_by_column("year", cells, np.array([float(cell) < below for cell in cells]))
    assert re.fullmatch(rule, worst.rule) and worst.p_value < 1e-6


@pytest.mark.parametrize("odd", ["", "x", "nan", "inf", "1e300"])
def test_a_column_of_many_values_with_one_that_is_no_number_is_left_out(odd: str) -> None:
    cells = [odd, *(str(row % 100) for row in range(399))]
    alike, scores = (
        np.ones(400, dtype=np.int64),
        np.array([0.2] + [0.2 if row % 100 < 50 else 0.8 for row in range(399)]),
    )
    assert find_slices(make_queries(scores, alike > 0, alike, {"year": cells})) == []


def test_noise_makes_no_sure_slice(traits: tuple[np.random.Generator, np.ndarray, np.ndarray]) -> None:
    rng, has_label, lengths = traits
    sure = sum(
        any(part.p_value < 0.05 for part in find_slices(make_queries(rng.random(400), has_label, lengths)))
        for _ in range(20)
    )
    assert sure <= 3, "of twenty data sets, one is expected"


def test_too_few_items_and_items_that_are_all_the_same(
    traits: tuple[np.random.Generator, np.ndarray, np.ndarray],
) -> None:
    rng, has_label, lengths = traits
    assert find_slices(make_queries(rng.random(400)[:39], has_label[:39], lengths[:39])) == []
    assert find_slices(make_queries(np.full(400, 0.5), has_label, lengths)) == []

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


def find_by_column(name: str, cells: Sequence[str], scores: np.ndarray) -> list[FoundSlice]:
    """The slices where items are alike but for a column."""
    alike = np.ones(len(cells), dtype=np.int64)
    return find_slices(make_queries(scores, alike > 0, alike, {"same": ["x"] * len(cells), name: cells}))


@pytest.mark.parametrize("bad", ["night", "dawn, early", ""])
def test_a_slice_by_a_value_of_a_column_is_found_and_named(bad: str) -> None:
    cells = [("night", "dawn, early", "")[row % 3] if row % 40 else "rare" for row in range(400)]
    is_bad = np.array([cell == bad for cell in cells])
    noise = 0.05 * np.random.default_rng(1).normal(size=400)
    worst = find_by_column("camera", cells, np.where(is_bad, 0.3, 0.8) + noise)[0]
    assert worst.rule == f"camera = “{bad}”"
    assert is_bad[list(worst.items)].all() and abs(len(worst.items) - is_bad.sum() / 2) < 15
    assert abs(worst.mean - 0.3) < 0.02 and abs(worst.rest - 0.8) < 0.02 and worst.p_value < 1e-6


def test_what_a_value_rules_out_is_not_said_again() -> None:
    cells = [("day", "night", "dawn", "dusk")[row % 4] for row in range(400)]
    scores = np.select([np.array(cells) == "day", np.array(cells) == "night"], [0.75, 0.25], 0.5)
    rules = [part.rule for part in find_by_column("camera", cells, scores)]
    assert rules[0] == "camera = “night”" and rules[-1] == "camera = “day”"
    assert set(rules[1].split(", ")) == {"camera other than “night”", "camera other than “day”"}


@pytest.mark.parametrize(
    ("cells", "low", "high", "rule"),
    [
        ([str(1990 + row % 30) for row in range(400)], 0, 1999, "year 1999 or less"),
        ([f"{1990 + row % 30}.0" for row in range(400)], 2011, 2020, "year 2011 or more"),
        ([str(-1e3 * (row % 50)) for row in range(400)], -30e3, -10e3, "year -30499 to -9500"),
        ([str((row % 50) / 8) for row in range(400)], 0, 2.0, "year at most 2.0625"),
        ([str((row % 50) / 8) for row in range(400)], 2.0, 4.0, "year above 1.9375 and at most 4.0625"),
        (
            [str(2 * MAX_WHOLE + 64 * (row % 50)) for row in range(400)],
            2 * MAX_WHOLE + 640,
            1e9,
            "year above 3.3555e+07",
        ),
    ],
)
def test_a_column_of_numbers_divides_by_threshold(cells: list[str], low: float, high: float, rule: str) -> None:
    is_bad = np.array([low <= float(cell) <= high for cell in cells])
    worst = find_by_column("year", cells, np.where(is_bad, 0.25, 0.75))[0]
    assert worst.rule == rule and is_bad[list(worst.items)].all() and worst.mean == 0.25


@pytest.mark.parametrize("odd", ["", "x", "nan", "inf", "1e300"])
def test_a_column_of_many_values_with_one_that_is_no_number_is_left_out(odd: str) -> None:
    cells = [str(row % 100) for row in range(400)]
    scores = np.array([0.25 if row % 100 < 50 else 0.75 for row in range(400)])
    assert find_by_column("year", cells, scores)
    assert find_by_column("year", [odd, *cells[1:]], scores) == []


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

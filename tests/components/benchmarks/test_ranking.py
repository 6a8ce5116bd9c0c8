"""`dagnn bench map`: the ways that it compares find the same MAP."""

from components.benchmarks import ranking


def test_all_ways_find_the_same_map() -> None:
    figures = ranking.run(num_items=60, dim=8, repeats=2)
    differences = [value for name, value in figures.items() if name.endswith("largest difference of MAP")]
    assert len(differences) == 4 and max(differences) < 1e-3  # float32 rounds cosines that nearly tie
    assert all(value >= 0 for value in figures.values())
    assert figures["dagnn, all metrics: seconds, shortest"] <= figures["dagnn, all metrics: seconds, median"]


def test_larger_and_larger_galleries_are_timed() -> None:
    rows = ranking.run_sizes(sizes=[40, 80], dims=[8])
    assert [(row["pairs"], row["dimensions"]) for row in rows] == [(40, 8), (80, 8)]
    for row in rows:
        assert row["CPU nanoseconds a cosine"] == row["CPU seconds"] / (2 * row["pairs"] ** 2) * 1e9 > 0

"""Two logs side by side."""

from components.services.watching.lines import LoggedQuery
from components.services.watching.two_logs import compare_logs


def query(request: str, relevant: bool | None, *ids: str, milliseconds: float = 1.0) -> LoggedQuery:
    return LoggedQuery.model_validate(
        {
            "time": "2026-11-01T10:00:00+00:00",
            "kind": "text",
            "target": "image",
            "milliseconds": milliseconds,
            "model": {"name": "dagnn", "version": "1", "digest": "d"},
            "request": request,
            "relevant": relevant,
            "hits": tuple({"id": item, "score": 0.5} for item in ids),
        }
    )


def test_queries_of_the_same_request_are_pairs() -> None:
    one = [query("r1", True, "a", "b"), query("r2", True, "a", "b"), query("r3", False), query("only one", True, "x")]
    other = [query("r2", False, "b", "c"), query("r1", True, "a", "b"), query("r3", False), query("", True)]
    found = compare_logs(one, other)
    pairs = found.pairs
    assert (pairs.number, pairs.same_first, pairs.lost, pairs.gained) == (3, 2, 1, 0)
    assert pairs.overlap == 1 + 0.5 + 1, "two of two, one of two, and both without a result"
    assert (found.one.queries, found.other.queries) == (4, 4)
    assert found.p_value == 1.0 and not found.is_worse, "one query says nothing"


def test_a_challenger_that_loses_queries_is_worse_and_one_that_gains_them_is_not() -> None:
    good = [query(f"r{number}", True, "a") for number in range(100)]
    bad = [query(f"r{number}", number >= 15, "a") for number in range(100)]
    worse, better = compare_logs(good, bad), compare_logs(bad, good)
    assert worse.pairs.lost == better.pairs.gained == 15
    assert worse.is_worse and not better.is_worse
    assert worse.p_value == better.p_value == 2 * 0.5**15, "McNemar's exact test"


def test_of_shared_traffic_the_shares_are_compared() -> None:
    one = [query(f"a{number}", number >= 10) for number in range(200)]
    other = [query(f"b{number}", number >= 60) for number in range(200)]
    found = compare_logs(one, other)
    assert found.pairs.number == 0 and found.is_worse
    assert not compare_logs(other, one).is_worse
    unsure = compare_logs(one, [query("c", False), query("d", True)])
    assert not unsure.is_worse and unsure.p_value > 0.05
    assert not compare_logs([query("e", None)], [query("f", None)]).is_worse, "models that say nothing of relevance"

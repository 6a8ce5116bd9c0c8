"""The gate's rule: a table of what each fault does, and what holds for any evidence."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.services.promotion.gate import (
    Check,
    Comparison,
    Evidence,
    Files,
    LoadTest,
    NotApplicable,
    Origin,
    Unmeasured,
    decide,
    judge,
    judge_floors,
)
from dagnn_core.config.register import GateConfig, RegisterConfig
from dagnn_core.config.section import parse_section, section_json
from dagnn_core.data_check.findings import Finding
from dagnn_core.errors import InputError
from dagnn_core.retrieval.bootstrap import Difference

CONFIG = GateConfig(
    min_map_i2t=0.5, min_map_t2i=0.4, max_drop_i2t=0.01, max_drop_t2i=0.02, max_slice_drop=0.05, max_latency_ms=100.0
)
BETTER = Difference(0.01, 0.005, 0.015)


def finding(name, value, limit, verdict):
    return Finding(name=name, value=value, limit=limit, verdict=verdict, explanation="of the data", examples=("a = b",))


GOOD = Evidence(
    origin=Origin((), "c0ffee", uncommitted=(), lock="dvc.lock of commit c0ffee lists this model"),
    metrics={"map_i2t": 0.7, "map_t2i": 0.6, "map_mean": 0.65},
    comparison=Comparison(
        {"map_i2t": 0.69, "map_t2i": 0.59, "map_mean": 0.64},
        {"i2t": BETTER, "t2i": BETTER},
        {"rare_labels": BETTER, "short_texts": BETTER},
    ),
    load_test=LoadTest(1e-7, 5.0, 9.0, 400.0),
    files=Files((), "a card", "CC BY 4.0"),
    findings=[finding("leaked_texts", 0.0, 0.1, "ok"), finding("rare_labels", 3, 0, "warning")],
)
LOST = Unmeasured("no such thing")


def compared(**parts):
    directions = {key: parts.get(key, BETTER) for key in ("i2t", "t2i")}
    slices = {key: parts.get(key, BETTER) for key in ("rare_labels", "short_texts")}
    return GOOD.comparison._replace(directions=directions, slices=slices)


def drop(size):
    """A difference of which the lower bound is a drop of this size."""
    return Difference(0.0, -size, 0.1)


DROPS = ("drop_i2t", "drop_t2i", "drop_rare_labels", "drop_short_texts")
SERVED = ("served_difference", "latency_p95_ms", "peak_memory_mib")
FLOORS = ("map_i2t", "map_t2i")
TABLE = [
    ({}, ()),
    ({"origin": GOOD.origin._replace(missing=("report_digest",))}, ("lineage",)),
    ({"origin": GOOD.origin._replace(uncommitted=("dataset",))}, ("committed",)),
    ({"origin": GOOD.origin._replace(lock=LOST)}, ("dvc_lock",)),
    ({"metrics": {"map_i2t": 0.5, "map_t2i": 0.4, "map_mean": 0.45}}, ()),
    ({"metrics": {"map_i2t": 0.4999, "map_t2i": 0.6, "map_mean": 0.55}}, ("map_i2t",)),
    ({"metrics": {"map_i2t": 0.7, "map_t2i": 0.3999, "map_mean": 0.55}}, ("map_t2i",)),
    ({"metrics": {"map_i2t": math.nan, "map_t2i": 0.6, "map_mean": math.nan}}, ("map_i2t",)),
    ({"metrics": LOST}, FLOORS),
    ({"comparison": NotApplicable("there is no champion yet")}, ()),
    ({"comparison": LOST}, DROPS),
    ({"comparison": compared(i2t=drop(0.01), t2i=drop(0.02))}, ()),
    ({"comparison": compared(i2t=drop(0.0101))}, ("drop_i2t",)),
    ({"comparison": compared(t2i=drop(0.0201))}, ("drop_t2i",)),
    ({"comparison": compared(i2t=Difference(0.3, -0.011, 0.6))}, ("drop_i2t",)),  # better in the mean, by chance
    ({"comparison": compared(rare_labels=drop(0.05), short_texts=NotApplicable("precomputed vectors"))}, ()),
    ({"comparison": compared(rare_labels=drop(0.051))}, ("drop_rare_labels",)),
    ({"comparison": compared(short_texts=drop(0.051))}, ("drop_short_texts",)),
    ({"load_test": GOOD.load_test._replace(served_difference=1e-5)}, ()),
    ({"load_test": GOOD.load_test._replace(served_difference=1.1e-5)}, ("served_difference",)),
    ({"load_test": GOOD.load_test._replace(served_difference=math.nan)}, ("served_difference",)),
    ({"load_test": GOOD.load_test._replace(served_difference=math.inf)}, ("served_difference",)),
    ({"load_test": GOOD.load_test._replace(latency_p95_ms=100.1)}, ("latency_p95_ms",)),
    ({"load_test": GOOD.load_test._replace(peak_memory_mib=5000.0)}, ("peak_memory_mib",)),
    ({"load_test": LOST}, SERVED),
    ({"files": GOOD.files._replace(pickled=("weights.pt",))}, ("pickled_files",)),
    ({"files": GOOD.files._replace(card=" \n")}, ("card",)),
    ({"files": GOOD.files._replace(data_licence="")}, ("data_licence",)),
    ({"findings": [finding("leaked_images", 0.5, 0.01, "failed")]}, ("leaked_images",)),
    ({"findings": [finding("leaked_texts", 0.5, 0.1, "warning")]}, ()),
    ({"findings": [finding("undecodable_images", 1, 0, "failed")]}, ("undecodable_images",)),
    ({"findings": LOST}, ("data_check",)),
]


@pytest.mark.parametrize(("changes", "failures"), TABLE)
def test_table(changes, failures):
    checks, metrics = judge(replace(GOOD, **changes), CONFIG, allow_dirty=False)
    assert tuple(check.name for check in checks if check.verdict == "failed") == failures
    decision = decide(checks)
    assert decision.accepted is not bool(failures)
    assert all(name in decision.reason for name in failures)
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize(("changes", "failures"), TABLE)
def test_allowing_uncommitted_code_allows_nothing_else(changes, failures):
    checks, _ = judge(replace(GOOD, **changes), CONFIG, allow_dirty=True)
    failed = tuple(check.name for check in checks if check.verdict == "failed")
    assert failed == tuple(name for name in failures if name not in ("committed", "dvc_lock"))
    allowed = [check.name for check in checks if check.verdict == "allowed"]
    assert allowed == [name for name in failures if name in ("committed", "dvc_lock")]
    assert ("allowed by --allow-dirty" in decide(checks).reason) is bool(allowed)


def test_checks_are_the_same_whatever_they_find():
    names = [check.name for check in judge(GOOD, CONFIG, allow_dirty=False).checks]
    assert len(set(names)) == len(names)
    for changes, _ in TABLE:
        if "findings" not in changes:
            checks, _ = judge(replace(GOOD, **changes), CONFIG, allow_dirty=False)
            assert [check.name for check in checks] == names
            assert all(check.explanation for check in checks)


def test_metrics_name_the_champion_too():
    metrics = judge(GOOD, CONFIG, allow_dirty=False).metrics
    assert (metrics["map_mean"], metrics["champion_map_mean"]) == (0.65, 0.64)
    assert (metrics["latency_p50_ms"], metrics["latency_p95_ms"]) == (5.0, 9.0)
    assert metrics["drop_i2t"] == -0.005
    assert len(json.dumps(dict(metrics))) < 2000


def test_reason_of_a_decision():
    assert decide(judge(GOOD, CONFIG, allow_dirty=False).checks) == (
        True,
        "16 of 16 checks passed; dvc.lock of commit c0ffee lists this model",
    )
    first = judge(replace(GOOD, comparison=NotApplicable("none")), CONFIG, allow_dirty=False)
    assert decide(first.checks).reason.startswith("12 of 16 checks passed, 4 not applicable; ")
    warned = judge(replace(GOOD, findings=[finding("leaked_texts", 0.5, 0.1, "warning")]), CONFIG, allow_dirty=False)
    assert decide(warned.checks).reason.startswith("15 of 16 checks passed, 1 with a warning; ")
    assert [check.name for check in warned.checks if check.verdict == "warning"] == ["leaked_texts"]
    lost = judge(replace(GOOD, comparison=LOST), CONFIG, allow_dirty=False)
    assert decide(lost.checks).reason == f"4 of 16 checks failed: {', '.join(DROPS)}: no such thing"


@given(st.lists(st.text(), max_size=40))
def test_reason_is_bounded(explanations):
    checks = [Check(f"check_{n}", "failed", None, None, words * 300) for n, words in enumerate(explanations)]
    decision = decide(checks)
    assert decision.accepted is not bool(checks)
    assert len(decision.reason) < 2000 + 12 * len(checks)


finite = st.floats(0, 1)
differences = st.builds(Difference, st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))
parts = st.one_of(differences, st.just(NotApplicable("none")))
comparisons = st.one_of(
    st.just(LOST),
    st.just(NotApplicable("no champion")),
    st.builds(
        Comparison,
        st.fixed_dictionaries(dict.fromkeys(("map_i2t", "map_t2i", "map_mean"), finite)),
        st.fixed_dictionaries({"i2t": differences, "t2i": differences}),
        st.fixed_dictionaries({"rare_labels": parts, "short_texts": parts}),
    ),
)
evidence = st.builds(
    Evidence,
    origin=st.builds(
        Origin,
        st.lists(st.sampled_from(["report_digest"])),
        st.just("c0"),
        uncommitted=st.lists(st.just("dataset")),
        lock=st.one_of(st.just("lock"), st.just(LOST)),
    ),
    metrics=st.one_of(st.just(LOST), st.fixed_dictionaries(dict.fromkeys(("map_i2t", "map_t2i", "map_mean"), finite))),
    comparison=comparisons,
    load_test=st.one_of(
        st.just(LOST), st.builds(LoadTest, *(st.floats(0, 1e4, allow_nan=False) for _ in LoadTest._fields))
    ),
    files=st.builds(Files, st.lists(st.text()), st.text(), st.text()),
    findings=st.one_of(
        st.just(LOST),
        st.lists(
            st.builds(finding, st.just("leaked_images"), finite, finite, st.sampled_from(["ok", "warning", "failed"]))
        ),
    ),
)


@given(evidence, st.booleans())
def test_accepted_only_where_all_was_measured_and_is_within_its_limits(found, allow_dirty):
    checks, _ = judge(found, CONFIG, allow_dirty=allow_dirty)
    accepted = decide(checks).accepted
    holds = (
        not found.origin.missing
        and (allow_dirty or not (found.origin.uncommitted or found.origin.lock == LOST))
        and LOST not in (found.metrics, found.comparison, found.load_test, found.findings)
        and found.metrics["map_i2t"] >= 0.5
        and found.metrics["map_t2i"] >= 0.4
        and found.load_test.served_difference <= 1e-5
        and found.load_test.latency_p95_ms <= 100
        and found.load_test.peak_memory_mib <= 4096
        and not found.files.pickled
        and bool(found.files.card.strip())
        and bool(found.files.data_licence.strip())
        and all(one.verdict != "failed" for one in found.findings)
    )
    if holds and isinstance(found.comparison, Comparison):
        limits = {"i2t": 0.01, "t2i": 0.02, "rare_labels": 0.05, "short_texts": 0.05}
        for name, part in {**found.comparison.directions, **found.comparison.slices}.items():
            holds &= isinstance(part, NotApplicable) or -part.low <= limits[name]
    assert accepted is holds


@given(evidence, st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_looser_gate_accepts_what_a_stricter_one_does(found, drop_limit, floor):
    strict = GateConfig(max_drop_i2t=drop_limit / 2, max_slice_drop=0.1, min_map_i2t=floor)
    loose = GateConfig(max_drop_i2t=drop_limit, max_slice_drop=0.2, min_map_i2t=floor / 2)
    if decide(judge(found, strict, allow_dirty=False).checks).accepted:
        assert decide(judge(found, loose, allow_dirty=True).checks).accepted


def test_floors_of_a_report():
    assert [check.verdict for check in judge_floors({"map_i2t": 0.5}, CONFIG)] == ["passed", "failed"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_map_i2t": 1.1}, "register.gate.min_map_i2t must be between 0 and 1, got 1.1"),
        ({"max_drop_t2i": 1.0}, "register.gate.max_drop_t2i must be at least 0 and below 1, got 1.0"),
        ({"max_slice_drop": -0.1}, "register.gate.max_slice_drop must be at least 0 and below 1"),
        ({"rare_labels": 0}, "register.gate.rare_labels must be above 0 and at most 1, got 0"),
        ({"confidence": 0.5}, "register.gate.confidence must be above 0.5 and below 1, got 0.5"),
        ({"num_resamples": 10}, "register.gate.num_resamples must be >= 100, got 10"),
        ({"seed": -1}, "register.gate.seed must be >= 0"),
        ({"max_memory_mib": 0}, "register.gate.max_memory_mib must be > 0"),
        ({"tolerance": 0.1}, "unknown key register.gate.tolerance; "),
    ],
)
def test_bad_limits(values, message):
    with pytest.raises(InputError, match=message):
        parse_section(RegisterConfig, {"gate": values}, "register")


def test_limits_travel_as_json():
    config = RegisterConfig(gate=CONFIG)
    assert parse_section(RegisterConfig, json.loads(section_json(config)), "register") == config

"""The promotion gate: what was measured about a version, and the rule that judges it, which is pure.

A part of the evidence that could not be measured says why, and its checks fail. One that does not apply (there is no
champion yet, or no text in words) says so, and its checks are shown as such.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from dagnn_core.config.register import GateConfig
from dagnn_core.data_check.findings import Finding
from dagnn_core.retrieval.bootstrap import Difference
from dagnn_core.retrieval.directions import DIRECTIONS, MAP_METRICS
from dagnn_core.text import one_line

EMBEDDING_TOLERANCE = 1e-5
NUM_REASONS = 5

SLICES = {"rare_labels": "queries with a rare label", "short_texts": "short texts as queries"}

Verdict = Literal["passed", "warning", "failed", "allowed", "not applicable"]

_OTHERWISE: dict[Verdict, str] = {"warning": "with a warning", "not applicable": "not applicable"}
_VERDICTS: dict[str, Verdict] = {"ok": "passed", "warning": "warning", "failed": "failed"}  # of checks of data


class Check(NamedTuple):
    """One line of the gate: a value against its limit."""

    name: str
    verdict: Verdict
    """`warning`: beyond its limit, which may be right for these data. `allowed`: it has failed, and the user
    has accepted that (--allow-dirty)."""
    value: float | None
    limit: float | None
    explanation: str


class Decision(NamedTuple):
    """Whether a version may become champion, and why."""

    accepted: bool
    reason: str


class GateResult(NamedTuple):
    """What the gate found."""

    checks: tuple[Check, ...]
    metrics: Mapping[str, float]
    """For the record: a few dozen at most."""


class Unmeasured(NamedTuple):
    """Why something could not be measured."""

    reason: str


class NotApplicable(NamedTuple):
    """Why there is nothing to measure."""

    reason: str


class Origin(NamedTuple):
    """What a version says about where it came from."""

    missing: Sequence[str]
    """Parts of its lineage that it does not name, or names in two ways."""
    commit: str
    uncommitted: Sequence[str]
    """Its artifacts, of which the tracked files differed from the commit when they were made."""
    lock: str | Unmeasured
    """What holds the versions of its data: the commit of its `dvc.lock`, or the image that it was trained in."""


class Comparison(NamedTuple):
    """A challenger beside the champion, on the same test split; differences are challenger minus champion."""

    metrics: Mapping[str, float]
    """The champion's."""
    directions: Mapping[str, Difference]
    """Of MAP, by direction."""
    slices: Mapping[str, Difference | NotApplicable]


class LoadTest(NamedTuple):
    """A version in a process of its own, as the program that serves it gets it."""

    served_difference: float
    """Largest difference of an embedding from the one computed here, in parts of its length where that is above 1."""
    latency_p50_ms: float
    latency_p95_ms: float
    peak_memory_mib: float


class Files(NamedTuple):
    """What comes with a version."""

    pickled: Sequence[str]
    """Files that hold pickled objects."""
    card: str
    data_licence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All that was measured about a version."""

    origin: Origin
    metrics: Mapping[str, float] | Unmeasured
    """Of the test split, measured again."""
    comparison: Comparison | NotApplicable | Unmeasured
    load_test: LoadTest | Unmeasured
    files: Files
    findings: Sequence[Finding] | Unmeasured
    """Of the data set's checks."""


def judge(evidence: Evidence, config: GateConfig, *, allow_dirty: bool) -> GateResult:
    """Hold everything that was measured about a version against the limits.

    Args:
        evidence: what was measured.
        config: the limits.
        allow_dirty: accept code or parameters that were not committed, and a `dvc.lock` that is in no commit.
    """
    checks = (
        *_judge_origin(evidence.origin, allow_dirty=allow_dirty),
        *judge_floors(evidence.metrics, config),
        *_judge_comparison(evidence.comparison, config),
        *_judge_load_test(evidence.load_test, config),
        *_judge_files(evidence.files),
        *_judge_data(evidence.findings),
    )
    metrics = {check.name: check.value for check in checks if check.value is not None}
    for prefix, source in (("", evidence.metrics), ("champion_", evidence.comparison)):
        values = source.metrics if isinstance(source, Comparison) else source
        if isinstance(values, Mapping):
            metrics |= {f"{prefix}{name}": values[name] for name in MAP_METRICS}
    if isinstance(evidence.load_test, LoadTest):
        metrics["latency_p50_ms"] = evidence.load_test.latency_p50_ms
    return GateResult(checks, {name: value for name, value in metrics.items() if math.isfinite(value)})


def judge_floors(metrics: Mapping[str, float] | Unmeasured, config: GateConfig) -> tuple[Check, ...]:
    """Hold the metrics of a test split against the floors, without which a model is not even registered."""
    checks = []
    for direction, words in DIRECTIONS.items():
        name, floor = f"map_{direction}", getattr(config, f"min_map_{direction}")
        if isinstance(metrics, Unmeasured):
            checks.append(Check(name, "failed", None, floor, metrics.reason))
            continue
        value = metrics.get(name, math.nan)
        explanation = f"MAP of the test split, {words}; below register.gate.min_{name}, train a better model"
        checks.append(Check(name, "passed" if value >= floor else "failed", value, floor, explanation))
    return tuple(checks)


def decide(checks: Sequence[Check]) -> Decision:
    """Accept when no check has failed."""
    failed = [check for check in checks if check.verdict == "failed"]
    if failed:
        return Decision(False, f"{len(failed)} of {len(checks)} checks failed: {_reasons(failed)}")
    allowed = [check for check in checks if check.verdict == "allowed"]
    counts = Counter(check.verdict for check in checks)
    parts = [f"{counts['passed']} of {len(checks)} checks passed"]
    parts += [f"{counts[verdict]} {word}" for verdict, word in _OTHERWISE.items() if counts[verdict]]
    locks = [check.explanation for check in checks if check.name == "dvc_lock" and check.verdict == "passed"]
    reason = "; ".join([", ".join(parts), *locks])
    return Decision(True, f"{reason}; allowed by --allow-dirty: {_reasons(allowed)}" if allowed else reason)


def _reasons(checks: Sequence[Check]) -> str:
    """The explanations, each once with the checks that it is about."""
    by_reason: dict[str, list[str]] = {}
    for check in checks:
        by_reason.setdefault(_shown(check), []).append(check.name)
    shown = [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]
    more = len(shown) - NUM_REASONS
    return "; ".join(shown[:NUM_REASONS]) + (f"; and {more} more" if more > 0 else "")


def _shown(check: Check) -> str:
    values = "" if check.value is None else f"{check.value:.4g} against {check.limit:.4g}, "
    return one_line(values + check.explanation)


def _at_most(name: str, value: float, limit: float, explanation: str) -> Check:
    return Check(name, "passed" if value <= limit else "failed", value, limit, explanation)  # NaN fails


def _judge_origin(origin: Origin, *, allow_dirty: bool) -> Iterable[Check]:
    lost = f"missing: {', '.join(origin.missing)}; register the model again" if origin.missing else "nothing is missing"
    yield _at_most("lineage", len(origin.missing), 0, f"parts of its lineage that the version does not name; {lost}")
    otherwise: Verdict = "allowed" if allow_dirty else "failed"
    yield Check(
        "committed",
        otherwise if origin.uncommitted else "passed",
        None,
        None,
        f"code or params.yaml differed from the commit when these were made: {', '.join(origin.uncommitted)}; commit, "
        "and rebuild them"
        if origin.uncommitted
        else f"code and params.yaml as in commit {origin.commit[:12]}",
    )
    if isinstance(origin.lock, Unmeasured):
        yield Check("dvc_lock", otherwise, None, None, origin.lock.reason)
    else:
        yield Check("dvc_lock", "passed", None, None, origin.lock)


def _judge_comparison(comparison: Comparison | NotApplicable | Unmeasured, config: GateConfig) -> Iterable[Check]:
    limits = {
        "drop_i2t": config.max_drop_i2t,
        "drop_t2i": config.max_drop_t2i,
        **{f"drop_{name}": config.max_slice_drop for name in SLICES},
    }
    if not isinstance(comparison, Comparison):
        verdict: Verdict = "failed" if isinstance(comparison, Unmeasured) else "not applicable"
        for name, limit in limits.items():
            yield Check(name, verdict, None, limit, comparison.reason)
        return
    parts = {**comparison.directions, **comparison.slices}
    for key, words in {**DIRECTIONS, **SLICES}.items():
        name, part = f"drop_{key}", parts[key]
        if isinstance(part, NotApplicable):
            yield Check(name, "not applicable", None, limits[name], part.reason)
            continue
        yield _at_most(
            name,
            0.0 - part.low,
            limits[name],
            f"drop of MAP below the champion's, {words}: at most this with {config.confidence:.0%} confidence "
            f"(difference {part.mean:+.4f}); train a better model, or collect more test items where the bound is wide",
        )


def _judge_load_test(measured: LoadTest | Unmeasured, config: GateConfig) -> Iterable[Check]:
    smaller = "choose a smaller encoder, or raise it"
    limits = {
        "served_difference": (EMBEDDING_TOLERANCE, "largest difference of embeddings in {}; register the model again"),
        "latency_p95_ms": (config.max_latency_ms, f"register.gate.max_latency_ms, one query in {{}}; {smaller}"),
        "peak_memory_mib": (config.max_memory_mib, f"register.gate.max_memory_mib, of {{}}; {smaller}"),
    }
    for name, (limit, explanation) in limits.items():
        if isinstance(measured, Unmeasured):
            yield Check(name, "failed", None, limit, measured.reason)
        else:
            process = "a fresh process that has the version's own code alone"
            yield _at_most(name, getattr(measured, name), limit, explanation.format(process))


def _judge_files(files: Files) -> Iterable[Check]:
    named = f": {', '.join(files.pickled[:3])}" if files.pickled else ""
    yield _at_most("pickled_files", len(files.pickled), 0, f"files with pickled objects{named}; register it again")
    for name, text, remedy in (
        ("card", files.card, "the version has no description; register it again"),
        ("data_licence", files.data_licence, "no tag data_licence; set register.data_licence and register it again"),
    ):
        is_there = bool(text.strip())
        yield Check(name, "passed" if is_there else "failed", None, None, "present" if is_there else remedy)


def _judge_data(findings: Sequence[Finding] | Unmeasured) -> Iterable[Check]:
    """All checks of leaks between the splits, and of the others those that have failed."""
    if isinstance(findings, Unmeasured):
        yield Check("data_check", "failed", None, None, findings.reason)
        return
    for finding in findings:
        if finding.verdict == "failed" or finding.name.startswith("leaked_"):
            examples = f" ({'; '.join(finding.examples)})" if finding.examples else ""
            yield Check(
                finding.name,
                _VERDICTS[finding.verdict],
                finding.value,
                finding.limit,
                f"{finding.explanation}{examples}",
            )

"""`dagnn watch`: what the log of queries says."""

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.locations import MODELS
from dagnn_core.errors import CheckFailedError, InputError
from dagnn_core.text import cell
from pipeline.cli.cluster import Json

if TYPE_CHECKING:
    from components.services.watching.lines import Damage
    from components.services.watching.summary import Counts, LogSummary
    from components.services.watching.two_logs import TwoLogs
    from dagnn_core.data.dataset import Dataset
    from dagnn_core.data_check.findings import Finding
    from dagnn_core.data_check.queries import QueryLimits
    from dagnn_core.model.embedder import TrainedModel

WIDTH = 100  # columns of a table


def watch(
    logs: Annotated[
        list[Path], typer.Argument(metavar="LOG...", help="query log of `dagnn serve`, with what logrotate made of it")
    ],
    *,
    against: Annotated[
        str, typer.Option(metavar="NAME@ALIAS", help="version whose queries are looked at, as dagnn@champion")
    ] = "",
    dataset: Annotated[
        Path | None, typer.Option(help="data set of that version; default: artifacts/dataset, else fetched by DVC")
    ] = None,
    days: Annotated[float, typer.Option(min=0, help="queries of the last days alone; 0: all")] = 0,
    max_nothing_relevant: Annotated[
        float, typer.Option(min=0, max=1, help="largest share of queries with nothing relevant")
    ] = 0.2,
    max_unknown_words: Annotated[
        float, typer.Option(min=0, max=1, help="largest share of words that the model does not know")
    ] = 0.1,
    max_unseen_words: Annotated[
        float, typer.Option(min=0, max=1, help="largest share of words that the data lacks, beyond the expected")
    ] = 0.1,
    max_label_shift: Annotated[
        float, typer.Option(min=0, max=1, help="largest Kolmogorov-Smirnov distance of a label's probability")
    ] = 0.4,
    max_embedding_shift: Annotated[
        float, typer.Option(min=0, max=1, help="largest Kolmogorov-Smirnov distance of a dimension of the embeddings")
    ] = 0.4,
    max_latency_ms: Annotated[float, typer.Option(min=0, help="largest latency, 95th percentile")] = 500.0,
    html: Annotated[Path | None, typer.Option(help="write a page with the trend there")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="a second log, as of a challenger or a shadow, beside this one")
    ] = None,
    as_json: Json = False,
) -> None:
    """Summarise a log of queries: nothing relevant, unknown words, latency, trend, and drift from a version's data.

    Exit status 1 beyond a limit, or when --compare finds the second log significantly worse. A damaged line is counted
    and named, and nothing more.
    """
    from components.services.watching.lines import Damage, read_queries
    from components.services.watching.summary import LogSummary
    from dagnn_core.data_check.queries import QueryLimits

    damage, since = Damage(), datetime.now(UTC) - timedelta(days=days) if days else None
    if compare is not None:
        if against or html or dataset:
            raise InputError("--compare looks at two logs alone", "leave out --against, --dataset and --html")
        _compare(logs, compare, damage, since, as_json=as_json)
        return
    limits = QueryLimits(
        nothing_relevant=max_nothing_relevant,
        unknown_words=max_unknown_words,
        unseen_words=max_unseen_words,
        label_shift=max_label_shift,
        embedding_shift=max_embedding_shift,
        latency_p95_ms=max_latency_ms,
    )
    reference = _open(against, dataset) if against else None
    digest = reference[0].artifact.content_digest if reference else ""
    summary = LogSummary(read_queries(logs, damage, since=since), digest)
    if not summary.total.queries:
        raise _no_queries(logs, against, summary, damage)
    findings = summary.check(limits)
    if reference:
        findings += summary.check_against(*reference, limits)
    facts = _facts(logs, against, summary, damage)
    if html is not None:
        _write_page(html, facts, findings, summary, limits)
    if as_json:
        answer = {"log": facts, "findings": [asdict(finding) for finding in findings], "trend": _trend(summary)}
        typer.echo(json.dumps(answer, ensure_ascii=False, allow_nan=False))
    else:
        for line in _lines(facts, findings):
            typer.echo(line)
    failed = [finding.name for finding in findings if finding.verdict == "failed"]
    if failed:
        raise CheckFailedError(f"{', '.join(map(str, logs))}: beyond the limit: {', '.join(failed)}")


def _open(against: str, dataset: Path | None) -> "tuple[TrainedModel, Dataset]":
    """The model that has answered, and the data that it was trained on."""
    from components.services.data_versions.layout import folder_digest
    from components.services.data_versions.lock_history import find_commit
    from components.services.lineage.tree import parse_reference
    from components.services.promotion.datasets import find_dataset
    from components.services.serving.models import PREFIX, fetch_model
    from components.services.tracking.mlflow import Tracking
    from dagnn_core.model.embedder import TrainedModel

    reference = parse_reference(against)
    model = TrainedModel.read(fetch_model(f"{PREFIX}{reference}", Tracking.from_environment(), MODELS), verify=True)
    commit = find_commit(Path(), folder_digest(model.artifact.path))
    return model, find_dataset(model.artifact, str(reference), named=dataset, commit=commit)


def _no_queries(logs: Sequence[Path], against: str, summary: "LogSummary", damage: "Damage") -> InputError:
    names = ", ".join(map(str, logs))
    if summary.others:
        known = ", ".join(f"{count:,} of {name}" for name, count in summary.others.most_common(3))
        return InputError(f"{names} has no query that {against} has answered ({known})", "name one of these")
    said = f" ({damage.num_lines:,} damaged lines, such as {damage.examples[0]})" if damage.num_lines else ""
    return InputError(f"{names} has no queries{said}", "check the path, and --days")


def _facts(logs: Sequence[Path], against: str, summary: "LogSummary", damage: "Damage") -> dict[str, Any]:
    latency = {f"{name}_ms": round(value, 3) for name, value in summary.total.latency().items()}
    facts: dict[str, Any] = {"log": [str(path) for path in logs], "queries": summary.total.queries, **latency}
    if against:
        facts |= {"against": against, "queries_of_others": dict(summary.others)}
    facts |= {"models": dict(summary.total.models), "damaged_lines": damage.num_lines, "damaged": damage.examples}
    return facts


def _lines(facts: Mapping[str, Any], findings: "Sequence[Finding]") -> Iterator[str]:
    for name, value in facts.items():
        if value or name in ("queries", "damaged_lines"):
            yield cell(f"{name:<18} {_words(value)}")
    width = max(len(finding.name) for finding in findings)
    yield ""
    yield f"{'verdict':<8} {'check':<{width}} {'value':>8} {'limit':>8}"
    for finding in findings:
        yield f"{finding.verdict:<8} {finding.name:<{width}} {finding.value:>8.4g} {finding.limit:>8.4g}"
        if finding.verdict != "ok":
            for line in (finding.explanation, "; ".join(finding.examples)):
                yield textwrap.fill(cell(line), WIDTH, initial_indent=" " * 9, subsequent_indent=" " * 9)


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {count:,}" for name, count in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _row(counts: "Counts") -> dict[str, Any]:
    return {
        "queries": counts.queries,
        "nothing_relevant": counts.irrelevant_share,
        "unknown_words": _share(counts.unknown_words, counts.words),
        **{f"{name}_ms": round(value, 3) for name, value in counts.latency().items()},
        "models": dict(counts.models),
    }


def _trend(summary: "LogSummary") -> list[dict[str, Any]]:
    return [{"time": point.time, **_row(point.counts)} for point in summary.trend()]


def _write_page(
    path: Path,
    facts: Mapping[str, Any],
    findings: "Sequence[Finding]",
    summary: "LogSummary",
    limits: "QueryLimits",
) -> None:
    from dagnn_core.disk import writing
    from dagnn_core.reports.query_log.page import Series, render_page

    rows = _trend(summary)
    series = [
        Series("Queries", [row["queries"] for row in rows], None, "count"),
        Series("Nothing relevant", [row["nothing_relevant"] for row in rows], limits.nothing_relevant, "share"),
        Series("Unknown words", [row["unknown_words"] for row in rows], limits.unknown_words, "share"),
        Series("Latency, 95th percentile", [row["p95_ms"] for row in rows], limits.latency_p95_ms, "milliseconds"),
    ]
    page = render_page(
        "Queries of the search service",
        facts={name.replace("_", " "): _words(value) for name, value in facts.items() if value},
        findings=[asdict(finding) for finding in findings],
        times=[row["time"] for row in rows],
        series=series,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path):
        path.write_text(page, encoding="utf-8")


def _compare(logs: Sequence[Path], other: Path, damage: "Damage", since: datetime | None, *, as_json: bool) -> None:
    from components.services.watching.lines import read_queries
    from components.services.watching.two_logs import compare_logs

    found = compare_logs(read_queries(logs, damage, since=since), read_queries([other], damage, since=since))
    for counts, names in ((found.one, logs), (found.other, [other])):
        if not counts.queries:
            raise InputError(f"{', '.join(map(str, names))} has no queries", "check the path, and --days")
    first, second = (
        {"log": str(name), **_row(counts)} for name, counts in ((logs[0], found.one), (other, found.other))
    )
    pairs = found.pairs
    compared = {
        "pairs": pairs.number,
        "same_first": _share(pairs.same_first, pairs.number),
        "overlap": pairs.overlap / pairs.number if pairs.number else None,
        "lost": pairs.lost,
        "gained": pairs.gained,
        "p_value": found.p_value,
        "is_worse": found.is_worse,
        "damaged_lines": damage.num_lines,
        "damaged": damage.examples,
    }
    if as_json:
        typer.echo(json.dumps({"one": first, "other": second, "compared": compared}, allow_nan=False))
    else:
        for line in _compared_lines(first, second, compared, found):
            typer.echo(cell(line))
    if found.is_worse:
        raise CheckFailedError(
            f"{other} finds nothing relevant for more queries than {logs[0]} (p = {found.p_value:.2g})"
        )


def _compared_lines(
    first: Mapping[str, Any], second: Mapping[str, Any], compared: Mapping[str, Any], found: "TwoLogs"
) -> Iterator[str]:
    names = [str(side["log"]) for side in (first, second)]
    widths = [max(14, len(name)) for name in names]
    for key in first:
        cells = (f"{_cell_of(key, side[key]):>{width}}" for side, width in zip((first, second), widths, strict=True))
        yield f"{key:<17} " + "  ".join(cells)
    yield ""
    if found.pairs.number:
        yield (
            f"{compared['pairs']:,} requests are in both: the same first result for {compared['same_first']:.1%}, "
            f"{compared['overlap']:.1%} of the results in common"
        )
        yield (
            f"something relevant in the first alone for {compared['lost']:,}, in the second alone for "
            f"{compared['gained']:,} (p = {compared['p_value']:.2g})"
        )
    else:
        yield f"no request is in both; difference of the shares with nothing relevant: p = {compared['p_value']:.2g}"
    if compared["damaged_lines"]:
        yield f"{compared['damaged_lines']:,} damaged lines, such as {compared['damaged'][0]}"


def _cell_of(key: str, value: object) -> str:
    if value is None:
        return "-"
    if key in ("nothing_relevant", "unknown_words"):
        return f"{value:.1%}"
    return _words(value)

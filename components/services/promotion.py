"""Who is champion: the rule that decides about a challenger, and the moves of the alias `champion` with their audit."""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from components.services.ledger import SUFFIX, Action, Entry, Ledger, Position, Record, State, fold, lost_to
from components.services.registry import CHALLENGER, CHAMPION, METRICS, check_name, find_registered_model
from components.services.stored_model import find_fault
from components.services.tracking import Tracking
from dagnn_core.errors import CheckRefusedError, InputError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

ROUNDING = 1e-9  # two equal figures may differ by this after a way through text
MAX_WHY = 1000  # characters


class Scores(NamedTuple):
    """What a version reached, and on which data."""

    version: str
    dataset_digest: str
    """Content digest of the data set whose test split gave the figures; empty where it is unknown."""
    map_i2t: float | None
    map_t2i: float | None
    map_mean: float | None


class Decision(NamedTuple):
    """Whether a challenger may become champion, and why."""

    accepted: bool
    reason: str


class Promotion(NamedTuple):
    """The outcome of a promotion: who stood against whom, and the decision, which has been carried out."""

    name: str
    challenger: Scores
    champion: Scores | None
    decision: Decision


class Rollback(NamedTuple):
    """The outcome of a rollback: the champion now, and the one before it."""

    name: str
    champion: str
    replaced: str | None


class Event(NamedTuple):
    """A line of a model's history."""

    entry: int
    when: datetime
    who: str
    what: str
    """`promoted`, `rolled back`, `adopted` or `refused`."""
    source: str | None
    """The champion at that time."""
    target: str | None
    """The version that the event is about."""
    figures: Mapping[str, float]
    why: str


class History(NamedTuple):
    """What has happened to a model's champion, in order, and what there is to say about it."""

    name: str
    champion: str | None
    events: tuple[Event, ...]
    remarks: tuple[str, ...]


def decide(challenger: Scores, champion: Scores | None, tolerance: float) -> Decision:
    """Compare a challenger with the champion: accepted when it is not worse by more than `tolerance` in map_mean.

    Args:
        challenger: the version that wants to be champion.
        champion: the present champion; None where there is none.
        tolerance: the drop of map_mean that is still accepted.
    """
    if champion is not None and champion.version == challenger.version:
        return Decision(True, f"version {challenger.version} is the champion already")
    for scores in (challenger, champion):
        if scores is not None and (scores.map_mean is None or not scores.dataset_digest):
            missing = "map_mean" if scores.map_mean is None else "digest of its data set"
            return Decision(False, f"version {scores.version} has no {missing}; register it again with its report")
    assert challenger.map_mean is not None
    if champion is None:
        return Decision(True, "there is no champion yet")
    assert champion.map_mean is not None
    if champion.dataset_digest != challenger.dataset_digest:
        return Decision(
            False,
            f"versions {challenger.version} and {champion.version} were evaluated on different data sets "
            f"({challenger.dataset_digest[:12]} and {champion.dataset_digest[:12]}), so their figures cannot be "
            "compared; train both on the same data set",
        )
    change = challenger.map_mean - champion.map_mean
    figures = f"map_mean {challenger.map_mean:.4f} against the champion's {champion.map_mean:.4f}"
    if change < -tolerance - ROUNDING:
        return Decision(False, f"{figures}: a drop of {-change:.4f}, more than register.tolerance = {tolerance}")
    return Decision(True, figures)


def promote(
    tracking: Tracking,
    *,
    name: str,
    version: str | None,
    tolerance: float,
    why: str = "",
    adopt: bool = False,
    dry_run: bool = False,
) -> Promotion:
    """Decide whether a version becomes champion, and if so move the alias; either is a record of the ledger.

    Args:
        tracking: where.
        name: name of the registered model.
        version: the version; None for the one with alias `challenger`.
        tolerance: see `decide`.
        why: the user's own words, for the record.
        adopt: accept an alias that somebody has moved by hand.
        dry_run: decide only: move and record nothing.

    Raises:
        InputError: no such model, version or challenger.
        SurroundingsError: the server failed.
    """
    _check_why(why)
    with tracking.answering():
        registered, versions = _registered(tracking, name)
        if version is None and CHALLENGER not in registered.aliases:
            raise InputError(f"{name} has no version with alias {CHALLENGER}; run `dagnn register`, or give --version")
        challenger = _scores(_version(versions, name, version or str(registered.aliases[CHALLENGER])))
        ledger = _ledger(tracking, name)
        position = _position(ledger, tracking, adopt=adopt, why=why, dry_run=dry_run)
        present = position.state.champion
        champion = _scores(versions[present]) if present in versions else None
        decision = decide(challenger, champion, tolerance)
        if position.stray:
            decision = Decision(False, position.refusal)
        elif decision.accepted and (fault := ledger.fault(challenger.version)):
            decision = Decision(False, f"version {challenger.version} {fault}; register it again")
        if not dry_run and not (decision.accepted and present == challenger.version):
            record = Record(
                action=Action.PROMOTED if decision.accepted else Action.REFUSED,
                source=present,
                target=challenger.version,
                who=tracking.who,
                why=_joined(why, decision.reason),
                figures=_figures(challenger, champion),
            )
            if decision.accepted:
                refusal = ledger.move(record)
                decision = Decision(False, refusal) if refusal else decision
            else:
                ledger.append(record)
    return Promotion(name, challenger, champion, decision)


def rollback(tracking: Tracking, *, name: str, to: str | None, why: str = "", adopt: bool = False) -> Rollback:
    """Make an earlier champion champion again; where that was interrupted before, finish it.

    Args:
        tracking: where.
        name: name of the registered model.
        to: a former champion; None for the one before the present.
        why: the user's own words, for the record.
        adopt: accept an alias that somebody has moved by hand.

    Raises:
        InputError: no such model, or no such former champion.
        CheckRefusedError: the version is deleted or its files are gone, or somebody else has moved the alias.
        SurroundingsError: the server failed.
    """
    _check_why(why)
    with tracking.answering():
        _registered(tracking, name)
        ledger = _ledger(tracking, name)
        position = _position(ledger, tracking, adopt=adopt, why=why, dry_run=False)
        state, finished = position.state, position.finished
        if to is None and finished and finished.record.action is Action.ROLLED_BACK and state.champion:
            return Rollback(name, state.champion, finished.record.source)
        target = to or (state.previous[-1] if state.previous else None)
        if target is None:
            raise InputError(
                f"{name} has no champion before {_present(state)} to go back to; see `dagnn history {name}`"
            )
        if target == state.champion and not position.stray:
            return Rollback(name, target, target)
        former = sorted({str(move.record.target) for move in state.moves if move.record.target}, key=int)
        if target not in former:
            raise InputError(
                f"version {target!r} of {name} was never its champion (were: {', '.join(former) or 'none'}); "
                f"give one of these as --to, or run `dagnn promote {name} --version {target}`"
            )
        record = Record(
            action=Action.ROLLED_BACK, source=state.champion, target=target, who=tracking.who, why=_joined(why)
        )
        refusal = position.refusal if position.stray else None
        if refusal is None and (fault := ledger.fault(target)):
            refusal = f"version {target} {fault}; give another champion as --to (were: {', '.join(former)})"
        if refusal:
            ledger.append(replace(record, action=Action.REFUSED, why=_joined(why, f"no rollback: {refusal}")))
        else:
            refusal = ledger.move(record)
    if refusal:
        raise CheckRefusedError(f"{name} is not rolled back to version {target}: {refusal}")
    return Rollback(name, target, state.champion)


def read_history(tracking: Tracking, *, name: str) -> History:
    """Read the ledger of a model's champion; an alias that lags behind it is repaired where that is permitted.

    Raises:
        InputError: no such model.
        SurroundingsError: the server failed.
    """
    with tracking.answering():
        _registered(tracking, name)
        ledger = _ledger(tracking, name)
        position = _look(ledger)
        book = ledger.read()
    state = fold(book.entries)
    counted = {move.number for move in state.moves}
    events = tuple(_event(entry, state, counts=entry.number in counted) for entry in book.entries)
    remarks = [
        f"{ledger.name} version {number} is no record of this program, so it counts for nothing"
        for number in book.damaged
    ] + [f"{ledger.name} version {number} is missing: somebody has deleted a record" for number in book.missing]
    if position.stray and state.moves:
        remarks.append(position.refusal)
    elif position.stray:
        remarks.append(f"version {position.alias} became champion without a record; the next promotion adopts it")
    elif position.alias != position.state.champion:
        remarks.append(f"alias {CHAMPION} is still at {position.alias or 'no version'}; the next promotion moves it")
    return History(name, position.alias, events, tuple(remarks))


def _registered(tracking: Tracking, name: str) -> "tuple[RegisteredModel, dict[str, ModelVersion]]":
    check_name(name)
    client = tracking.client
    registered = find_registered_model(client, name)
    if registered is None:
        found = {model.name for model in client.search_registered_models()}
        names = ", ".join(sorted(found - {other + SUFFIX for other in found})) or "none"
        raise InputError(
            f"{tracking.address} has no registered model {name!r} (it has: {names}); run `dagnn register` first"
        )
    return registered, {str(found.version): found for found in client.search_model_versions(f"name = '{name}'")}


def _ledger(tracking: Tracking, name: str) -> Ledger:
    def fault(version: str) -> str | None:
        found = tracking.client.search_model_versions(f"name = '{name}' and version_number = {version}")
        return find_fault(tracking, found[0]) if found else "was deleted"

    return Ledger(client=tracking.client, model=name, alias=CHAMPION, fault=fault)


def _position(ledger: Ledger, tracking: Tracking, *, adopt: bool, why: str, dry_run: bool) -> Position:
    """Where champion and ledger stand, after adopting an alias that no record explains, where that is allowed."""
    position = ledger.look(repair=not dry_run)
    # a registry that is older than its ledger begins with the champion it has
    if position.stray is None or not (adopt or not position.state.moves):
        return position
    if dry_run:
        return Position(position.state._replace(champion=position.alias), position.alias, None)
    return ledger.adopt(position, who=tracking.who, why=_joined(why, position.stray))


def _look(ledger: Ledger) -> Position:
    from mlflow.exceptions import MlflowException

    try:
        return ledger.look()
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
        return ledger.look(repair=False)


def _event(entry: Entry, state: State, *, counts: bool) -> Event:
    record = entry.record
    lost = not counts and record.action is not Action.REFUSED
    return Event(
        entry=entry.number,
        when=entry.when,
        who=record.who,
        what=Action.REFUSED.value if lost else record.action.value,
        source=record.source,
        target=record.target,
        figures=record.figures,
        why=_joined(record.why, lost_to(entry, state) if lost else ""),
    )


def _check_why(why: str) -> None:
    if len(why) > MAX_WHY:
        raise InputError(f"--why has {len(why)} characters, expected at most {MAX_WHY}; name a page that says more")


def _joined(*reasons: str) -> str:
    return "; ".join(" ".join(reason.split()) for reason in reasons if reason.strip())


def _present(state: State) -> str:
    return f"version {state.champion}" if state.champion else "now"


def _figures(challenger: Scores, champion: Scores | None) -> dict[str, float]:
    pairs = [(metric, getattr(challenger, metric)) for metric in METRICS]
    pairs += [(f"champion_{metric}", getattr(champion, metric)) for metric in METRICS if champion]
    return {metric: value for metric, value in pairs if value is not None}


def _version(versions: "dict[str, ModelVersion]", name: str, version: str) -> "ModelVersion":
    if version not in versions:
        existing = ", ".join(sorted(versions, key=int)) or "none"
        raise InputError(f"{name} has no version {version!r} (it has: {existing}); give one of these as --version")
    return versions[version]


def _scores(version: "ModelVersion") -> Scores:
    figures = {metric: _figure(version.tags.get(metric)) for metric in METRICS}
    return Scores(version=str(version.version), dataset_digest=version.tags.get("dataset_digest", ""), **figures)


def _figure(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None

"""Who is champion: the moves of the alias `champion`, behind the gate, with their audit."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from components.services.promotion.gate import Check, Decision, GateResult, decide
from components.services.promotion.ledger import Action, Entry, Ledger, LedgerState, Position, Record, fold, lost_to
from components.services.registry.stored_model import find_fault
from components.services.registry.versions import CHALLENGER, CHAMPION, read_versions
from components.services.tracking.mlflow import Tracking
from dagnn_core.errors import CheckFailedError, InputError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

MAX_WHY = 1000  # characters


class Promotion(NamedTuple):
    """The outcome of a promotion: who stood against whom, and the decision, which has been carried out."""

    name: str
    version: str
    champion: str | None
    """The champion before."""
    checks: tuple[Check, ...]
    """None of them where the decision needed none."""
    metrics: Mapping[str, float]
    decision: Decision


Examine = Callable[["ModelVersion", "ModelVersion | None"], GateResult]
"""Measures a version, beside the present champion, and judges it."""


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
    metrics: Mapping[str, float]
    why: str


class History(NamedTuple):
    """What has happened to a model's champion, in order, and what there is to say about it."""

    name: str
    champion: str | None
    events: tuple[Event, ...]
    remarks: tuple[str, ...]


def promote(
    tracking: Tracking,
    *,
    name: str,
    version: str | None,
    examine: Examine,
    why: str = "",
    adopt: bool = False,
    dry_run: bool = False,
) -> Promotion:
    """Decide whether a version becomes champion, and if so move the alias; either is a record of the ledger.

    Args:
        tracking: where.
        name: name of the registered model.
        version: the version; None for the one with alias `challenger`.
        examine: the gate; it is asked only where nothing else keeps the version from being champion.
        why: the user's own words, for the record.
        adopt: accept an alias that somebody has moved by hand.
        dry_run: decide only: move and record nothing.

    Raises:
        InputError: no such model, version or challenger, or what `examine` raises.
        BackendError: the server failed.
    """
    _check_why(why)
    with tracking.answering():
        registered, versions = read_versions(tracking, name)
        if version is None and CHALLENGER not in registered.aliases:
            raise InputError(
                f"{name} has no version with alias {CHALLENGER}", "run `dagnn register`, or give --version"
            )
        challenger = _version(versions, name, version or str(registered.aliases[CHALLENGER]))
        number = str(challenger.version)
        ledger = _ledger(tracking, name)
        position = _position(ledger, tracking, adopt=adopt, why=why, dry_run=dry_run)
        present = position.state.champion
        refusal = position.refusal if position.stray else None
        if present == number and not refusal:
            decision = Decision(True, f"version {number} is the champion already")
            return Promotion(name, number, present, (), {}, decision)
        if refusal is None and (fault := ledger.fault(number)):
            refusal = f"version {number} {fault}; register it again"
    if refusal is None:
        checks, metrics = examine(challenger, versions.get(present or ""))
        decision = decide(checks)
    else:
        checks, metrics, decision = (), {}, Decision(False, refusal)
    if not dry_run:
        record = Record(
            action=Action.PROMOTED if decision.accepted else Action.REFUSED,
            source=present,
            target=number,
            who=tracking.who,
            why=_joined(why, decision.reason),
            metrics=metrics,
        )
        with tracking.answering():
            if not decision.accepted:
                ledger.append(record)
            elif lost := ledger.move(record):
                decision = Decision(False, lost)
    return Promotion(name, number, present, checks, metrics, decision)


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
        CheckFailedError: the version is deleted or its files are gone, or somebody else has moved the alias.
        BackendError: the server failed.
    """
    _check_why(why)
    with tracking.answering():
        read_versions(tracking, name)
        ledger = _ledger(tracking, name)
        position = _position(ledger, tracking, adopt=adopt, why=why, dry_run=False)
        state, finished = position.state, position.finished
        if to is None and finished and finished.record.action is Action.ROLLED_BACK and state.champion:
            return Rollback(name, state.champion, finished.record.source)
        target = to or (state.previous[-1] if state.previous else None)
        if target is None:
            raise InputError(
                f"{name} has no champion before {_present(state)} to go back to", f"see `dagnn history {name}`"
            )
        if target == state.champion and not position.stray:
            return Rollback(name, target, target)
        former = sorted({str(move.record.target) for move in state.moves if move.record.target}, key=int)
        if target not in former:
            raise InputError(
                f"version {target!r} of {name} was never its champion (were: {', '.join(former) or 'none'})",
                f"give one of these as --to, or run `dagnn promote {name} --version {target}`",
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
        raise CheckFailedError(f"{name} is not rolled back to version {target}: {refusal}")
    return Rollback(name, target, state.champion)


def read_history(tracking: Tracking, *, name: str) -> History:
    """Read the ledger of a model's champion; an alias that lags behind it is repaired where that is permitted.

    Raises:
        InputError: no such model.
        BackendError: the server failed.
    """
    with tracking.answering():
        read_versions(tracking, name)
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


def _event(entry: Entry, state: LedgerState, *, counts: bool) -> Event:
    record = entry.record
    lost = not counts and record.action is not Action.REFUSED
    return Event(
        entry=entry.number,
        when=entry.when,
        who=record.who,
        what=Action.REFUSED.value if lost else record.action.value,
        source=record.source,
        target=record.target,
        metrics=record.metrics,
        why=_joined(record.why, lost_to(entry, state) if lost else ""),
    )


def _check_why(why: str) -> None:
    if len(why) > MAX_WHY:
        raise InputError(
            f"--reason has {len(why)} characters, expected at most {MAX_WHY}", "name a page that says more"
        )


def _joined(*reasons: str) -> str:
    return "; ".join(" ".join(reason.split()) for reason in reasons if reason.strip())


def _present(state: LedgerState) -> str:
    return f"version {state.champion}" if state.champion else "now"


def _version(versions: "dict[str, ModelVersion]", name: str, version: str) -> "ModelVersion":
    if version not in versions:
        existing = ", ".join(sorted(versions, key=int)) or "none"
        raise InputError(f"{name} has no version {version!r} (it has: {existing})", "give one of these as --version")
    return versions[version]

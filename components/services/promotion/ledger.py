"""The ledger of a model's champion: every move, refusal and rollback, in order, in the registry itself.

MLflow sets an alias without comparing it first, but on every store it gives each new version of a model a number of its
own. So a record is one version, made with its tags in one request, of the registered model `NAME-promotions`: the
number is the lock and the version the audit. A move counts when the champion that it replaces is the one that the
records before it lead to; of several at once the first counts, and the others are records of a lost race.

The alias follows the ledger. The process that moved it reads both again until they agree, and then marks the record as
settled, so that an alias that lags (its mover died in between: the next reader does it) is told from one that somebody
has moved by hand (reported, and kept until `adopt`). A record that was deleted by hand breaks the chain in the same
way: the moves after it no longer count, and the alias is for a person to adopt.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from components.services.registry.models import LEDGER_SUFFIX, ensure_registered_model
from dagnn_core.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

SETTLED = "settled"
NONE = "none"  # a tag's text for no champion
LOOKS = 8
SECONDS_BETWEEN_LOOKS = 0.25  # an alias is this long unexplained while several processes move it
_MAX_RECORDS = 200_000  # what MLflow gives in one answer: pages would not be of one moment


class Action(StrEnum):
    """What a record says has happened."""

    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    ADOPTED = "adopted"
    """The champion that was found there without a record."""
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What is written: an action, the champion before it and the version that it is about, and its reasons."""

    action: Action
    source: str | None
    """The champion that the writer saw; None for none."""
    target: str | None
    who: str
    why: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    nonce: str = field(default_factory=lambda: uuid4().hex)
    """Tells a request that was sent twice, for its answer was lost, from two requests."""

    def tags(self) -> dict[str, str]:
        """As tags of a model version."""
        return {
            "action": self.action.value,
            "from": self.source or NONE,
            "to": self.target or NONE,
            "who": self.who,
            "why": redact(self.why),
            "figures": json.dumps(dict(self.metrics)),
            "nonce": self.nonce,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A record in the ledger, with its number and the server's time."""

    number: int
    when: datetime
    settled: bool
    """The alias was seen where this move wants it."""
    record: Record

    def __str__(self) -> str:
        """Describe the entry in the words of an error."""
        return f"entry {self.number}, {self.record.action} by {self.record.who}, {self.when:%Y-%m-%d %H:%M} UTC"


class LedgerState(NamedTuple):
    """Where the records lead."""

    champion: str | None = None
    previous: tuple[str, ...] = ()
    """Champions to which rollbacks lead, one after the other, the nearest last."""
    moves: tuple[Entry, ...] = ()
    """The entries that count."""


class Book(NamedTuple):
    """What the ledger holds: its entries in order, and the numbers of what is no record."""

    entries: tuple[Entry, ...] = ()
    damaged: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()
    """Deleted by hand."""


class Position(NamedTuple):
    """Ledger and alias together."""

    state: LedgerState
    alias: str | None
    stray: str | None
    """Why the alias is not where the ledger wants it, where no record explains that."""
    finished: Entry | None = None
    """The last move, where it had still to be carried out or marked as settled."""

    @property
    def refusal(self) -> str:
        """Why nothing may be moved from here, and the remedy."""
        return f"{self.stray}; find out who has moved it, and accept it with --adopt"


def distinct(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the entries in order, each request once."""
    first: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda entry: entry.number):
        first.setdefault(entry.record.nonce, entry)
    return tuple(first.values())


def fold(entries: Iterable[Entry]) -> LedgerState:
    """Apply the entries in order: a move counts when its source is the champion before it; a refusal never does."""
    state = LedgerState()
    for entry in distinct(entries):
        record = entry.record
        if record.action is not Action.REFUSED and record.source == state.champion != record.target:
            state = LedgerState(record.target, _previous(state, record), (*state.moves, entry))
    return state


def _previous(state: LedgerState, record: Record) -> tuple[str, ...]:
    if record.action is Action.ROLLED_BACK and record.target in state.previous:
        nearest = max(index for index, version in enumerate(state.previous) if version == record.target)
        return state.previous[:nearest]
    return state.previous if state.champion is None else (*state.previous, state.champion)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """The ledger of one registered model, and the alias that follows it.

    Its methods raise what MLflow raises; `Tracking.answering` makes one line of that.
    """

    client: "MlflowClient"
    model: str
    alias: str
    fault: Callable[[str], str | None]
    """What keeps a version from being champion (it was deleted, files are gone); None for nothing."""

    @property
    def name(self) -> str:
        """The registered model whose versions are the records."""
        return self.model + LEDGER_SUFFIX

    def read(self) -> Book:
        """Read every entry; damaged ones and strangers are left out, and told apart."""
        versions = self.client.search_model_versions(f"name = '{self.name}'", max_results=_MAX_RECORDS)
        parsed = {int(version.version): _parse(version) for version in versions}
        return Book(
            distinct(entry for entry in parsed.values() if entry),
            tuple(sorted(number for number, entry in parsed.items() if entry is None)),
            tuple(number for number in range(1, max(parsed, default=0)) if number not in parsed),
        )

    def append(self, record: Record) -> Book:
        """Write a record, once, and return the ledger with it."""
        from mlflow.exceptions import MlflowException

        book = self.read()
        if not book.entries:
            ensure_registered_model(
                self.client, self.name, f"Champions of {self.model}: `dagnn history {self.model}` shows them"
            )
        while True:
            size = len(book.entries)
            try:
                self.client.create_model_version(
                    self.name,
                    source=f"dagnn-ledger:/{self.model}",  # a version must name one; there are no files
                    tags=record.tags(),
                    description=f"{record.action}: {record.source or NONE} to {record.target or NONE}",
                    await_creation_for=0,
                )
                return self.read()
            except MlflowException:
                book = self.read()
                if any(entry.record.nonce == record.nonce for entry in book.entries):
                    return book
                if len(book.entries) == size:  # else others were quicker, and MLflow has given up too early
                    raise

    def move(self, record: Record) -> str | None:
        """Write a move and carry it out; return None, or why it was not carried out."""
        state = fold(entries := self.append(record).entries)
        if all(entry.record.nonce != record.nonce for entry in state.moves):
            [mine] = [entry for entry in entries if entry.record.nonce == record.nonce]
            return f"{lost_to(mine, state)}; run the command again to stand against it"
        position = self.look(own=record.nonce)
        return position.refusal if position.stray else None

    def adopt(self, position: Position, *, who: str, why: str) -> Position:
        """Accept the alias as somebody has moved it: write that down, and return the new position."""
        source = position.state.champion
        self.append(Record(action=Action.ADOPTED, source=source, target=position.alias, who=who, why=why))
        log.warning(
            "%s: adopted %s as champion, which no record explains (%s)", self.model, _version(position.alias), why
        )
        return self.look()

    def _settle(self, entry: Entry) -> None:
        """Mark a move as carried out; it is, so a failure here is none of the move, which nobody shall do twice."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.set_model_version_tag(self.name, str(entry.number), SETTLED, "true")
        except MlflowException as error:
            log.warning("%s: entry %d is carried out, but not marked so (%s)", self.model, entry.number, error)

    def look(self, *, repair: bool = True, own: str = "") -> Position:
        """Read ledger and alias until they agree; with `repair`, carry out a move whose mover has died in between.

        Args:
            repair: False writes nothing.
            own: nonce of the move that the caller is carrying out.
        """
        mine: str | None = None
        finished: Entry | None = None
        for _ in range(LOOKS):
            state, alias = fold(self.read().entries), self.read_alias()
            last = state.moves[-1] if state.moves else None
            if alias == state.champion:
                if repair and last and not last.settled:
                    self._settle(last)
                    finished = last
                return Position(state, alias, None, finished)
            if last is None:
                break
            lags = not last.settled and alias == last.record.source
            if state.champion and (lags or (mine is not None and alias == mine)):
                if not repair:
                    return Position(state, alias, None)
                if fault := self.fault(state.champion):
                    return Position(state, alias, f"{self._stray(state, alias)}, which {fault}")
                self.client.set_registered_model_alias(self.model, self.alias, state.champion)
                mine = state.champion
                if last.record.nonce != own:
                    log.warning("%s: alias %s lagged, moved to version %s (%s)", self.model, self.alias, mine, last)
            else:
                time.sleep(SECONDS_BETWEEN_LOOKS)
        return Position(state, alias, self._stray(state, alias))

    def read_alias(self) -> str | None:
        """Return the version that the alias is at."""
        version = self.client.get_registered_model(self.model).aliases.get(self.alias)
        return None if version is None else str(version)

    def _stray(self, state: LedgerState, alias: str | None) -> str:
        last = f" ({state.moves[-1]})" if state.moves else ""
        return f"alias {self.alias} is at {_version(alias)}, the ledger at {_version(state.champion)}{last}"


def lost_to(entry: Entry, state: LedgerState) -> str:
    """Say which move came before one that does not count."""
    earlier = [move for move in state.moves if move.number < entry.number]
    if not earlier:
        return f"entry {entry.number} does not follow from any record"
    return f"another move came first ({earlier[-1]}): the champion is {_version(earlier[-1].record.target)}"


def _version(version: str | None) -> str:
    return f"version {version}" if version else "no version"


def _parse(version: "ModelVersion") -> Entry | None:
    tags = version.tags
    try:
        metrics = {str(name): float(value) for name, value in json.loads(tags["figures"]).items()}
        record = Record(
            action=Action(tags["action"]),
            source=_number(tags["from"]),
            target=_number(tags["to"]),
            who=tags["who"],
            why=tags["why"],
            metrics=metrics,
            nonce=tags["nonce"],
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    when = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    return Entry(number=int(version.version), when=when, settled=tags.get(SETTLED) == "true", record=record)


def _number(text: str) -> str | None:
    return None if text == NONE else str(int(text))

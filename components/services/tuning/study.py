"""A search as an Optuna study, in a file or a database that several processes and machines share.

A trial that its process did not end, since it was killed or lost, is marked as failed and its values wait for the next
free process. In a file the lock of its process tells, which the kernel frees at once; in a database its heartbeat.
"""

import logging
import platform
import re
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, UpdateFinishedTrialError
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from dagnn_core.config.section import DEFAULT_SEED
from dagnn_core.config.space import Choices, Range, Value
from dagnn_core.disk import writing
from dagnn_core.errors import BackendError, DagnnError, InputError, causes
from dagnn_core.locks import hold_lock
from dagnn_core.redaction import redact
from dagnn_core.reports.tuning.search import Trial
from dagnn_core.text import one_line, quote

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15
GRACE_SECONDS = 60
"""A trial in a database whose process was not heard of for so long is lost."""
MAX_ATTEMPTS = 3
"""Processes that may be lost with the same trial before it counts as failed: its values may be what kills them."""
SET_UP_SECONDS = 60.0
"""For which a process waits for what the one that began the search sets up."""
POLL_SECONDS = 0.5
PRUNER = {"n_startup_trials": 5, "n_warmup_steps": 5}
"""Trials that finish, and epochs of each trial, before any is pruned."""
ATTEMPTS_AT_TABLES = 10
MIN_TRIALS = 8
"""That have finished, before the importance of values is estimated."""

_IDENTITY, _KEY = "identity", "key"
_BEGIN = b'{"op_code":'  # of every line of a file
# attributes of trials
_WORKER, _REASON, _SURPLUS, _START, _RUN = "worker", "reason", "surplus", "start", "run"
_ATTEMPT, _RETRY_OF, _ORIGIN = "attempt", "retry_of", "origin"
_STORAGE_FAILURES = (SQLAlchemyError, optuna.exceptions.StorageInternalError)
_STATES: Mapping[TrialState, Any] = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


class PrunedError(Exception):
    """The trial is worse than the others at this epoch, and ends here."""


class _SurplusError(Exception):
    """Another process has begun the last trial at the same moment, or has put back the same lost one."""


class Draw:
    """A trial that is being trained."""

    def __init__(self, trial: optuna.Trial, values: Mapping[str, Value]) -> None:
        self._trial = trial
        self.number: int = trial.number
        self.values = values
        """Dotted key -> value."""
        self.origin: int = trial.user_attrs.get(_ORIGIN, trial.number)
        """Number of the trial that had these values first, of which this one may be a retry."""
        self.run_id: str | None = trial.user_attrs.get(_RUN)
        """The run in the tracking server that a lost trial with these values had opened."""

    def keep_run(self, run_id: str) -> None:
        """Have a retry of this trial resume its run in the tracking server."""
        self._trial.set_user_attr(_RUN, run_id)

    def report(self, val_map: float, step: int) -> None:
        """Take the validation MAP of an epoch.

        Args:
            val_map: the MAP.
            step: a number that grows from epoch to epoch, and is that of the same epoch in all trials.

        Raises:
            PrunedError: the trial is to end.
        """
        self._trial.report(val_map, step)
        if self._trial.should_prune():
            raise PrunedError


@dataclass(frozen=True, kw_only=True)
class Study:
    """An open search."""

    address: str
    """Where it is kept, fit to be shown."""
    is_new: bool
    """Whether this process began it."""
    _study: optuna.Study
    _searched: Mapping[str, Range | Choices]
    _workers: "_Workers | None"
    """Of a file; None: heartbeats tell."""
    _met: Collection[int]
    """Numbers of the trials that were running when this process came: it may be that of a process that was killed."""
    _opened: float = field(default_factory=time.monotonic)
    _drawn: list[int] = field(default_factory=list)
    """Number of the trial that this process is at."""

    def work(self, objective: Callable[[Draw], float], *, num_trials: int, ended: Callable[[Trial], object]) -> None:
        """Draw and train until the search has its trials; those that other processes are at count.

        Args:
            objective: trains a trial and returns its validation MAP. It raises `PrunedError` where `Draw.report` does,
                and `InputError` where its values are at fault, which ends the trial alone.
            num_trials: of the whole search.
            ended: is told of every trial that this process has ended.

        Raises:
            BackendError: the storage failed.
        """
        waits = False
        while True:
            with self._answering():
                self._release_lost()
                if len(self._counted()) >= num_trials:
                    if not self._may_be_lost():
                        return
                    if not waits:
                        log.info("waiting a minute at most to see whether the trials of other processes are lost")
                    waits = True
                    time.sleep(POLL_SECONDS)
                    continue
                self._drawn.clear()
                try:
                    self._study.optimize(
                        lambda trial: self._train(trial, objective, num_trials),
                        n_trials=1,
                        catch=(InputError, _SurplusError),
                    )
                except BaseException:
                    with suppress(Exception):  # where this process cannot, the next one does it
                        self._put_back()
                    raise
                trial = self._study.get_trials(deepcopy=False)[self._drawn[0]]
            if _SURPLUS not in trial.user_attrs:
                ended(self._record(trial))

    def trials(self) -> list[Trial]:
        """All trials so far; lost ones whose values were taken up again are left out."""
        with self._answering():
            return [self._record(trial) for trial in self._counted()]

    def runs(self) -> list[str]:
        """Runs in the tracking server of the trials that processes are at."""
        with self._answering():
            return [trial.user_attrs[_RUN] for trial in self._running() if _RUN in trial.user_attrs]

    def value_of(self, values: Mapping[str, Value]) -> float | None:
        """Validation MAP of an earlier trial with exactly these values; None: there is none that has finished."""
        for trial in self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
            if self._values(trial) == values:
                return trial.value
        return None

    def importance(self) -> dict[str, float]:
        """Share of the variance of the validation MAP by key (PED-ANOVA, Watanabe et al. 2023), the largest first.

        Empty where too few trials have finished, or all have the same MAP.
        """
        with self._answering():
            done = self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
            if len(done) < MIN_TRIALS or len({trial.value for trial in done}) == 1:
                return {}
            found = optuna.importance.get_param_importances(self._study)
        return {key: float(share) for key, share in found.items()}

    def shared(self, key: str) -> str:
        """A text that the process that began the search keeps for all; empty: there is none, so set it."""
        deadline = time.monotonic() + (0.0 if self.is_new else SET_UP_SECONDS)
        with self._answering():
            while key not in self._study.user_attrs and time.monotonic() < deadline and self._has_company():
                time.sleep(POLL_SECONDS)
            return str(self._study.user_attrs.get(key, ""))

    @property
    def key(self) -> str:
        """A random text that no other search has; of a search by an older version empty."""
        with self._answering():
            return str(self._study.user_attrs[_IDENTITY].get(_KEY, ""))

    def share(self, key: str, text: str) -> None:
        """Keep a text for all processes."""
        with self._answering():
            self._study.set_user_attr(key, text)

    def check_identity(self, identity: Mapping[str, str], *, first: Mapping[str, Value]) -> None:
        """See that the study is about the same; of a new one, keep what it is about and where it begins.

        Args:
            identity: what must be equal in all processes of the search -> its digest, or itself.
            first: values of the first trial.

        Raises:
            InputError: something differs.
        """
        known = self.shared(_IDENTITY)
        if not known:
            with self._answering():
                if first:
                    is_whole = first.keys() == self._searched.keys() and all(
                        _trained(self._searched[key], value) == value for key, value in first.items()
                    )
                    self._study.enqueue_trial(dict(first), {_START: True} if is_whole else None, skip_if_exists=True)
                self._study.set_user_attr(_IDENTITY, {**identity, _KEY: uuid4().hex})
            return
        with self._answering():
            kept = self._study.user_attrs[_IDENTITY]
        for name, value in identity.items():
            if kept.get(name) != value:
                raise InputError(
                    f"{self.address} has the search {self._study.study_name!r} already, with other {name} "
                    f"({quote(kept.get(name))}, got {quote(value)})",
                    "give this one another --name",
                )

    def _train(self, trial: optuna.Trial, objective: Callable[[Draw], float], num_trials: int) -> float:
        self._drawn.append(trial.number)
        trial.set_user_attr(_WORKER, self._workers.own if self._workers else platform.node())
        before = [other for other in self._counted() if other.number < trial.number]
        if len(before) >= num_trials or self._is_double(trial):
            trial.set_user_attr(_SURPLUS, True)
            raise _SurplusError
        values = {key: _suggest(trial, key, possible) for key, possible in self._searched.items()}
        try:
            return objective(Draw(trial, values))
        except PrunedError as error:
            raise optuna.TrialPruned from error
        except InputError as error:
            trial.set_user_attr(_REASON, one_line(error))
            raise

    def _is_double(self, trial: optuna.Trial) -> bool:
        """Whether two processes have put back the same lost trial, and the other one was faster."""
        others = self._study.get_trials(deepcopy=False)[: trial.number]
        lost = trial.user_attrs.get(_RETRY_OF)
        return lost is not None and any(other.user_attrs.get(_RETRY_OF) == lost for other in others)

    def _values(self, trial: FrozenTrial) -> dict[str, Value]:
        """What was trained."""
        return {key: _trained(self._searched[key], value) for key, value in trial.params.items()}

    def _record(self, trial: FrozenTrial) -> Trial:
        state = _STATES[trial.state]
        lost = f"its process was lost {MAX_ATTEMPTS} times" if state == "failed" else ""
        return Trial(
            number=trial.number,
            state=state,
            values=self._values(trial),
            val_map=trial.value if state in ("finished", "pruned") else None,
            num_epochs=len(trial.intermediate_values),
            seconds=trial.duration.total_seconds() if trial.duration else 0.0,
            is_start=_START in trial.user_attrs,
            reason=trial.user_attrs.get(_REASON, lost),
        )

    def _counted(self) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        again = {trial.user_attrs[_RETRY_OF] for trial in trials if _RETRY_OF in trial.user_attrs}
        return [
            trial
            for trial in trials
            if trial.state in _STATES and trial.number not in again and _SURPLUS not in trial.user_attrs
        ]

    def _release_lost(self) -> None:
        """Mark the trials as failed whose process has ended without ending them, and put their values back."""
        if self._workers is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                optuna.storages.fail_stale_trials(self._study)
        for trial in self._running():
            worker = trial.user_attrs.get(_WORKER)
            if worker is None:  # it had hardly begun
                began = trial.datetime_start
                is_lost = began is not None and (datetime.now(began.tzinfo) - began).total_seconds() > GRACE_SECONDS
            else:
                is_lost = self._workers is not None and not self._workers.is_alive(worker)
            if is_lost:
                with suppress(ValueError, UpdateFinishedTrialError):  # another process was faster
                    self._study.tell(trial.number, state=TrialState.FAIL)
        for trial in self._counted():
            attempt = int(trial.user_attrs.get(_ATTEMPT, 1))
            if trial.state == TrialState.FAIL and _REASON not in trial.user_attrs and attempt < MAX_ATTEMPTS:
                log.warning("trial %d was lost with its process, and is trained again", trial.number)
                _enqueue(self._study, trial, attempt + 1)

    def _may_be_lost(self) -> bool:
        """Whether a trial was running when this process came of which it is too early to say that it is lost."""
        if time.monotonic() - self._opened > GRACE_SECONDS + HEARTBEAT_SECONDS:
            return False
        return any(
            trial.number in self._met and (self._workers is None or _WORKER not in trial.user_attrs)
            for trial in self._running()
        )

    def _running(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING])

    def _has_company(self) -> bool:
        """Whether other processes may work at the search."""
        return self._workers is None or self._workers.have_others()

    def _put_back(self) -> None:
        """Have the values of the trial that this process was at wait for the next one."""
        for trial in self._counted():  # not where another process has taken it for lost
            if trial.number in self._drawn and trial.state == TrialState.FAIL:
                _enqueue(self._study, trial, int(trial.user_attrs.get(_ATTEMPT, 1)))

    @contextmanager
    def _answering(self) -> Iterator[None]:
        with _answering(self.address):
            yield


@contextmanager
def open_study(storage: str, name: str, *, searched: Mapping[str, Range | Choices], prune: bool) -> Iterator[Study]:
    """Open a search, or begin it.

    Args:
        storage: path of a file, or URL of a database that SQLAlchemy knows.
        name: of the search in it.
        searched: dotted key -> values.
        prune: whether trials that are worse than others end early.

    Raises:
        InputError: the file is something else, or the URL is none.
        BackendError: the storage cannot be used.
    """
    is_url = "://" in storage
    address = redact(storage)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.MedianPruner(**PRUNER) if prune else optuna.pruners.NopPruner()
    workers = None if is_url else _Workers(Path(storage))
    with workers.working() if workers else nullcontext():
        with _answering(address):
            backend = _open_database(storage) if is_url else _open_file(Path(storage))
            arguments: Any = {"study_name": name, "storage": backend, "sampler": _Sampler(), "pruner": pruner}
            try:
                study, is_new = optuna.create_study(direction="maximize", **arguments), True
            except DuplicatedStudyError:
                study, is_new = optuna.load_study(**arguments), False
        try:
            with _answering(address):
                met = [trial.number for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING])]
            yield Study(address=address, is_new=is_new, _study=study, _searched=searched, _workers=workers, _met=met)
        finally:
            if isinstance(backend, RDBStorage):
                backend.remove_session()
                backend.engine.dispose()


class _Database(RDBStorage):
    """Optuna's database, where a sign of life that is not taken is passed over: the next one may be.

    It is given in a thread of its own, in which nobody would see the error; the trial itself meets the same one.
    """

    def record_heartbeat(self, trial_id: int) -> None:
        with suppress(*_STORAGE_FAILURES):
            super().record_heartbeat(trial_id)


class _Sampler(BaseSampler):
    """TPE (Bergstra et al. 2011) whose draws follow from the trials before, whichever process draws.

    So a search that was interrupted draws what it would have drawn, and two processes do not draw the same.
    """

    def __init__(self) -> None:
        self._number = -1
        self._tpe = TPESampler()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._of(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._of(study, trial).sample_independent(study, trial, param_name, param_distribution)

    def _of(self, study: optuna.Study, trial: FrozenTrial) -> TPESampler:
        if trial.number != self._number:
            first = trial.user_attrs.get(_ORIGIN, trial.number)  # which may have been lost before it drew anything
            others = study.get_trials(deepcopy=False)[:first]
            rank = sum(_RETRY_OF not in other.user_attrs for other in others)  # a retry has the values of its origin
            (seed,) = np.random.SeedSequence([DEFAULT_SEED, rank]).generate_state(1).tolist()
            self._number, self._tpe = trial.number, TPESampler(seed=seed)
        return self._tpe


class _Journal(JournalFileBackend):
    """Optuna's file of operations, whose lock the kernel frees when its holder ends, and which mends a torn end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(str(path), lock_obj=_JournalLock(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with writing(self._path):
            super().append_logs(logs)


class _JournalLock(JournalFileOpenLock):
    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._lock = FileLock(f"{path}.lock", fallback_to_soft=False)

    def acquire(self) -> bool:
        self._lock.acquire()
        _cut_torn_line(self._path)
        return True

    def release(self) -> None:
        self._lock.release()


def _cut_torn_line(path: Path) -> None:
    """Cut off what a killed process, or a full disk, left of a line: what follows it could not be read."""
    with path.open("rb+") as stream:
        end = stream.seek(0, 2)
        start = max(end - (1 << 20), 0)
        stream.seek(start)
        tail = stream.read()
        if tail and not tail.endswith(b"\n"):
            stream.truncate(start + tail.rfind(b"\n") + 1)


class _Workers:
    """The processes that work at a search in a file: each holds a lock for as long as it lives."""

    def __init__(self, storage: Path) -> None:
        self._folder = storage.with_name(f"{storage.name}.workers")
        self.own = uuid4().hex
        """Name of this process."""

    @contextmanager
    def working(self) -> Iterator[None]:
        """Show that this process is alive."""
        elsewhere = "name another file with --storage, or the URL of a database"
        file = self._folder / self.own
        try:
            with writing(file):
                self._folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(
                f"{self._folder} cannot be a folder: it or what it lies in is a file", elsewhere
            ) from error
        with hold_lock(file, busy="another process has this name", remedy="", elsewhere=elsewhere):
            try:
                yield
            finally:
                file.unlink(missing_ok=True)
                with suppress(OSError):
                    self.have_others()  # removes the files of those that were killed
                    self._folder.rmdir()  # where no other process is at work

    def have_others(self) -> bool:
        """Whether another process is at work."""
        others = [file.name for file in self._folder.iterdir() if file.name != self.own]
        alive = [worker for worker in others if self.is_alive(worker)]  # asks all: files of killed ones are removed
        return bool(alive)

    def is_alive(self, worker: str) -> bool:
        """Whether a process still works."""
        file = self._folder / Path(worker).name
        if worker == self.own:
            return True
        if not file.exists():
            return False
        try:
            with hold_lock(file, busy="", remedy="", elsewhere=""):
                file.unlink(missing_ok=True)
        except BackendError:
            return True
        return False


def _open_file(path: Path) -> BaseStorage:
    """A file, which is made where it is missing.

    Raises:
        InputError: it is something else.
        DiskError: it cannot be written.
    """
    with writing(path):
        path.touch()
    with path.open("rb") as stream:
        begin = stream.read(len(_BEGIN))
    if not _BEGIN.startswith(begin):
        raise InputError(f"{path} is no file of a search", "name another one with --storage")
    try:
        return JournalStorage(_Journal(path))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({one_line(error)})", "name another file with --storage") from error


def _open_database(url: str) -> BaseStorage:
    """A database.

    Raises:
        InputError: the URL is none.
    """
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        options = {"connect_args": {"timeout": GRACE_SECONDS}}
    elif url.startswith("postgresql"):
        options["connect_args"] = {"connect_timeout": 10}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # of heartbeats
            return _make_tables_once(
                lambda: _Database(
                    url,
                    engine_kwargs=options,
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    grace_period=GRACE_SECONDS,
                )
            )
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise InputError(
            f"--storage is {quote(redact(url))}, expected the path of a file, or the URL of a database, as "
            "postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:///search.db",
            "correct it; in a password, write %40 for `@`, %2F for `/`, %3F for `?`, %23 for `#`",
        ) from None
    except ImportError as error:
        raise InputError(f"there is no driver for {redact(url)}: {one_line(error)}", "install it") from error


def _make_tables_once(connect: Callable[[], BaseStorage]) -> BaseStorage:
    """Connect to a database; where another process makes the tables at the same moment, find them there then."""
    for attempt in range(1, ATTEMPTS_AT_TABLES):
        try:
            return connect()
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            if not re.search(r"already exists|unique constraint", str(error), re.IGNORECASE):
                raise
            time.sleep(0.2 * attempt)
    return connect()


@contextmanager
def _answering(address: str) -> Iterator[None]:
    """Turn a failure of the storage into one clear line."""
    try:
        yield
    except DagnnError:
        raise
    except Exception as error:
        # Optuna may meet an error of its own in the middle of one of the storage
        failed = next((cause for cause in causes(error) if isinstance(cause, _STORAGE_FAILURES)), None)
        if failed is None:
            raise
        remedy = "the folder of the file" if address.startswith("sqlite") else "that the database runs and the account"
        raise BackendError(
            f"the storage {address} cannot be used: {one_line(failed.__cause__ or failed)}",
            f"check {remedy}, then run the same command again to resume",
        ) from error


def _enqueue(study: optuna.Study, trial: FrozenTrial, attempt: int) -> None:
    values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    kept = {key: trial.user_attrs[key] for key in (_ORIGIN, _START, _RUN) if key in trial.user_attrs}
    study.enqueue_trial(values, {_ORIGIN: trial.number, **kept, _RETRY_OF: trial.number, _ATTEMPT: attempt})


def _suggest(trial: optuna.Trial, key: str, possible: Range | Choices) -> Value:
    drawn: Any
    if isinstance(possible, Choices):
        drawn = trial.suggest_categorical(key, possible.values)
    elif possible.is_whole:
        drawn = trial.suggest_int(key, int(possible.low), int(possible.high), log=possible.log)
    else:
        drawn = trial.suggest_float(key, possible.low, possible.high, log=possible.log)
    return _trained(possible, drawn)


def _trained(possible: Range | Choices, drawn: Value) -> Value:
    """What is trained with: a drawn number has many digits."""
    return possible.rounded(float(drawn)) if isinstance(possible, Range) else drawn

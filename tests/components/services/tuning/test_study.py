"""Searches in files and databases: shared, interrupted, killed, damaged."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from components.services.tuning import study as module
from components.services.tuning.study import Draw, Study, open_study
from dagnn_core.config.space import Choices, Range
from dagnn_core.errors import BackendError, DagnnError, InputError
from dagnn_core.reports.tuning.search import Trial
from tests.fixtures import forked

SEARCHED: Mapping[str, Range | Choices] = {
    "train.lr": Range(1e-4, 1e-2, log=True, is_whole=False),
    "model.hops": Range(1, 9, log=False, is_whole=True),
    "model.graph": Choices(("fixed", "none")),
}
FIRST = {"train.lr": 1e-3, "model.hops": 5, "model.graph": "none"}
IDENTITY = {"features": "a", "seeds": "103"}


def measure(draw: Draw) -> float:
    """A hill with its top at 3 hops and a learning rate of 0.003."""
    rate, hops = draw.values["train.lr"], draw.values["model.hops"]
    assert isinstance(rate, float) and isinstance(hops, int)
    return 1 - abs(hops - 3) / 10 - abs(rate - 3e-3)


@contextmanager
def opened(storage: object, name: str = "s", *, prune: bool = False) -> Iterator[Study]:
    with open_study(str(storage), name, searched=SEARCHED, prune=prune) as study:
        study.check_identity(IDENTITY, first=FIRST)
        yield study


def search(
    storage: object, num_trials: int, objective: Callable[[Draw], float] = measure, **options: Any
) -> list[Trial]:
    ended: list[Trial] = []
    with opened(storage, **options) as study:
        study.work(objective, num_trials=num_trials, ended=ended.append)
        assert ended == [trial for trial in study.trials() if trial.number in {mine.number for mine in ended}]
        return study.trials()


@pytest.fixture(params=["file", pytest.param("sqlite", marks=pytest.mark.slow)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "s.journal") if request.param == "file" else f"sqlite:///{tmp_path}/s.db"


def values_of(trials: list[Trial]) -> list[Mapping[str, object]]:
    return [trial.values for trial in trials]


def test_a_search_begins_at_the_configuration_and_finds_better(storage: str) -> None:
    trials = search(storage, 30)
    assert [trial.number for trial in trials] == list(range(30))
    assert trials[0].values == FIRST and [trial.is_start for trial in trials] == [True] + 29 * [False]
    assert {trial.state for trial in trials} == {"finished"}
    best = max(trials, key=lambda trial: trial.val_map or 0)
    assert best.val_map is not None and trials[0].val_map == pytest.approx(0.798) and best.val_map > 0.95
    for trial in trials:
        assert SEARCHED.keys() == trial.values.keys()
        assert all(value in SEARCHED[key] for key, value in trial.values.items())
        assert f"{trial.values['train.lr']:.3g}" == f"{trial.values['train.lr']:g}"


def test_a_search_in_parts_draws_what_a_whole_one_draws(tmp_path: Path) -> None:
    whole = search(tmp_path / "whole", 12)
    assert len(search(tmp_path / "parts", 5)) == 5

    def interrupt(draw: Draw) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "parts", 12, interrupt)
    assert len(search(tmp_path / "parts", 8)) == 8
    parts = search(tmp_path / "parts", 12)
    assert values_of(parts) == values_of(whole)
    assert [trial.val_map for trial in parts] == [trial.val_map for trial in whole]
    assert search(tmp_path / "parts", 12) == parts  # there is nothing left to do


def test_an_interrupted_trial_waits_for_the_next_process(storage: str) -> None:
    origins = []

    def interrupt(draw: Draw) -> float:
        if draw.number == 2:
            draw.keep_run("run-2")
            raise KeyboardInterrupt
        return measure(draw)

    with pytest.raises(KeyboardInterrupt):
        search(storage, 5, interrupt)

    def interrupt_again(draw: Draw) -> float:
        raise KeyboardInterrupt

    number = 2 + module.MAX_ATTEMPTS
    for _ in range(module.MAX_ATTEMPTS):  # it is not the values that end the process
        with pytest.raises(KeyboardInterrupt):
            search(storage, 5, interrupt_again)

    def note(draw: Draw) -> float:
        origins.append((draw.number, draw.origin, draw.run_id))
        return measure(draw)

    trials = search(storage, 5, note)
    assert origins == [(number + 1, 2, "run-2"), (number + 2, number + 2, None), (number + 3, number + 3, None)]
    assert len(trials) == 5 and {trial.state for trial in trials} == {"finished"}


def test_processes_share_a_search(storage: str, tmp_path: Path) -> None:
    """Together they do as many trials as one, each its own, and the configuration's values once."""

    def work() -> None:
        def slow(draw: Draw) -> float:
            time.sleep(0.01)
            return measure(draw)

        search(storage, 12, slow)

    workers = [forked.fork(work, cwd=tmp_path) for _ in range(3)]
    for worker in workers:
        done = worker.wait()
        assert done.returncode == 0, done.stderr
    with opened(storage) as study:
        trials = study.trials()
    assert len(trials) == 12 and {trial.state for trial in trials} == {"finished"}
    assert sum(trial.is_start for trial in trials) == 1
    assert len({str(trial.values) for trial in trials}) == 12


def hang(storage: str, cwd: Path, origin: int = 1) -> None:
    """A process that is killed in the middle of a trial."""
    reached = cwd / "reached"

    def work() -> None:
        def stop(draw: Draw) -> float:
            if draw.origin == origin:
                reached.touch()
                time.sleep(600)
            return measure(draw)

        search(storage, 4, stop)

    with forked.fork(work, cwd=cwd) as process:
        deadline = time.monotonic() + 60
        while not reached.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        while process.poll() is None:
            time.sleep(0.01)
    reached.unlink()


def test_a_trial_whose_process_was_killed_is_done_again(tmp_path: Path) -> None:
    storage = str(tmp_path / "s.journal")
    hang(storage, tmp_path)
    trials = search(storage, 4)
    assert [trial.number for trial in trials] == [0, 2, 3, 4] and {trial.state for trial in trials} == {"finished"}
    assert values_of(trials) == values_of(search(tmp_path / "other.journal", 4))


@pytest.mark.slow
def test_a_trial_that_kills_its_process_each_time_fails_in_the_end(tmp_path: Path) -> None:
    storage = str(tmp_path / "s.journal")
    for _ in range(module.MAX_ATTEMPTS):
        hang(storage, tmp_path)
    trials = search(storage, 4)
    assert [trial.state for trial in trials] == ["finished", "failed", "finished", "finished"]
    assert trials[1].reason == "its process was lost 3 times"
    assert {path.name for path in tmp_path.iterdir()} == {"s.journal", "s.journal.lock"}


@pytest.mark.slow
@pytest.mark.parametrize("origin", [1, 3])
def test_heartbeats_tell_of_lost_processes_in_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: int
) -> None:
    """Also of the last trial, and if the next process comes at once."""
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(module, "GRACE_SECONDS", 2)
    storage = f"sqlite:///{tmp_path}/s.db"
    hang(storage, tmp_path, origin)
    with opened(storage) as study:
        assert [trial.state for trial in study.trials()] == ["finished"] * origin + ["running"]
    trials = search(storage, 4)
    assert {trial.number for trial in trials} == {0, 1, 2, 3, 4} - {origin}
    assert {trial.state for trial in trials} == {"finished"}


@pytest.mark.slow
def test_a_trial_whose_process_was_killed_before_it_could_say_who_it_is(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_SECONDS", 1)
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 1)

    def work() -> None:
        monkeypatch.setattr(Study, "_train", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        search(storage, 2)

    assert forked.fork(work, cwd=tmp_path).wait().returncode == -signal.SIGKILL
    trials = search(storage, 2)
    assert {trial.state for trial in trials} == {"finished"} and values_of(trials)[1] == FIRST


def test_two_processes_that_put_back_the_same_lost_trial(tmp_path: Path) -> None:
    storage = tmp_path / "s"

    def interrupt(draw: Draw) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(storage, 3, interrupt)
    with opened(storage) as study:  # what a second process does at the same moment
        (lost,) = (trial for trial in study._study.get_trials() if trial.state.name == "FAIL")
        module._enqueue(study._study, lost, 2)
    trials = search(storage, 3)
    assert len(trials) == 3 == len({str(trial.values) for trial in trials})
    assert {trial.state for trial in trials} == {"finished"}
    assert search(storage, 3) == trials


def test_a_process_that_lives_keeps_its_trial(tmp_path: Path) -> None:
    storage, ready, end = str(tmp_path / "s.journal"), tmp_path / "ready", tmp_path / "end"

    def work() -> None:
        def wait(draw: Draw) -> float:
            ready.touch()
            while not end.exists():
                time.sleep(0.01)
            return measure(draw)

        search(storage, 1, wait)

    with forked.fork(work, cwd=tmp_path) as process:
        while not ready.exists():
            assert process.poll() is None
            time.sleep(0.01)
        trials = search(storage, 3)
        assert [trial.state for trial in trials] == ["running", "finished", "finished"]
        end.touch()
        while process.poll() is None:
            time.sleep(0.01)
    with opened(storage) as study:
        assert [trial.state for trial in study.trials()] == ["finished"] * 3


def test_values_at_fault_end_their_trial_alone(storage: str) -> None:
    def fail(draw: Draw) -> float:
        if draw.number == 1:
            raise InputError("the loss is not finite", "lower train.lr")
        return measure(draw)

    trials = search(storage, 3, fail)
    assert [trial.state for trial in trials] == ["finished", "failed", "finished"]
    assert trials[1].reason == "the loss is not finite; lower train.lr" and trials[1].val_map is None


def test_another_failure_ends_the_search_and_keeps_the_trial(storage: str) -> None:
    def fail(draw: Draw) -> float:
        raise BackendError("the disk is full")

    with pytest.raises(BackendError, match="the disk is full"):
        search(storage, 3, fail)
    trials = search(storage, 3)
    assert len(trials) == 3 and {trial.state for trial in trials} == {"finished"} and trials[0].values == FIRST


def test_trials_below_the_median_are_pruned(storage: str) -> None:
    epochs = module.PRUNER["n_warmup_steps"] + 2
    lasted = []

    def train(draw: Draw) -> float:
        good = draw.number < module.PRUNER["n_startup_trials"]
        for epoch in range(1, epochs + 1):
            lasted.append((draw.number, epoch))
            draw.report(epoch / 10 if good else 0.01, epoch)
        return 0.5

    count = module.PRUNER["n_startup_trials"] + 1
    trials = search(storage, count, train, prune=True)
    assert [trial.state for trial in trials] == ["finished"] * (count - 1) + ["pruned"]
    assert trials[-1].num_epochs == module.PRUNER["n_warmup_steps"] and trials[-1].val_map == 0.01
    lasted.clear()
    assert {trial.state for trial in search(f"{storage}2", count, train)} == {"finished"}
    assert len(lasted) == count * epochs


def test_the_same_values_are_measured_once(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as study:
        study.work(measure, num_trials=1, ended=lambda _: None)
        assert study.value_of(FIRST) == pytest.approx(0.798)
        assert study.value_of(FIRST | {"model.hops": 4}) is None


@pytest.mark.slow
def test_importance_finds_what_matters(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as study:
        study.work(measure, num_trials=module.MIN_TRIALS - 1, ended=lambda _: None)
        assert study.importance() == {}
        study.work(measure, num_trials=40, ended=lambda _: None)
        importance = study.importance()
    assert next(iter(importance)) == "model.hops" and sum(importance.values()) == pytest.approx(1)


def test_a_search_about_something_else_is_refused(storage: str) -> None:
    search(storage, 1)
    message = r"has the search 's' already, with other features \('a', got 'b'\); give this one another --name"
    with (
        open_study(storage, "s", searched=SEARCHED, prune=False) as study,
        pytest.raises(InputError, match=message),
    ):
        study.check_identity(IDENTITY | {"features": "b"}, first=FIRST)
    assert len(search(storage, 2, name="other")) == 2  # beside it


def test_a_process_waits_for_what_the_first_one_sets_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SET_UP_SECONDS", 0.1)
    with open_study(str(tmp_path / "s"), "s", searched=SEARCHED, prune=False) as study:
        assert study.is_new and study.shared("run") == ""
        study.share("run", "17")
        with open_study(str(tmp_path / "s"), "s", searched=SEARCHED, prune=False) as other:
            assert not other.is_new and other.shared("run") == "17"
            other.check_identity(IDENTITY, first=FIRST)  # the first one was killed before it did this
    assert search(tmp_path / "s", 1)[0].values == FIRST


def test_half_a_line_of_a_killed_process_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "s.journal"
    trials = search(file, 3)
    with file.open("ab") as stream:
        stream.write(b'{"op_code":4,"worker')
    assert search(file, 3) == trials
    assert len(search(file, 5)) == 5


@pytest.mark.parametrize("content", [b"model: {kind: dagnn}\n", b"text", b"[1]\n", b'{"a": 1}', b"{\n}", b"\xff\xfe\n"])
def test_a_file_of_something_else_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "params.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"params.yaml is no file of a search; name another one with --storage"):
        search(file, 1)
    assert file.read_bytes() == content


@pytest.mark.parametrize("line", [b"garbage\n", b'{"op_code":1}\n', b'{"op_code":4,"study_id":9}\n', b"\xff\n", b"1\n"])
def test_a_damaged_file_is_named(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "s.journal"
    search(file, 2)
    content = file.read_bytes()
    file.write_bytes(content + line + content[content.rindex(b"{") :])
    with pytest.raises(InputError, match=r"s.journal is damaged .*; name another file with --storage"):
        search(file, 3)


def test_a_storage_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    rows: list[tuple[str, type[DagnnError], str]] = [
        ("postgresql://me:hunter22@127.0.0.1:1/x", BackendError, "the storage postgresql://127.0.0.1:1/x cannot be"),
        (f"sqlite:///{tmp_path}/none/s.db", BackendError, "cannot be used: "),
        ("oracle://host/x", InputError, ""),
        ("moon://host/x", InputError, "--storage is 'moon://host/x'"),
        ("sqlite://[", InputError, "--storage is "),
        ("://", InputError, "--storage is "),
    ]
    for storage, kind, message in rows:
        with pytest.raises(kind) as refused:
            search(storage, 1)
        assert message in str(refused.value), storage
        assert "hunter22" not in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_database_that_fails_in_the_middle_of_a_trial_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "s.db"

    def fail(draw: Draw) -> float:
        with closing(sqlite3.connect(file)) as other:
            other.execute("DROP TABLE trials")
        draw.report(0.5, 1)
        return 0.5

    with pytest.raises(
        BackendError, match=r"s.db cannot be used: .*no such table: trials.*; check .* to resume"
    ) as failed:
        search(f"sqlite:///{file}", 1, fail)
    assert "\n" not in str(failed.value)

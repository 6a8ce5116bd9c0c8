"""Step `tune` on small real artifacts: what it finds, tracks, resumes and refuses; it never sees the test split."""

import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.params import read_yaml
from components.services.tracking.mlflow import NAME, PARENT, Run, Tracking
from components.services.tuning import study
from components.steps import build_label_graph, train, tune
from dagnn_core.artifacts import write_artifact
from dagnn_core.config.space import apply, parse_space
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.features import Features, write_samples
from dagnn_core.reports.tuning.search import Search
from dagnn_core.training import loop
from pipeline.cli.tune import tune as command
from tests.fixtures import forked

Prepare = Callable[[Path, int], dict[str, Path]]
Tune = Callable[..., Search]

PARAMS = {
    "label_graph": {"threshold": 0.3},
    "model": {"embedding_dim": 8, "image_to_text_hidden": 8, "text_to_image_hidden": 8, "hops": 1},
    "train": {"epochs": 3, "lr": 1e-3, "batch_size": 16, "device": "cpu"},
}
COMMENTED = """# a configuration
model:
  embedding_dim: 8                 # small
  image_to_text_hidden: 8
  text_to_image_hidden: 8

train:
  epochs: 3                        # passes over the data
  lr: 2.0e-3                       # learning rate
  batch_size: 16
  device: cpu
"""
SPACE: dict[str, Any] = {
    "trials": 4,
    "seeds": [7],
    "model": {"hops": [1, 2]},
    "train": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}},
}


@pytest.fixture
def run(inputs: dict[str, Path], tracking: Tracking, tmp_path: Path) -> Tune:
    """Run the step with a space, on the shared features."""

    def tune_it(values: Mapping[str, Any] = SPACE, **others: Any) -> Search:
        space = parse_space(values)
        arguments = {
            **inputs,
            "dataset": inputs["features"].parent / "dataset",
            "base": space.over(PARAMS),
            "name": "s",
            "storage": str(tmp_path / "s.journal"),
            "tracking": tracking,
            "work": tmp_path / "work",
            "search_out": tmp_path / "out",
        }
        return tune.run(space=space, **arguments | others)

    return tune_it


def outcomes(search: Search) -> list[tuple[str, Mapping[str, object], float | None]]:
    return [(trial.state, trial.values, trial.val_map) for trial in search.trials]


def test_the_best_trial_is_what_train_makes_of_its_values(
    run: Tune, inputs: dict[str, Path], tracking: Tracking, tmp_path: Path
) -> None:
    search = run()
    assert [trial.state for trial in search.trials] == ["finished"] * 4
    assert search.best is not None and search.start is not None
    assert search.start.values == {"model.hops": 1, "train.lr": 1e-3}
    assert (search.best.val_map or 0) >= (search.start.val_map or 0)
    sections = apply(parse_space(SPACE).over(PARAMS | {"train": PARAMS["train"] | {"seed": 7}}), search.found)
    train.run(
        **inputs,
        model_params=sections["model"],
        params=sections["train"],
        tracking=tracking,
        work=tmp_path / "train",
        model_out=tmp_path / "model",
    )
    metrics = json.loads((tmp_path / "model/val_metrics.json").read_text())
    assert metrics["val_map_mean"] == search.best.val_map
    assert list((tmp_path / "work").iterdir()) == []
    record = json.loads((tmp_path / "out/tuning.json").read_text())
    assert record == json.loads(json.dumps(search.record())) and record["best"] == search.best.number
    assert "Search s" in (tmp_path / "out/tuning.html").read_text()


def poisoned(source: Path, out: Path) -> Path:
    """The same features, where nothing of the test split can be used."""
    features = Features.read(source)
    record = features.artifact.provenance
    with write_artifact(out, kind="features", provenance=record) as draft:
        shutil.copytree(source, draft.path, dirs_exist_ok=True)
        (draft.path / "manifest.json").unlink()
        rows = features.splits == "test"
        for name in ("image", "text", "labels"):
            matrix = np.load(source / f"{name}.npy")
            matrix[rows] = 1 - matrix[rows] if name == "labels" else np.nan
            np.save(draft.path / f"{name}.npy", matrix)
        draft.content |= features.artifact.content
    return out


def test_the_test_split_takes_no_part(run: Tune, inputs: dict[str, Path], tmp_path: Path) -> None:
    clean = run()
    other = poisoned(inputs["features"], tmp_path / "poisoned")
    assert np.isnan(Features.read(other).image).any()
    search = run(features=other, storage=str(tmp_path / "other.journal"))
    assert outcomes(search) == outcomes(clean)


@pytest.mark.slow
def test_each_trial_is_a_run_below_that_of_the_search(run: Tune, tracking: Tracking) -> None:
    search = run()
    client = tracking.client
    experiment = client.get_experiment_by_name(tracking.experiment)
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = (entry for entry in runs if PARENT not in entry.data.tags)
    assert parent.data.tags[NAME] == "s" and parent.info.status == "FINISHED"
    assert {entry.path for entry in client.list_artifacts(parent.info.run_id, "tuning")} == {
        "tuning/tuning.html",
        "tuning/tuning.json",
    }
    history = client.get_metric_history(parent.info.run_id, "best_val_map_mean")
    best = max(trial.val_map or 0 for trial in search.trials)
    assert sorted(metric.step for metric in history) == [0, 1, 2, 3] and history[-1].value == best
    trials = [entry for entry in runs if entry.data.tags.get(PARENT) == parent.info.run_id]
    assert {entry.info.status for entry in trials} == {"FINISHED"} and len(trials) == 4
    assert {float(entry.data.params["train.lr"]) for entry in trials} == {
        trial.values["train.lr"] for trial in search.trials
    }
    assert {entry.data.metrics["best_val_map_mean"] for entry in trials} == {trial.val_map for trial in search.trials}
    assert all(len(client.get_metric_history(entry.info.run_id, "val_map_mean")) == 3 for entry in trials)
    assert all(entry.data.tags["features_digest"] for entry in trials)


@pytest.mark.slow
def test_a_run_of_kubeflow_is_left_alone(run: Tune, tracking: Tracking) -> None:
    """It is opened for the task, which has many runs with parameters of their own."""
    client = tracking.client
    injected = client.create_run(client.create_experiment("e")).info.run_id
    search = run(tracking=replace(tracking, injected_run_id=injected))
    assert len(search.finished) == 4 and client.get_run(injected).data.params == {}


def interrupt_in(monkeypatch: pytest.MonkeyPatch, trial: int, epoch: int, error: BaseException | None = None) -> None:
    """Have an epoch of a trial end by Ctrl-C."""
    theirs = study.Draw.report

    def report(self: study.Draw, val_map: float, step: int) -> None:
        if (self.origin, step) == (trial, epoch):
            raise error or KeyboardInterrupt
        theirs(self, val_map, step)

    monkeypatch.setattr(study.Draw, "report", report)


@pytest.mark.slow
def test_an_interrupted_search_resumes(
    run: Tune, tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(storage=str(tmp_path / "whole.journal"), name="whole")
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_in(patch, 2, 2)
        run()
    assert "s: 2 finished" in caplog.text
    client = tracking.client
    experiment = client.get_experiment_by_name(tracking.experiment)
    of_search = f"tags.`{tune.SEARCH}` = 's'"
    states = [entry.info.status for entry in client.search_runs([experiment.experiment_id], of_search)]
    assert sorted(states) == ["FINISHED", "FINISHED", "KILLED", "KILLED"]  # two trials, the third, and the search
    resumed = run()
    assert outcomes(resumed) == outcomes(whole)
    runs = client.search_runs([experiment.experiment_id], of_search)
    assert [entry.info.status for entry in runs] == ["FINISHED"] * 5
    assert run().trials == resumed.trials
    assert len(run(num_trials=5).trials) == 5


def kill_at(owner: object, name: str, call: int) -> None:
    """Have this process be killed at a call of a function: the first is number 1."""
    theirs, calls = getattr(owner, name), itertools.count(1)

    def reached(*arguments: Any, **named: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return theirs(*arguments, **named)

    setattr(owner, name, reached)


MOMENTS: list[tuple[object, str, int]] = [
    (tune.Features, "read", 1),
    (study.Study, "check_identity", 1),
    (study.Study, "share", 1),  # the search has a run
    (study.Draw, "keep_run", 1),  # the first trial has one
    (study.Draw, "report", 2),
    (study.optuna.Study, "tell", 1),  # the trial that was lost is to be marked as failed
    (study, "_enqueue", 1),  # and to be put back
    (study.optuna.study._optimize, "_tell_with_warning", 1),  # the run of the trial has ended
    (study.Study, "_train", 2),  # the second trial does not know its process yet
    (tune, "_tell", 1),
    (study.Study, "value_of", 1),
    (study.Draw, "report", 1),
    (Run, "close_lost", 1),
    (tune, "_write", 1),
    (tune, "render_page", 1),
]


@pytest.mark.slow
def test_a_search_that_is_killed_again_and_again_ends_as_one_that_is_left_alone(
    run: Tune, tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(storage=str(tmp_path / "whole.journal"), name="whole")
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(study, "MAX_ATTEMPTS", len(MOMENTS))
    monkeypatch.setattr(study, "GRACE_SECONDS", 0.5)
    for owner, name, call in MOMENTS:

        def work(owner: object = owner, name: str = name, call: int = call) -> None:
            kill_at(owner, name, call)
            run()

        done = forked.fork(work, cwd=tmp_path).wait()
        assert done.returncode == -signal.SIGKILL, (name, done.stderr)
    search = run()
    assert sorted(map(str, outcomes(search))) == sorted(map(str, outcomes(whole)))
    client = tracking.client
    experiment = client.get_experiment_by_name(tracking.experiment)
    runs = client.search_runs([experiment.experiment_id], f"tags.`{tune.SEARCH}` = 's'")
    (parent,) = (entry for entry in runs if PARENT not in entry.data.tags)
    assert parent.info.status == "FINISHED"
    below = [entry for entry in runs if entry.data.tags.get(PARENT) == parent.info.run_id]
    assert [entry.info.status for entry in below].count("FINISHED") == len(search.trials)
    assert {entry.info.status for entry in below} == {"FINISHED", "KILLED"}
    for entry in below:
        steps = [metric.step for metric in client.get_metric_history(entry.info.run_id, "val_map_mean")]
        assert sorted(steps) == [1, 2, 3] or entry.info.status == "KILLED"
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.slow
def test_a_trial_trains_with_every_seed_and_their_mean_counts(run: Tune, tmp_path: Path) -> None:
    one, other = (
        run(SPACE | {"seeds": [seed], "trials": 1}, name=f"s{seed}", search_out=tmp_path / str(seed)) for seed in (7, 8)
    )
    both = run(SPACE | {"seeds": [7, 8], "trials": 1}, name="both")
    values = [search.trials[0].val_map or 0 for search in (one, other, both)]
    assert values[2] == pytest.approx((values[0] + values[1]) / 2) and values[0] != values[1]
    assert both.trials[0].num_epochs == 6


@pytest.mark.slow
def test_a_trial_of_several_seeds_resumes_where_it_was_and_logs_no_epoch_twice(
    run: Tune, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 1000.0)  # the second seed begins again
    space = SPACE | {"seeds": [7, 8], "trials": 1}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_in(patch, 0, tune._MAX_EPOCHS + 2)
        run(space)
    search = run(space)
    assert search.best is not None and search.best.val_map == run(space, name="whole").trials[0].val_map
    client = tracking.client
    experiment = client.get_experiment_by_name(tracking.experiment)
    (trial,) = client.search_runs(
        [experiment.experiment_id], f"tags.`{tune.SEARCH}` = 's' and tags.`{NAME}` = 'trial {search.best.number}'"
    )
    for seed in space["seeds"]:
        history = client.get_metric_history(trial.info.run_id, f"seed_{seed}/val_map_mean")
        assert [metric.step for metric in history] == [1, 2, 3]


@pytest.mark.slow
def test_trials_that_are_worse_end_early(
    run: Tune, tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "PRUNER", {"n_startup_trials": 1, "n_warmup_steps": 1})
    space = SPACE | {"trials": 12, "model": {"hops": [1, 2, 3]}}
    search = run(space)
    pruned = [trial for trial in search.trials if trial.state == "pruned"]
    assert pruned and min(trial.num_epochs for trial in pruned) < 3
    assert list((tmp_path / "work").iterdir()) == []
    client = tracking.client
    experiment = client.get_experiment_by_name(tracking.experiment)
    assert {entry.info.status for entry in client.search_runs([experiment.experiment_id])} == {"FINISHED"}
    whole = run(space | {"prune": False}, name="whole")
    assert {trial.state for trial in whole.trials} == {"finished"}


@pytest.mark.slow
def test_label_graphs_are_those_of_their_step(run: Tune, inputs: dict[str, Path], tmp_path: Path) -> None:
    space = SPACE | {"trials": 3, "label_graph": {"threshold": [0.3, 0.5, 0.7]}}
    search = run(space, label_graph=tmp_path / "none")
    for trial in search.trials:
        sections = apply(parse_space(space).over(PARAMS), trial.values)
        graph = tmp_path / f"graph-{trial.number}"
        build_label_graph.run(
            dataset=inputs["features"].parent / "dataset", params=sections["label_graph"], label_graph_out=graph
        )
        fixed = {key: value for key, value in trial.values.items() if key != "label_graph.threshold"}
        again = run(
            SPACE | {"trials": 1},
            base=apply(parse_space(SPACE).over(PARAMS), fixed),
            label_graph=graph,
            name=f"one-{trial.number}",
        )
        assert (again.trials[0].values, again.trials[0].val_map) == (fixed, trial.val_map)
    assert len({trial.values["label_graph.threshold"] for trial in search.trials}) > 1


@pytest.mark.slow
def test_values_that_fail_are_said_and_the_search_goes_on(run: Tune, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    space = {
        "trials": 8,
        "model": {"ranking": ["embedding", "labels"], "classification": ["distance", "cross_entropy"]},
    }
    search = run(space)
    failed = [trial for trial in search.trials if trial.state == "failed"]
    assert failed and all("model.ranking must be embedding" in trial.reason for trial in failed)
    assert search.best is not None and "failed: model.ranking must be embedding" in caplog.text


def test_a_search_in_which_all_fails_says_why(run: Tune, tracking: Tracking) -> None:
    space = {"trials": 2, "train": {"incomplete": "reconstruct", "lr": [0.1, 0.2]}, "model": {"discriminator": "none"}}
    message = r"no trial of the search s has finished: 2 failed \(the last one: train.incomplete"
    with pytest.raises(InputError, match=message):
        run(space)


@pytest.mark.slow
def test_progress_says_how_many_are_done_and_the_best(run: Tune, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    search = run()
    lines = [record.message for record in caplog.records if record.name == "components.steps.tune"]
    assert [line.split(":")[0] for line in lines[:4]] == [f"{done} of 4" for done in (1, 2, 3, 4)]
    assert search.best is not None
    assert lines[3].endswith(f"; best {search.best.val_map:.4f} in trial {search.best.number}")
    assert lines[-1].startswith(f"s: 4 finished; best val MAP {search.best.val_map:.4f}")
    assert not any("epoch" in record.message for record in caplog.records)


def without_val(source: Path, out: Path) -> Path:
    features = Features.read(source)
    with write_artifact(out, kind="features", provenance=features.artifact.provenance) as draft:
        shutil.copytree(source, draft.path, dirs_exist_ok=True)
        (draft.path / "manifest.json").unlink()
        splits = np.where(features.splits == "val", "train", features.splits).tolist()
        has = features.has_image.tolist(), features.has_text.tolist()
        write_samples(draft.path / "samples.parquet", features.ids, splits, *has)
        counts = {name: splits.count(name) for name in ("train", "val", "test")}
        draft.content |= features.artifact.content | {"splits": counts}
    return out


def test_wrong_inputs_are_one_line(run: Tune, inputs: dict[str, Path], prepare: Prepare, tmp_path: Path) -> None:
    other = prepare(tmp_path / "other", 1)
    run(SPACE | {"trials": 1})
    file = tmp_path / "file"
    file.touch()
    rows: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"features": without_val(inputs["features"], tmp_path / "v")}, InputError, "the val split has 0 items with"),
        ({"features": tmp_path / "none"}, ArtifactError, "does not exist, expected a features artifact"),
        ({"label_graph": other["label_graph"]}, ArtifactError, "were made from different data sets"),
        ({**other}, InputError, r"has the search 's' already, with other features"),
        ({"values": SPACE | {"seeds": [8]}}, InputError, r"with other seeds \('7', got '8'\)"),
        ({"values": SPACE | {"model": {"hops": [1, 3]}}}, InputError, "with other values to search"),
        ({"base": parse_space(SPACE).over({})}, InputError, "with other values of the configuration"),
        ({"values": SPACE | {"label_graph": {"threshold": [0.1, 0.2]}}}, InputError, "with other values to search"),
        ({"storage": str(file / "s")}, InputError, "cannot be a folder"),
        ({"search_out": file}, InputError, "file cannot be a folder"),
        (
            {
                "values": SPACE | {"label_graph": {"threshold": [0.1, 0.2]}},
                "dataset": tmp_path / "other/dataset",
            },
            ArtifactError,
            "was not made from",
        ),
    ]
    for changed, kind, message in rows:
        with pytest.raises(kind, match=message) as refused:
            run(changed.pop("values", SPACE | {"trials": 1}), **changed)
        assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_model_that_is_fitted_has_trials_too(run: Tune) -> None:
    search = run({"trials": 2, "model": {"kind": ["cca", "ridge"]}})
    assert [trial.state for trial in search.trials] == ["finished", "finished"]
    assert {trial.num_epochs for trial in search.trials} == {1}


@pytest.mark.slow
def test_the_command_ends_with_a_table_and_the_change_of_params(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "params.yaml").write_text(COMMENTED)
    (tmp_path / "rate.yaml").write_text(json.dumps(SPACE | {"train": {"lr": [1e-3, 0.03], "epochs": 2}}))
    command("rate.yaml", features=inputs["features"], label_graph=inputs["label_graph"], trials=3)
    shown = capsys.readouterr().out
    record = json.loads((tmp_path / "artifacts/tune/rate/tuning.json").read_text())
    assert [line.split()[0] for line in shown.splitlines()[:6]] == [
        *("trial", "val", "epochs", "seconds", "model.hops", "train.lr")
    ]
    assert len(record["trials"]) == 3
    written = parse_space(SPACE).over(read_yaml(tmp_path / "artifacts/tune/rate/params.yaml"))
    for key, value in record["found"].items():
        section, _, field = key.partition(".")
        assert getattr(written[section], field) == value
    patch = shown[shown.index("--- a/params.yaml") :].rstrip("\n") + "\n"
    subprocess.run(["git", "apply", "-"], input=patch, text=True, check=True, cwd=tmp_path)
    changed = (tmp_path / "params.yaml").read_text()
    assert changed == (tmp_path / "artifacts/tune/rate/params.yaml").read_text() != COMMENTED
    assert "# passes over the data" in changed and "  epochs: 2 " in changed

    command("rate.yaml", features=inputs["features"], label_graph=inputs["label_graph"], trials=1, name="again")
    assert (tmp_path / "artifacts/tune/again.journal").is_file()

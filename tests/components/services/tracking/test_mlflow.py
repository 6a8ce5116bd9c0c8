import ctypes
import json
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase
from sqlalchemy import NullPool, create_engine

from components.services.promotion.promotion import read_history
from components.services.registry.versions import log_evaluation
from components.services.tracking.mlflow import DEFAULT_URI, RECREATED_FROM, Tracking, split_of_data
from dagnn_core.artifacts import read_artifact, write_artifact
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import ArtifactError, BackendError, InputError
from dagnn_core.locks import hold_lock
from tests.components.fault_proxy import Fault, FaultProxy
from tests.fixtures import forked
from tests.fixtures.mlflow_server import mlflow_server

DIGESTS = {"dataset": "d" * 64, "features": "f" * 64, "label_graph": "9" * 64}
TRAINING = {
    "params": {"model": ModelConfig(hops=3), "train": TrainConfig(lr=5e-5)},
    "ancestors": DIGESTS,
    "git": {"commit": "c0ffee", "dirty": False},
}
HISTORY = [{"epoch": 1, "loss_total": 2.5, "val_map_mean": 0.5}, {"epoch": 2, "loss_total": 1.5, "val_map_mean": 0.75}]


def database_file(tracking):
    return Path(tracking.uri.removeprefix("sqlite:///"))


def run_of(tracking, run_id):
    return tracking.client.get_run(run_id)


def all_runs(tracking):
    return tracking.client.search_runs([e.experiment_id for e in tracking.client.search_experiments()])


def history_of(tracking, run_id, name):
    return [(metric.step, metric.value) for metric in tracking.client.get_metric_history(run_id, name)]


def make_model(path, provenance):
    with write_artifact(path, kind="model", provenance=provenance) as draft:
        (draft.path / "history.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in HISTORY))
    return read_artifact(path, "model")


@pytest.fixture
def model(tmp_path):
    """A model that was trained on another server."""
    provenance = {
        "params": {"model": {"hops": 3}, "train": {"lr": 5e-5}},
        "ancestors": DIGESTS,
        "git": {"commit": "c0ffee", "dirty": True},
        "mlflow_run_id": "a" * 32,
    }
    return make_model(tmp_path / "model", provenance)


def test_the_digest_of_data_under_dvc_is_that_of_dvc(tracking):
    md5 = "b" * 32 + ".dir"
    with tracking.training_run(**TRAINING | {"ancestors": DIGESTS | {"raw": md5}}) as run:
        pass
    [dataset] = run_of(tracking, run.run_id).inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("train-" + "d" * 12, md5)


def test_training_run_holds_everything_about_a_training(tracking):
    from mlflow.data import get_source

    with tracking.training_run(**TRAINING) as run:
        assert run_of(tracking, run.run_id).info.status == "RUNNING"
        run.log_metrics({"loss_total": 2.5}, 1)
        run.log_metrics({"loss_total": 1.5}, 2)

    stored = run_of(tracking, run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.params["model.hops"] == "3"
    assert stored.data.params["train.lr"] == "5e-05"
    assert stored.data.tags["git_commit"] == "c0ffee"
    assert stored.data.tags["git_dirty"] == "false"
    assert stored.data.tags["label_graph_digest"] == "9" * 64
    assert history_of(tracking, run.run_id, "loss_total") == [(1, 2.5), (2, 1.5)]
    [dataset] = stored.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("train-" + "d" * 12, "d" * 36)
    assert get_source(dataset).to_dict() == {"tags": {"content_digest": "d" * 64}}
    assert tracking.client.get_experiment(stored.info.experiment_id).name == "dagnn"


def test_files_lie_beside_a_local_database(tracking, tmp_path):
    report = tmp_path / "some report"
    report.mkdir()
    (report / "report.html").write_text("<html>")
    with tracking.training_run(**TRAINING) as run:
        run.log_directory(report, "report")

    assert [entry.path for entry in tracking.client.list_artifacts(run.run_id, "report")] == ["report/report.html"]
    files = list((database_file(tracking).parent / "mlartifacts").rglob("report.html"))
    assert [file.read_text() for file in files] == ["<html>"]


def test_long_parameter_is_cut_to_what_mlflow_takes(tracking):
    params = {"label_graph": LabelGraphConfig(embedding_file="x" * 7000)}
    for _ in range(2):  # the cut value is the same when the run is opened again
        with tracking.training_run(**TRAINING | {"params": params}) as run:
            tracking = replace(tracking, injected_run_id=run.run_id)

    assert run_of(tracking, run.run_id).data.params["label_graph.embedding_file"] == "x" * 6000


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("bad"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(1), "FAILED")]
)
def test_broken_training_is_marked_and_raised(tracking, error, status):
    with pytest.raises(type(error)), tracking.training_run(**TRAINING) as run:
        raise error
    assert run_of(tracking, run.run_id).info.status == status


def test_interrupted_training_goes_on_in_its_run_and_logs_no_epoch_twice(tracking):
    with pytest.raises(KeyboardInterrupt), tracking.training_run(**TRAINING) as run:
        run.log_metrics({"loss_total": 2.5, "val_map_mean": 0.5}, 1)
        raise KeyboardInterrupt
    with tracking.training_run(**TRAINING, run_id=run.run_id) as resumed:
        assert run_of(tracking, run.run_id).info.status == "RUNNING"
        resumed.log_metrics({"loss_total": 2.5, "val_map_mean": 0.5}, 1)  # since its last checkpoint was before
        resumed.log_metrics({"loss_total": 1.5, "val_map_mean": 0.6}, 2)

    assert resumed.run_id == run.run_id
    assert run_of(tracking, run.run_id).info.status == "FINISHED"
    assert history_of(tracking, run.run_id, "loss_total") == [(1, 2.5), (2, 1.5)]


def test_interrupted_training_gets_a_new_run_where_its_own_is_gone(tracking):
    with tracking.training_run(**TRAINING) as run:
        pass
    tracking.client.delete_run(run.run_id)
    for lost in (run.run_id, "0" * 32):
        with tracking.training_run(**TRAINING, run_id=lost) as other:
            assert other.run_id != lost


def test_injected_run_is_adopted_as_often_as_asked(tracking, monkeypatch):
    experiment = tracking.client.create_experiment("pipeline")
    injected = tracking.client.create_run(experiment).info.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    for _ in range(2):
        with Tracking.from_environment().training_run(**TRAINING) as run:
            assert run.run_id == injected
    assert os.environ["MLFLOW_RUN_ID"] == injected
    assert len(all_runs(tracking)) == 1


def test_only_a_training_takes_the_run_that_kubeflow_opened_for_its_task(tracking, tmp_path, monkeypatch):
    """The environment of a pod as Kubeflow Pipelines 2.17 sets it; the whole steps are in `test_run_of_kubeflow`."""
    client = tracking.client
    experiment = client.create_experiment("dagnn")
    parent = client.create_run(experiment, tags={"kfp.pipeline_run_id": "5e1f"}).info.run_id
    train, evaluate = (
        client.create_run(experiment, tags={"mlflow.parentRunId": parent, "mlflow.runName": name}).info.run_id
        for name in ("train", "evaluate")
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    monkeypatch.setenv("MLFLOW_RUN_ID", train)
    with Tracking.from_environment().training_run(**TRAINING) as run:
        assert run.run_id == train
    assert client.get_run(train).data.tags["mlflow.parentRunId"] == parent

    before = client.get_run(evaluate).to_dictionary()
    monkeypatch.setenv("MLFLOW_RUN_ID", evaluate)
    model = make_model(tmp_path / "model", {"mlflow_run_id": train})
    with Tracking.from_environment().resumed_run(model) as resumed:
        resumed.log_metrics({"map_mean": 0.7})
    assert resumed.run_id == train and client.get_run(train).data.metrics["map_mean"] == 0.7
    assert client.get_run(evaluate).to_dictionary() == before
    assert tracking.run_of_kubeflow("5e1f") == parent and tracking.run_of_kubeflow("another") is None
    assert replace(tracking, experiment="another").run_of_kubeflow("5e1f") is None
    assert replace(tracking, experiment="another").run_of_kubeflow("5e1f", experiment) == parent


def test_injected_run_must_exist(tracking):
    injected = replace(tracking, injected_run_id="0" * 32)
    with pytest.raises(InputError, match=r"MLFLOW_RUN_ID is 0+, a run that sqlite:.*does not have; .*unset"):
        injected.training_run(**TRAINING).__enter__()


def test_injected_run_of_another_training_is_refused(tracking):
    with tracking.training_run(**TRAINING) as run:
        pass
    other = replace(tracking, injected_run_id=run.run_id)
    params = {"params": {"model": ModelConfig(hops=2), "train": TrainConfig()}}
    with pytest.raises(InputError, match=r"was made with model.hops = 3, got 2; unset MLFLOW_RUN_ID"):
        other.training_run(**TRAINING | params).__enter__()


def test_model_resumes_the_run_that_trained_it(tracking, tmp_path):
    with tracking.training_run(**TRAINING) as run:
        model = make_model(tmp_path / "model", {"mlflow_run_id": run.run_id})
    before = run_of(tracking, run.run_id).info
    with tracking.resumed_run(model) as resumed:
        resumed.log_metrics({"map_mean": 0.7})

    stored = run_of(tracking, run.run_id)
    assert resumed.run_id == run.run_id
    assert stored.data.metrics == {"map_mean": 0.7}
    assert (stored.info.status, stored.info.end_time) == ("FINISHED", before.end_time)


def test_run_is_recreated_from_the_model_where_the_server_does_not_know_it(tracking, model):
    with tracking.resumed_run(model) as run:
        run.log_metrics({"map_mean": 0.7})

    stored = run_of(tracking, run.run_id)
    assert run.run_id != model.provenance["mlflow_run_id"]
    assert stored.info.status == "FINISHED"
    assert stored.data.params == {"model.hops": "3", "train.lr": "5e-05"}
    assert stored.data.tags[RECREATED_FROM] == "a" * 32
    assert stored.data.tags["features_digest"] == "f" * 64
    assert stored.data.tags["git_dirty"] == "true"
    assert history_of(tracking, run.run_id, "val_map_mean") == [(1, 0.5), (2, 0.75)]
    assert "epoch" not in stored.data.metrics
    assert stored.inputs.dataset_inputs[0].dataset.digest == "d" * 36


def test_run_is_recreated_once(tracking, model):
    with tracking.resumed_run(model) as first:
        pass
    with tracking.resumed_run(model) as second:
        pass
    assert first.run_id == second.run_id
    assert len(all_runs(tracking)) == 1


def test_interrupted_recreation_is_not_taken_for_a_whole_one(tracking, model, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tracking.client, "set_terminated", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tracking.resumed_run(model).__enter__()
    with tracking.resumed_run(model) as run:
        pass
    assert history_of(tracking, run.run_id, "loss_total") == [(1, 2.5), (2, 1.5)]


def test_model_without_a_run_is_refused(tracking, tmp_path):
    model = make_model(tmp_path / "model", {})
    with pytest.raises(ArtifactError, match=r"manifest.json names no MLflow run; run `dvc repro --force train`"):
        tracking.resumed_run(model).__enter__()


def test_deleted_experiment_is_named(tracking):
    with tracking.training_run(**TRAINING) as run:
        pass
    experiment = run_of(tracking, run.run_id).info.experiment_id
    tracking.client.delete_experiment(experiment)
    with pytest.raises(InputError, match=r"experiment 'dagnn' was deleted; run `mlflow experiments restore -x 1`"):
        replace(tracking).training_run(**TRAINING).__enter__()


def test_server_lost_on_the_way_costs_one_warning(tracking, caplog):
    with caplog.at_level(logging.WARNING), tracking.training_run(**TRAINING) as run:
        run.log_metrics({"loss_total": 2.5}, 1)
        database_file(tracking).write_bytes(b"no database any more " * 1000)
        run.log_metrics({"loss_total": 2.0}, 2)
        run.log_metrics({"loss_total": 1.5}, 3)

    [warning] = [
        record.getMessage() for record in caplog.records if record.name == "components.services.tracking.mlflow"
    ]
    assert "MLflow at sqlite:///" in warning
    assert run.run_id in warning


def begin_at_the_same_moment(tracking, folder):
    """Three processes, each with a temporary folder of its own as on three machines, make a run."""

    def work():
        tempfile.tempdir = tempfile.mkdtemp(dir=folder)
        while not (folder / "begin").exists():
            time.sleep(0.001)
        with tracking.training_run(**TRAINING):
            pass

    workers = [forked.fork(work, cwd=folder) for _ in range(3)]
    (folder / "begin").touch()
    for worker in workers:
        done = worker.wait()
        assert done.returncode == 0, done.stderr
    assert [entry.info.status for entry in all_runs(tracking)] == ["FINISHED"] * 3


@pytest.mark.slow
def test_processes_that_begin_at_the_same_moment_share_one_new_database(tmp_path):
    begin_at_the_same_moment(Tracking(uri=f"sqlite:///{tmp_path}/new/mlflow.db"), tmp_path)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"mlflow.db"}


@pytest.mark.slow
@pytest.mark.parametrize("database", ["new", "half_made"])
def test_processes_that_begin_at_the_same_moment_share_one_new_database_of_postgresql(tmp_path, postgres, database):
    server = create_engine(postgres, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {database}")
    uri = postgres.replace("/postgres?", f"/{database}?")
    if database == "half_made":  # by a process that was killed
        InitialBase.metadata.create_all(create_engine(uri, poolclass=NullPool))
    begin_at_the_same_moment(Tracking(uri=uri), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["database", "server", "registration"])
def test_two_runs_that_name_one_new_data_set_at_the_same_moment(tmp_path, postgres, where):
    described = {
        "content_digest": "e" * 64,
        "raw": {},
        "splits": {"test": 1},
        "rejected": {},
        "label_counts": {"test": {}},
    }
    with ExitStack() as stack:
        uri = stack.enter_context(mlflow_server(postgres, tmp_path)) if where == "server" else postgres
        tracking = Tracking(uri=uri, experiment=where)
        run = stack.enter_context(tracking.training_run(**TRAINING))
        new = split_of_data("test", "e" * 64, {})
        other = stack.enter_context(create_engine(postgres, poolclass=NullPool).connect())
        other.exec_driver_sql(  # as another process would, which has not committed yet
            "INSERT INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source)"
            " VALUES ('other', %s, %s, %s, 'code', '{}')",
            (int(run_of(tracking, run.run_id).info.experiment_id), new.name, new.digest),
        )
        threads = stack.enter_context(ThreadPoolExecutor())
        if where == "registration":
            naming = threads.submit(log_evaluation, tracking.client, run, "m-1", {}, described)
        else:
            naming = threads.submit(run.log_dataset, new, context="test")
        while not other.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar():
            assert not naming.done()
            time.sleep(0.01)
        other.commit()
        naming.result()

    done = run_of(Tracking(uri=postgres), run.run_id)
    assert done.info.status == "FINISHED"
    assert [used.dataset.digest for used in done.inputs.dataset_inputs] == [DIGESTS["dataset"][:36], "e" * 36]


@pytest.mark.slow
def test_a_new_database_appears_whole_though_its_maker_is_killed(tmp_path):
    file, draft = (tmp_path / name for name in ("mlflow.db", "mlflow.db.new"))
    tracking = Tracking(uri=f"sqlite:///{file}")

    def make():
        tracking.client.search_experiments()

    with forked.fork(make, cwd=tmp_path) as maker:
        while not draft.exists() or not draft.stat().st_size:
            assert maker.poll() is None and not file.exists()
            time.sleep(0.001)
        maker.send_signal(signal.SIGKILL)
        while maker.poll() is None:
            time.sleep(0.01)
    assert draft.exists() and not file.exists()
    assert [experiment.name for experiment in tracking.client.search_experiments()] == ["Default"]
    assert list(tmp_path.iterdir()) == [file]


def test_a_process_does_not_wait_for_ever_for_another_that_makes_the_database(tmp_path, monkeypatch):
    monkeypatch.setattr("components.services.tracking.mlflow.MAKING_SECONDS", 0.0)
    message = r"mlflow.db.lock: another process makes the tables .* \(process \d+ on .*; end it if it hangs"
    with (
        hold_lock(tmp_path / "mlflow.db.lock", busy="", remedy="", elsewhere=""),
        pytest.raises(BackendError, match=message),
    ):
        Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db").client.search_experiments()


def test_damaged_database(tmp_path):
    file = tmp_path / "mlflow.db"
    file.write_bytes(b"no database " * 100)
    with pytest.raises(BackendError, match=r"mlflow.db cannot be used: file is not a database; .*move a damaged"):
        Tracking(uri=f"sqlite:///{file}").training_run(**TRAINING).__enter__()


def test_locked_database(tracking, monkeypatch):
    monkeypatch.setattr("components.services.tracking.mlflow.PROBE_SECONDS", 0.1)
    with closing(sqlite3.connect(database_file(tracking))) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BackendError, match=r"database is locked; end the program that uses the file"):
            tracking.training_run(**TRAINING).__enter__()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "http://127.0.0.1:9",
            r"http://127.0.0.1:9 cannot be used: .*refused.*; start the server or correct",
        ),
        ("http://ann:secret@127.0.0.1:9", r"MLflow at http://127.0.0.1:9 cannot"),
        ("gopher://nowhere", r"unsupported URI 'gopher://nowhere'"),
        ("./mlruns", r"file.*maintenance mode"),
    ],
)
def test_server_that_cannot_be_used(uri, message):
    with pytest.raises(BackendError, match=message) as caught:
        Tracking(uri=uri).training_run(**TRAINING).__enter__()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_answers_with_a_failure_is_not_to_be_started(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    broken = FaultProxy("http://127.0.0.1:9", plan=lambda request: Fault(kind="error", status=500))
    with broken as proxy, pytest.raises(BackendError) as caught:
        Tracking(uri=proxy.url).training_run(**TRAINING).__enter__()
    assert str(caught.value) == (
        f"MLflow at {proxy.url} cannot be used: it answers 500 Internal Server Error; the server's log says why; check "
        "that it reaches its database and the store of its files"
    )


def test_a_transfer_past_the_server_that_failed_names_the_store():
    """MLflow hands such failures on as text, with a signed address, which must not be shown."""
    from mlflow.exceptions import MlflowException

    signed = "host='s3.dagnn', port=8333): Max retries exceeded with url: /dagnn/file?X-Amz-Signature=5ec2e7"
    failure = MlflowException(f"Failed to upload at least one part of file. Errors: HTTPConnectionPool({signed}")
    with pytest.raises(BackendError) as caught, Tracking(uri="http://mlflow:5000").answering():
        raise failure
    assert str(caught.value) == (
        "the store that MLflow at http://mlflow:5000 names for its files cannot be used from here: s3.dagnn cannot be "
        "reached; set MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD and MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD to false (in a "
        "target: mlflow_direct_s3) to go through MLflow's server, or open a way to the store"
    )


def test_environment_names_server_experiment_and_run(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    assert Tracking.from_environment() == Tracking(uri=DEFAULT_URI, experiment="dagnn", injected_run_id=None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@mlflow:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "demo")
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    tracking = Tracking.from_environment()
    assert (tracking.experiment, tracking.injected_run_id) == ("demo", "abc")
    assert tracking.browse == "http://mlflow:5000"
    assert Tracking().browse == "mlflow ui --backend-store-uri sqlite:///mlflow.db"


def test_module_loads_without_mlflow():
    code = "import sys, components.services.tracking.mlflow; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_mlflow_starts_quietly_without_telemetry_and_without_uv():
    code = (
        "from components.services.tracking.mlflow import Tracking; Tracking()\n"
        "import logging, mlflow\n"
        "from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY as quiet, MLFLOW_UV_AUTO_DETECT as uv\n"
        "print(quiet.get(), uv.get(), logging.getLogger('mlflow').level)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["True", "False", str(logging.WARNING)]


def test_who_acts_is_the_account_else_user_and_machine(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    assert Tracking.from_environment().who == "ann"
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.setenv("USER", "bob")
    monkeypatch.setenv("LOGNAME", "bob")
    assert Tracking.from_environment().who == f"bob@{socket.gethostname()}"


@pytest.mark.parametrize(("status", "code"), [(401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED")])
def test_account_that_may_not_is_told_so(tracking, status, code):
    from mlflow.exceptions import MlflowException, get_error_code

    with (
        pytest.raises(
            BackendError, match=r"does not permit this: no; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASS"
        ),
        tracking.answering(),
    ):
        error = MlflowException("no", error_code=get_error_code(status))
        assert error.error_code == code
        raise error


def test_a_reader_makes_no_database(tmp_path: Path) -> None:
    tracking = Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(
        InputError, match=r"mlflow.db does not exist; go to the folder that has it, set MLFLOW_TRACKING"
    ):
        read_history(tracking, name="dagnn")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("debug", [False, True])
def test_a_read_only_database_is_one_line_without_mlflows_traceback(tracking, debug):
    assert tracking.client.search_experiments()
    file = database_file(tracking)
    file.chmod(0o444)
    program = (
        "from components.command import run_command\n"
        "from components.services.tracking.mlflow import Tracking\n"
        "def main():\n"
        "    git = {'commit': 'c0ffee', 'dirty': False}\n"
        "    with Tracking.from_environment().training_run(params={}, ancestors={}, git=git): pass\n"
        "run_command(main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ
        | {"MLFLOW_TRACKING_URI": tracking.uri, "MLFLOW_EXPERIMENT_NAME": "new", "DAGNN_DEBUG": str(int(debug))},
        preexec_fn=lambda: ctypes.CDLL(None).prctl(24, 1),  # also for root, who else may write everything
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert ("Traceback" in done.stderr) is debug
    *_, line = done.stderr.splitlines()
    assert "attempt to write a readonly database; change the permissions of the file and of its folder" in line
    assert debug or done.stderr == line + "\n"

"""Registering at an MLflow server with accounts (basic auth): who may, who may not, and who it was."""

import os
import shutil
import subprocess
import sys

import pytest
import requests

from components.services.promotion.ledger import Action, Ledger, Record
from components.services.promotion.promotion import read_history
from components.services.registry.copying import copy_version, other_registry
from components.services.registry.stored_model import find_fault
from components.services.registry.versions import CHALLENGER, CHAMPION
from components.services.tracking.mlflow import Tracking
from components.steps.register import run
from dagnn_core.errors import BackendError
from tests.components.steps.test_register import PARAMS, RAW, make_model, make_report
from tests.fixtures.mlflow_server import basic_auth, mlflow_server

pytestmark = pytest.mark.slow
ACCOUNTS = {"owner": "password-of-owner", "reader": "password-of-reader", "editor": "password-of-editor"}


@pytest.fixture(scope="module")
def server(empty_database, tmp_path_factory):
    """URI of the server; `owner` is its administrator, and the others may read everything, but nothing more."""
    folder = tmp_path_factory.mktemp("accounts")
    shutil.copy(empty_database, folder / "mlflow.db")
    options, environment = basic_auth(folder, "owner", ACCOUNTS["owner"])
    with mlflow_server(f"sqlite:///{folder}/mlflow.db", folder, *options, environment=environment) as uri:
        yield uri


@pytest.fixture(scope="module")
def artifacts(server, tmp_path_factory):
    """A model that `owner` has registered as version 1 of `scenes`, and another; only `editor` may add to `scenes`."""
    root = tmp_path_factory.mktemp("artifacts")
    made = {}
    for seed, name in enumerate(("first", "second")):
        model = make_model(root / name, RAW, seed=seed)
        made[name] = {"model": model, "report": make_report(root / f"report_{name}", model)}
    with pytest.MonkeyPatch.context() as patch:
        log_in(patch, "owner")
        patch.setenv("MLFLOW_TRACKING_URI", server)
        tracking = Tracking.from_environment()
        run(**made["first"], params=PARAMS, tracking=tracking)
        for name in ("reader", "editor"):
            as_owner(server, "2.0/mlflow/users/create", username=name, password=ACCOUNTS[name])
        experiment = tracking.client.get_experiment_by_name(tracking.experiment).experiment_id
        for kind, resource in (("experiment", experiment), ("registered_model", "scenes")):
            what = {"resource_type": kind, "resource_id": resource, "permission": "EDIT"}
            as_owner(server, "3.0/mlflow/users/permissions/grant", username="editor", **what)
    return made


def as_owner(server: str, route: str, **body: str) -> None:
    login = ("owner", ACCOUNTS["owner"])
    requests.post(f"{server}/api/{route}", json=body, auth=login, timeout=60).raise_for_status()


def log_in(patch: pytest.MonkeyPatch, account: str, password: str | None = None) -> None:
    patch.setenv("MLFLOW_TRACKING_USERNAME", account)
    patch.setenv("MLFLOW_TRACKING_PASSWORD", password or ACCOUNTS[account])


def command(server: str, artifacts, *more: str) -> subprocess.CompletedProcess[str]:
    """`dagnn register`, by the account that is logged in."""
    code = "from components.command import run_step; from pipeline.cli.registry import register; run_step(register)"
    paths = ("--model", artifacts["model"], "--report", artifacts["report"])
    return subprocess.run(
        [sys.executable, "-c", code, *paths, "--params", '{"model_name": "scenes"}', *more],
        env=os.environ | {"MLFLOW_TRACKING_URI": server},
        capture_output=True,
        text=True,
        check=False,
    )


def versions(server: str, patch: pytest.MonkeyPatch) -> list[str]:
    log_in(patch, "owner")
    return sorted(str(found.version) for found in Tracking(uri=server).client.search_model_versions("name = 'scenes'"))


@pytest.mark.parametrize(("account", "password"), [("reader", None), ("editor", "wrong"), ("nobody", "unknown")])
def test_who_may_not_is_told_so_and_changes_nothing(server, artifacts, monkeypatch, account, password):
    before = versions(server, monkeypatch)
    log_in(monkeypatch, account, password)
    done = command(server, artifacts["second"])
    assert done.returncode == 3, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: MLflow at {server} does not permit this: ")
    assert line.endswith("set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD of an account that may do it")
    assert "Traceback" not in done.stderr and (password or ACCOUNTS[account]) not in done.stderr
    assert versions(server, monkeypatch) == before


def test_without_an_account_nothing_is_possible(server, artifacts, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD", raising=False)
    done = command(server, artifacts["second"])
    assert done.returncode == 3
    assert f"error: MLflow at {server} does not permit this: " in done.stderr


def test_an_editor_may_and_the_records_name_the_account(server, artifacts, monkeypatch):
    log_in(monkeypatch, "editor")
    done = command(server, artifacts["second"])
    assert done.returncode == 0, done.stderr
    assert "registered  scenes version 2, alias challenger" in done.stdout

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    tracking = Tracking.from_environment()
    first, second = (tracking.client.get_model_version("scenes", version) for version in ("1", "2"))
    assert (first.tags["registered_by"], second.tags["registered_by"]) == ("owner", "editor")
    assert str(tracking.client.get_model_version_by_alias("scenes", CHALLENGER).version) == "2"
    assert find_fault(tracking, second) is None

    ledger = Ledger(client=tracking.client, model="scenes", alias=CHAMPION, fault=lambda version: None)
    record = Record(action=Action.PROMOTED, source=None, target="2", who=tracking.who, why="")
    assert ledger.move(record) is None
    assert [event.who for event in read_history(tracking, name="scenes").events] == ["editor"]


def test_a_copy_is_made_by_the_account_of_the_other_registry(
    server, artifacts, empty_database, monkeypatch, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("prod")
    shutil.copy(empty_database, folder / "mlflow.db")
    options, environment = basic_auth(folder, "operator", "password-of-operator")
    log_in(monkeypatch, "owner")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    source = Tracking.from_environment()
    version = source.client.get_model_version("scenes", "1")
    with mlflow_server(f"sqlite:///{folder}/mlflow.db", folder, *options, environment=environment) as uri:
        with pytest.raises(BackendError, match=r"not permit this: .*; set DAGNN_TO_USERNAME and DAGNN_TO_PASSWORD of"):
            copy_version(source, version, other_registry(source, uri))
        monkeypatch.setenv("DAGNN_TO_USERNAME", "operator")
        monkeypatch.setenv("DAGNN_TO_PASSWORD", "password-of-operator")
        for is_new in (True, False):
            assert copy_version(source, version, other_registry(source, uri)).is_new == is_new
        assert os.environ["MLFLOW_TRACKING_USERNAME"] == "owner"
        assert source.client.get_model_version("scenes", "1").tags["registered_by"] == "owner"
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "operator")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "password-of-operator")
        copied = Tracking(uri=uri).client.get_model_version_by_alias("scenes", CHALLENGER)
        assert (str(copied.version), copied.tags["registered_by"]) == ("1", "operator")

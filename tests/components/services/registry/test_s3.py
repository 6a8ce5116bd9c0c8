"""The registry with its tables in Postgres and its files in S3, by way of the server and directly."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.services.registry.stored_model import find_fault
from components.services.registry.versions import CHALLENGER
from components.services.tracking.mlflow import Tracking
from components.steps.register import run
from dagnn_core.config.register import RegisterConfig
from dagnn_core.errors import BackendError
from dagnn_core.model.embedder import TrainedModel
from tests.components.fault_proxy import Fault, FaultProxy, Request
from tests.components.steps.test_register import RAW, TEXTS, make_model, make_report
from tests.fixtures.mlflow_server import mlflow_server
from tests.fixtures.s3 import AWS, SECRET, Bucket, make_bucket

pytestmark = pytest.mark.slow
WAYS = ("through the server", "directly")


@pytest.fixture(scope="module")
def store(s3_server) -> Iterator[FaultProxy]:
    """The S3 server, which fails as a test plans."""
    with FaultProxy(s3_server) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def store_bucket(s3_server, s3_client) -> Bucket:
    return make_bucket(s3_server, s3_client)


@pytest.fixture(scope="module")
def store_access(store) -> dict[str, str]:
    return AWS | {"MLFLOW_S3_ENDPOINT_URL": store.url, "AWS_MAX_ATTEMPTS": "1", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module", params=WAYS)
def server(request, postgres, store_bucket, store_access, tmp_path_factory):
    """Which way, and the URI of the server."""
    through = ("--artifacts-destination", f"{store_bucket.uri}/served")
    direct = ("--no-serve-artifacts", "--default-artifact-root", f"{store_bucket.uri}/direct")
    options = through if request.param == WAYS[0] else direct
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(postgres, folder, *options, environment=store_access) as uri:
        yield request.param, uri


@pytest.fixture
def tracking(server, store_access, monkeypatch) -> Tracking:
    """A client that may reach S3 itself only where it has to."""
    way, uri = server
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in (store_access if way == "directly" else {}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    return Tracking(uri=uri, experiment=way)


@pytest.fixture
def artifacts(tmp_path) -> dict[str, Path]:
    model = make_model(tmp_path / "model", RAW)
    return {"model": model, "report": make_report(tmp_path / "report", model)}


def registered_as(name: str) -> RegisterConfig:
    return RegisterConfig(model_name=name, data_licence="CC BY 4.0")


def versions(tracking: Tracking, name: str) -> list:
    return list(tracking.client.search_model_versions(f"name = '{name}'"))


def test_a_version_in_s3_is_whole_and_can_be_loaded(tracking, server, store_bucket, artifacts, tmp_path):
    name = f"scenes-{WAYS.index(server[0])}"  # both servers have the same tables
    version = run(**artifacts, params=registered_as(name), tracking=tracking)
    stored = tracking.client.get_model_version(*version)
    assert find_fault(tracking, stored) is None
    folder = f"/models/{stored.tags['mlflow_model_id']}/artifacts/"
    files = {key.partition(folder)[2] for key in store_bucket.keys if folder in key}
    assert {"MLmodel", "card.md", "card.html", "requirements.txt", "artifacts/model/model.safetensors"} <= files
    assert stored.description.startswith("# Model card: scenes")
    assert run(**artifacts, params=registered_as(name), tracking=tracking) == version

    code = (
        "import json, mlflow, sys\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "print(json.dumps(model.predict([{'text': text} for text in sys.argv[2:]]).tolist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"models:/{name}@{CHALLENGER}", *TEXTS],
        env=os.environ | {"MLFLOW_TRACKING_URI": tracking.uri},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = TrainedModel.read(artifacts["model"]).encode_texts(TEXTS)
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), expected, atol=1e-5)

    [weights] = [key for key in store_bucket.keys if folder in key and key.endswith("model.safetensors")]
    store_bucket.client.delete_object(Bucket=store_bucket.name, Key=weights)
    assert find_fault(tracking, stored) == (
        "has lost its files: artifacts/model/model.safetensors is missing in its store"
    )
    assert run(**artifacts, params=registered_as(name), tracking=tracking).version == "2"


@pytest.mark.parametrize("kind", ["reset", "error"])
def test_registering_again_completes_after_s3_was_down(tracking, server, store, artifacts, kind):
    """At first it takes nothing, then all but the weights, then all but the card."""
    way, uri = server
    name = f"down-{kind}-{WAYS.index(way)}"
    tracking = replace(tracking, experiment=name)
    for refused in ("", "model.safetensors", "card.md"):

        def plan(request: Request, refused: str = refused) -> Fault | None:
            is_hit = request.method == "PUT" and request.path.partition("?")[0].endswith(refused)
            return Fault(kind=kind) if is_hit else None

        store.plan = plan
        try:
            with pytest.raises(BackendError) as caught:
                run(**artifacts, params=registered_as(name), tracking=tracking)
        finally:
            store.plan = lambda request: None
        line = str(caught.value)
        start = "the store of MLflow's files, to which" if way == "directly" else f"MLflow at {uri} cannot be used: "
        assert line.startswith(start) and "\n" not in line and SECRET not in line
        assert versions(tracking, name) == [], "no version without files"

    version = run(**artifacts, params=registered_as(name), tracking=tracking)
    [stored] = versions(tracking, name)
    assert (version.version, str(stored.version)) == ("1", "1")
    assert find_fault(tracking, stored) is None
    assert tracking.client.get_model_version_by_alias(name, CHALLENGER).version == stored.version


def test_a_long_card_fits_into_the_database(tracking, tmp_path, server):
    name = f"long-{WAYS.index(server[0])}"
    model = make_model(tmp_path / "model", RAW)
    labels = ["boat", "sea", "night", *(f"etikett åäö {number} 🐟" for number in range(300))]
    report = make_report(tmp_path / "report", model, label_names=labels)
    run(model=model, report=report, params=registered_as(name), tracking=replace(tracking, experiment=name))
    [stored] = versions(tracking, name)
    assert "The rest is in `card.md`" in stored.description


def test_without_credentials_for_s3_there_is_one_line(tracking, server, artifacts, monkeypatch):
    if server[0] != "directly":
        pytest.skip("only the server needs them")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    code = "from components.command import run_step; from pipeline.cli.registry import register; run_step(register)"
    paths = ("--model", artifacts["model"], "--report", artifacts["report"])
    done = subprocess.run(  # of its own, since MLflow keeps clients with credentials
        [sys.executable, "-c", code, *paths, "--params", '{"model_name": "keyless"}'],
        env=os.environ | {"MLFLOW_TRACKING_URI": tracking.uri, "MLFLOW_EXPERIMENT_NAME": "keyless"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    line = done.stderr.splitlines()[-1]
    assert re.match(
        r"error: the store of MLflow's files, to which .* leads, cannot be used: .*credentials.*; set AWS", line
    )
    assert "Traceback" not in done.stderr
    assert versions(tracking, "keyless") == []

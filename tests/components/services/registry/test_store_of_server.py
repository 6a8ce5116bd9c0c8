"""An MLflow server with accounts, and with an S3 store that it alone can reach.

The store's host is a name of a cluster: the server reaches it through an HTTP proxy, clients cannot resolve it.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import requests
from ruamel.yaml import YAML

from components.services.registry.versions import CHALLENGER, CHAMPION
from components.services.tracking.mlflow import DIRECT_TRANSFER, IMPATIENT, Tracking
from components.steps.register import run as register
from dagnn_core.config.register import RegisterConfig
from dagnn_core.model.embedder import TrainedModel
from pipeline.doctor import Diagnosis, checks_of, look
from pipeline.target import Target
from tests.components.steps.test_promote import project  # noqa: F401  # a fixture
from tests.fixtures.locations import ROOT
from tests.fixtures.mlflow_server import basic_auth, free_port, mlflow_server
from tests.fixtures.s3 import AWS, make_bucket

pytestmark = pytest.mark.slow
STORE = "s3.dagnn.svc.cluster.local:8333"
PASSWORD = "password-of-pipeline"
TEXTS = ["a boat on the sea", "night at sea"]
DAGNN = "from pipeline.cli.main import main; main()"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    error: str


@pytest.fixture(scope="module")
def server(s3_server, s3_client, tmp_path_factory) -> Iterator[str]:
    """URI of an MLflow server with basic auth and S3."""
    folder = tmp_path_factory.mktemp("mlflow")
    bucket = make_bucket(s3_server, s3_client)
    options, environment = basic_auth(folder, "pipeline", PASSWORD)
    environment |= AWS | {"AWS_DEFAULT_REGION": "us-east-1", "MLFLOW_S3_ENDPOINT_URL": f"http://{STORE}"}
    environment |= dict.fromkeys(("HTTP_PROXY", "http_proxy"), s3_server) | dict.fromkeys(("NO_PROXY", "no_proxy"), "")
    options += ("--artifacts-destination", f"{bucket.uri}/mlflow")
    with mlflow_server(f"sqlite:///{folder}/mlflow.db", folder, *options, environment=environment) as uri:
        yield uri


@pytest.fixture
def client(server, monkeypatch) -> Tracking:
    """A client with an account, which knows nothing of the store."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "MLFLOW_")) or name.lower() in PROXIES]:
        monkeypatch.delenv(name)
    login = {"MLFLOW_TRACKING_USERNAME": "pipeline", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    for name, value in {"MLFLOW_TRACKING_URI": server, **login}.items():
        monkeypatch.setenv(name, value)
    for name in (*DIRECT_TRANSFER, *IMPATIENT):  # `Tracking` sets them: the tests after this one shall not see that
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return Tracking.from_environment()


def fresh_environment() -> dict[str, str]:
    """As a new process has it: without what `Tracking` has set in this one."""
    return {name: value for name, value in os.environ.items() if name not in DIRECT_TRANSFER}


def dagnn(*arguments: object, **environment: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-c", DAGNN, *map(str, arguments)],
        env=fresh_environment() | {"PYTHONPATH": str(ROOT)} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def champion_server(folder: Path) -> Iterator[str]:
    """URL of the champion's server, with the variables that the manifest gives it on a cluster."""
    manifest = YAML(typ="safe").load((ROOT / "infra/kubernetes/serving/champion.yaml").read_text())
    (container,) = manifest["spec"]["predictor"]["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    variables |= {"MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"]}
    variables |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    port = free_port()
    options = [f"--model-uri=models:/boats@{CHAMPION}", "--env-manager=local", "--host=127.0.0.1", f"--port={port}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*container["command"][:3], *options],
            env=fresh_environment() | variables,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it starts a server of its own, and both shall end
        )
    try:
        deadline = time.monotonic() + 120
        while not is_up(port):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def is_up(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/ping", timeout=5).ok
    except requests.RequestException:
        return False


def test_a_store_that_clients_cannot_resolve(client, server, scenes, project, tmp_path):  # noqa: F811
    """Registered twice, promoted, traced and served."""
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(STORE.partition(":")[0], 8333)
    info = requests.get(f"{server}/api/3.0/mlflow/server-info", auth=("pipeline", PASSWORD), timeout=60).json()
    assert info["multipart_downloads_enabled"] and info["multipart_uploads_enabled"], "else this tests nothing"

    gate = {"max_drop_i2t": 0.1, "max_drop_t2i": 0.1, "max_slice_drop": 0.3}
    section = json.dumps({"model_name": "boats", "data_licence": "no rights reserved", "gate": gate})
    model = scenes.models["good"]
    artifacts = ("--model", model, "--report", model.parent / "report", "--params", section)
    for _ in range(2):
        done = dagnn("register", *artifacts)
        assert (done.status, done.error.count("Traceback")) == (0, 0), done.error
    (version,) = client.client.search_model_versions("name = 'boats'")
    assert (str(version.version), client.client.get_model_version_by_alias("boats", CHALLENGER).version) == ("1", "1")

    done = dagnn("promote", "boats", "--dataset", scenes.datasets["scenes"], "--params", section)
    assert done.status == 0, done.out + done.error
    done = dagnn("lineage", f"boats@{CHAMPION}", "--json")
    tree = json.loads(done.out)
    assert (tree["kind"], tree["state"]) == ("model version", "found"), done.out

    with champion_server(tmp_path) as url:
        rows = {"dataframe_records": [{"text": text} for text in TEXTS]}
        answer = requests.post(f"{url}/invocations", json=rows, timeout=60).json()
    np.testing.assert_allclose(answer["predictions"], TrainedModel.read(model).encode_texts(TEXTS), atol=1e-5)

    # who goes past the server is told at once what cannot be reached
    start = time.monotonic()
    done = dagnn("register", *artifacts, **dict.fromkeys(DIRECT_TRANSFER, "true"))
    assert done.status == 3 and time.monotonic() - start < 200, "MLflow itself tries for more than seven minutes"
    assert re.fullmatch(
        rf"error: the store that MLflow at {server} names for its files cannot be used from here: {STORE} cannot be "
        r"reached \(\w+\); set MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD and .* to go through MLflow's server, or .*",
        done.error.splitlines()[-1],
    )


def files_check(tracking: Tracking, *, direct: bool = False) -> Diagnosis:
    target = Target(mlflow_uri="http://mlflow:5000", mlflow_direct_s3=direct)
    return look("files", checks_of(kubeflow=None, namespace="", tracking=tracking, target=target)["mlflow files"])


def test_doctor_reads_a_file_as_clients_do(client, scenes, monkeypatch):
    nothing = files_check(replace(client, experiment="empty"))
    model = scenes.models["good"]
    params = RegisterConfig(model_name="seas", data_licence="no rights reserved")
    version = register(model=model, report=model.parent / "report", params=params, tracking=client)
    assert nothing.status in ("skipped", "ok")  # ok where other tests have registered something before
    check = files_check(client)
    assert check.status == "ok" and re.fullmatch(r"\S+ of \w+ \d+ can be read \(\d+ bytes\)", check.what)

    check = files_check(client, direct=True)
    assert check.status == "warning" and f"{STORE} cannot be reached" in check.what
    assert check.remedy == "see that tasks reach it, or unset mlflow_direct_s3"
    for name in DIRECT_TRANSFER:
        monkeypatch.setenv(name, "true")
    check = files_check(client)
    assert check.status == "failed" and f"{STORE} cannot be reached" in check.what
    assert check.remedy.endswith("or open a way to the store")
    assert version.name == "seas"

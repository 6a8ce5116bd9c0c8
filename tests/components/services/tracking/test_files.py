"""Files that MLflow keeps: a transfer during which nothing moves comes to an end."""

import os
import shutil
import time
from collections.abc import Iterator

import pytest

from components.services.tracking.files import find_small_file, read
from components.services.tracking.mlflow import Tracking
from dagnn_core.errors import BackendError
from tests.components.fault_proxy import Fault, FaultProxy, Request
from tests.fixtures.mlflow_server import mlflow_server

pytestmark = pytest.mark.slow
SECONDS = 2


@pytest.fixture(scope="module")
def stalling(empty_database, tmp_path_factory) -> Iterator[FaultProxy]:
    """A server with a folder for its files, behind a proxy that stalls as a test plans."""
    folder = tmp_path_factory.mktemp("stalling")
    shutil.copy(empty_database, folder / "mlflow.db")
    with mlflow_server(f"sqlite:///{folder}/mlflow.db", folder) as uri, FaultProxy(uri) as proxy:
        yield proxy


@pytest.mark.parametrize(("method", "kind"), [("GET", "silent"), ("GET", "stall"), ("PUT", "silent")])
def test_a_transfer_without_a_byte_ends(stalling, tmp_path, monkeypatch, method, kind):
    """After 60 s, unless the user says otherwise, although MLflow repeats other requests."""
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    tracking = Tracking(uri=stalling.url, experiment="stalling")
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "60"
    assert int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) > 0
    (tmp_path / "file").write_bytes(b"content")
    with tracking.training_run(params={}, ancestors={}, git={"commit": "c0ffee", "dirty": False}) as run:
        tracking.client.log_artifact(run.run_id, str(tmp_path / "file"))
    file = find_small_file(tracking)
    assert file is not None and read(file) == file.size == 7

    (tmp_path / "got").mkdir()
    repository = tracking.repository(tracking.client.get_run(run.run_id).info.artifact_uri)

    def plan(request: Request) -> Fault | None:
        is_hit = request.method == method and request.path.endswith("/file")
        return Fault(kind=kind, at=1, seconds=5 * SECONDS) if is_hit else None

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SECONDS))
    stalling.plan = plan
    start = time.monotonic()
    try:
        with pytest.raises(BackendError) as caught, tracking.answering():
            if method == "PUT":
                repository.log_artifact(str(tmp_path / "file"))
            else:
                repository.download_artifacts("file", dst_path=str(tmp_path / "got"))
    finally:
        stalling.plan = lambda request: None
    assert time.monotonic() - start < 5 * SECONDS
    assert str(caught.value) == (
        f"MLflow at {stalling.url} moved no byte for {SECONDS} s; check that the server and the store of its files are "
        "not overloaded, and run again, or set a higher MLFLOW_HTTP_REQUEST_TIMEOUT"
    )

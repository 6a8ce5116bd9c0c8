"""A registered version in use: behind `mlflow models serve`, and in an environment of its requirements alone."""

import base64
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.services.registry.versions import CHAMPION
from components.services.tracking.mlflow import Tracking
from components.steps.register import run
from dagnn_core.model.embedder import TrainedModel
from tests.components.steps.test_register import PARAMS, RAW, TEXTS, make_model, make_report

pytestmark = pytest.mark.slow
START_SECONDS = 120


def make_image(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 24), colour).save(file, "PNG")
    return file.getvalue()


IMAGES = [make_image("navy"), make_image("tomato")]


def as_text(encoded: bytes) -> str:
    return base64.b64encode(encoded).decode()


@pytest.fixture(scope="module")
def registered(empty_database, tmp_path_factory):
    """Folder with a model artifact and a database, in which that model is champion of `scenes`."""
    root = tmp_path_factory.mktemp("registered")
    shutil.copy(empty_database, root / "mlflow.db")
    tracking = Tracking(uri=f"sqlite:///{root / 'mlflow.db'}")
    model = make_model(root / "model", RAW)
    version = run(model=model, report=make_report(root / "report", model), params=PARAMS, tracking=tracking)
    tracking.client.set_registered_model_alias(version.name, CHAMPION, version.version)
    return root


def environment(root: Path) -> dict[str, str]:
    """As on another machine: the registry is known, this project is not."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_RUN_ID")}
    return kept | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow.db'}",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


@pytest.fixture(scope="module")
def server(registered, tmp_path_factory):
    """URL of `mlflow models serve`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    command = ["-m", "mlflow", "models", "serve", "-m", f"models:/scenes@{CHAMPION}", "--env-manager", "local"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *command, "--host", "127.0.0.1", "--port", str(port)],
            env=environment(registered) | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it starts a server of its own, and both shall end
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_SECONDS
        while not is_up(url):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
            time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ping", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def ask(url: str, body: object) -> tuple[int, dict]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/invocations", content, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_server_embeds_raw_texts_and_images(registered, server):
    rows = [{"text": TEXTS[0]}, {"image": as_text(IMAGES[0])}, {"text": TEXTS[1], "image": None}]
    status, answer = ask(server, {"dataframe_records": rows})
    assert status == 200
    trained = TrainedModel.read(registered / "model")
    texts, images = trained.encode_texts(TEXTS), trained.encode_images(IMAGES)
    np.testing.assert_allclose(answer["predictions"], [texts[0], images[0], texts[1]], atol=1e-5)
    written = [base64.encodebytes(IMAGES[0]).decode(), f"data:image/png;base64,{as_text(IMAGES[1])}"]
    split = {"columns": ["image"], "data": [[text] for text in written]}
    status, answer = ask(server, {"dataframe_split": split})
    np.testing.assert_allclose(answer["predictions"], images, atol=1e-5)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "boat", "image": as_text(IMAGES[0])}, "row 1 has both text and image, expected exactly one"),
        ({"text": ""}, "row 1 has neither text and image, expected exactly one"),
        ({"image": "sea.jpg"}, "row 1: image is not base64"),
        ({"image": as_text(b"no image")}, "image 1 cannot be decoded"),
        ({"image": "data:image/png,%89PNG"}, "row 1: image is a data: URL that is not base64"),
        ({"words": "boat"}, "no row with a column text or image"),
        ({"text": 3}, "row 1: text is of type int, expected a text"),
    ],
)
def test_wrong_input_is_told_in_a_line(server, row, message):
    status, answer = ask(server, {"dataframe_records": [row]})
    assert status == 400
    assert message in answer["message"]
    assert "Traceback" not in json.dumps(answer)


@pytest.mark.parametrize("body", [b"{", b"", {"rows": []}])
def test_what_is_not_the_protocol_is_refused(server, body):
    assert ask(server, body)[0] == 400


def test_a_path_is_never_opened_by_the_server(server, tmp_path_factory):
    """Also one that happens to be good base64: its letters are taken for an image, which they are not."""
    folder = tmp_path_factory.mktemp("image")
    path = folder / ("boat" * 2)
    while len(str(path)) % 4:
        path = path.with_name(path.name + "t")
    path.write_bytes(IMAGES[0])  # opened, it would be embedded
    for value in (str(path), path.as_uri(), f"http://127.0.0.1:9{path}"):
        status, answer = ask(server, {"dataframe_records": [{"image": value}]})
        assert status == 400
        assert "is not base64" in answer["message"] or "cannot be decoded" in answer["message"]


ELSEWHERE = """
import importlib.util, json, sys
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = json.load(sys.stdin)
import dagnn_core
print(json.dumps({
    "embeddings": model.predict(rows).tolist(),
    "example": list(model.predict(model.input_example).shape),
    "code": dagnn_core.__file__,
    "project": [name for name in ("components", "pipeline", "kfp", "dvc") if importlib.util.find_spec(name)],
}))
"""


@pytest.fixture
def fresh_python(tmp_path):
    """The interpreter of an empty virtual environment; what is installed there, a gigabyte, goes with it."""
    venv.create(tmp_path / "venv", with_pip=True)
    yield tmp_path / "venv" / "bin" / "python"
    shutil.rmtree(tmp_path / "venv")


def test_the_logged_requirements_are_all_that_it_takes(registered, fresh_python, tmp_path):
    version = Tracking(uri=f"sqlite:///{registered / 'mlflow.db'}").client.get_model_version("scenes", "1")
    stored = Path(version.source.removeprefix("file://"))
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", stored / "requirements.txt"]
    installed = subprocess.run(
        [fresh_python, *install], env=environment(registered), capture_output=True, text=True, check=False
    )
    if installed.returncode and "connection" in installed.stderr.lower():
        pytest.skip(f"packages cannot be installed here: {installed.stderr.splitlines()[-1]}")
    assert installed.returncode == 0, installed.stderr

    rows = [{"text": TEXTS[0]}, {"image": as_text(IMAGES[0])}]
    done = subprocess.run(
        [fresh_python, "-I", "-c", ELSEWHERE, f"models:/scenes@{CHAMPION}"],  # -I: nothing from the current folder
        input=json.dumps(rows),
        env=environment(registered),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout.splitlines()[-1])
    trained = TrainedModel.read(registered / "model")
    expected = [trained.encode_texts(TEXTS)[0], trained.encode_images(IMAGES)[0]]
    np.testing.assert_allclose(got["embeddings"], expected, atol=1e-5)
    assert got["example"] == [2, 8]
    assert stored.parts[-2] in got["code"] and got["project"] == []

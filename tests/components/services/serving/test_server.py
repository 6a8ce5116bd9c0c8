"""`dagnn serve` as a user calls it: how it starts, what it refuses, how it ends."""

import os
import signal
import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from dagnn_core.errors import BackendError, DagnnError
from pipeline.cli.main import app
from tests.fixtures.mlflow_server import free_port

REQUEST = b"POST /search HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\ncontent-length: 18\r\n\r\n"


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    """Run `dagnn serve` in a folder of its own, until it fails; return the failure."""
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        result = CliRunner().invoke(app, ["serve", "--port", "0", *map(str, arguments)])
        assert isinstance(result.exception, DagnnError), result.output
        return result.exception

    return run


def test_wrong_options_and_files_are_one_line(invoke, scenes, indices, tmp_path):
    good = ("--model", scenes.models["good"])
    (tmp_path / "short").write_text("too short\n")
    (tmp_path / "empty").write_text("\n")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "manifest.json").write_text("{}")
    for arguments, message in (
        (("--index", "a", "--indexes", "b"), "--index and --indexes exclude each other"),
        (("--token-file", tmp_path / "gone"), "gone cannot be read"),
        (("--token-file", tmp_path / "empty"), "empty has no token"),
        (("--token-file", tmp_path / "short"), "token 1 of "),
        (("--query-log", tmp_path), "cannot be written (Is a directory)"),
        (("--host", "256.0.0.1"), "256.0.0.1 is no address of this machine"),
        (("--host", "192.0.2.1"), "port 0 of 192.0.2.1 cannot be used"),
        (("--model", "gone"), "gone does not exist, expected a model artifact"),
        (("--index", "gone", *good), "gone does not exist, expected an index artifact"),
        (("--index", damaged, *good), "manifest.json is damaged"),
        (("--index", indices / "weak", *good), "was built with the model"),
        (("--indexes", tmp_path, *good), "has no index of the model"),
        (("--model", "models:/a/b/c"), "names no version"),
    ):
        failure = invoke(*arguments)
        assert failure.exit_status == 2 and message in str(failure) and "\n" not in str(failure), arguments


def test_a_port_in_use_is_said_before_anything_is_loaded(invoke):
    with socket.create_server(("127.0.0.1", 0)) as other:
        failure = invoke("--port", other.getsockname()[1])
    assert failure.exit_status == 2 and "is in use; end what uses it, or choose another --port" in str(failure)


def test_a_registry_that_is_down_at_the_start_ends_it(invoke, indices, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    failure = invoke("--model", "models:/dagnn@champion", "--indexes", indices)
    assert isinstance(failure, BackendError) and failure.exit_status == 3
    assert "MLflow at http://127.0.0.1" in str(failure)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_what_is_in_flight_is_answered(scenes, indices, number, tmp_path):
    command = (sys.executable, "-m", "pipeline.cli.main", "serve", "--port", "0")
    process = subprocess.Popen(
        [*command, "--index", indices / "good", "--model", scenes.models["good"]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"},
    )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready at http://127.0.0.1:"), line
        address = ("127.0.0.1", int(line.split(":")[2]))
        idle = socket.create_connection(address, timeout=30)
        slow = socket.create_connection(address, timeout=30)
        slow.sendall(REQUEST + b'{"text": ')
        process.send_signal(number)
        assert idle.recv(1) == b""  # at once
        with pytest.raises(OSError):
            socket.create_connection(address, timeout=5).close()
        slow.sendall(b'"a boat"}')
        assert slow.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        idle.close()
        slow.close()
        rest = process.stdout.read()
    assert (process.returncode, rest) == (0, "")

"""Commands that are given secrets in every place, against servers that fail: nothing of a secret is shown or stored."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from dagnn_core.redaction import forget

PASSWORD = "Zw9qTT/Kx@7vLpWW"
QUOTED = quote(PASSWORD, safe="")
PARTS = ("Zw9q", "7vLp")  # of either form
NOWHERE = "127.0.0.1:9"  # a port where nobody listens
DIGEST = "0123456789abcdef0123456789abcdef.dir"
KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": PASSWORD, "AWS_MAX_ATTEMPTS": "1"}


class Ended(NamedTuple):
    """How a command ended."""

    status: object
    out: str
    err: str


Dagnn = Callable[..., Ended]


@pytest.fixture
def dagnn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Dagnn]:
    """Runs a command line in this process, in an empty DVC repository."""
    from pipeline.cli.main import app, run_command

    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("AWS_", "MLFLOW_", "DAGNN_", "KF_"))]:
        monkeypatch.delenv(name)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").touch()
    subprocess.run(["git", "init", "-q"], check=True)

    def run(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Ended:
        forget()
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(logging.root, "handlers", [])
            patch.setattr(sys, "argv", ["dagnn", *arguments])
            for name, value in {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", **(environment or {})}.items():
                patch.setenv(name, value)
            patch.setenv("DAGNN_DEBUG", "0")  # restored after `--debug` has set it
            with pytest.raises(SystemExit) as ended:
                run_command(app)
        return Ended(ended.value.code, *capfd.readouterr())

    yield run
    forget()


def _check(done: Ended, statuses: Sequence[int], *, debug: bool) -> None:
    text = done.out + done.err
    assert done.status in statuses, text
    for part in PARTS:
        assert part not in text
    assert debug or "Traceback" not in text
    assert debug or len(done.err.splitlines()) == 1, done.err
    assert "unexpected failure" not in text


MLFLOW = [
    f"http://me:{PASSWORD}@{NOWHERE}",
    f"http://me:{QUOTED}@{NOWHERE}/x",
    f"http://{NOWHERE}/?password={QUOTED}",
    f"http://{NOWHERE}/?private_token={PASSWORD}",
    f"http://{NOWHERE}/?token={QUOTED}",
    f"http://127.0.0.1:{PASSWORD}/",
    "http://127.0.0.1:abc",
    "http://127.0.0.1:99999",
    "http://[::1",
    f"databricks://u:{PASSWORD}",
    f"databricks://u:{QUOTED}",
    f"postgresql://me:{PASSWORD}@{NOWHERE}/db",
    f"postgresql://me:{QUOTED}@{NOWHERE}/db?password={QUOTED}",
    f"postgresql://me:{QUOTED}@127.0.0.1:abc/db",
    f"mysql+pymysql://me:{PASSWORD}@{NOWHERE}/db",
    f"s3://key:{QUOTED}@bucket",
    f"strange://me:{QUOTED}@host",
    f"sqlite:////proc/nothing/{QUOTED}.db?password={QUOTED}",
]


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("uri", MLFLOW)
def test_mlflow(dagnn: Dagnn, uri: str, *, debug: bool) -> None:
    environment = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    _check(dagnn(["history", "dagnn", *["--debug"][: int(debug)]], environment), (2, 3), debug=debug)


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize(
    "host",
    [
        f"http://me:{PASSWORD}@{NOWHERE}",
        f"http://me:{QUOTED}@{NOWHERE}",
        f"http://{NOWHERE}/?token={PASSWORD}",
        f"http://127.0.0.1:{PASSWORD}",
        f"http://{NOWHERE}",
    ],
)
def test_kubeflow(dagnn: Dagnn, host: str, *, debug: bool) -> None:
    environment = {"DAGNN_KFP_TOKEN": PASSWORD}
    _check(dagnn(["runs", "--host", host, *["--debug"][: int(debug)]], environment), (2, 3), debug=debug)


FETCH = ["data", "fetch", "out"]
BY_DIGEST = [*FETCH, "--md5", DIGEST, "--remote", "s3://bucket/x", "--endpoint-url"]
BY_REVISION = [*FETCH, "--revision", "main", "--path", "data/photos", "--repository"]
SOURCES: list[tuple[list[str], dict[str, str]]] = [
    ([*BY_DIGEST, f"http://me:{PASSWORD}@{NOWHERE}"], KEYS),
    ([*BY_DIGEST, f"http://me:{QUOTED}@{NOWHERE}"], KEYS),
    ([*BY_DIGEST, f"http://{NOWHERE}/?token={QUOTED}"], KEYS),
    ([*BY_DIGEST, f"http://127.0.0.1:{PASSWORD}"], KEYS),
    ([*BY_DIGEST, "http://127.0.0.1:99999"], KEYS),
    ([*FETCH, "--md5", DIGEST, "--remote", f"s3://key:{PASSWORD}@bucket/x"], KEYS),
    ([*FETCH, "--md5", DIGEST, "--remote", f"s3://key:{QUOTED}@bucket/x"], KEYS),
    ([*FETCH, "--md5", DIGEST, "--remote", f"https://me:{PASSWORD}@host/x"], {}),
    ([*BY_REVISION, f"https://me:{PASSWORD}@{NOWHERE}/x.git"], {}),
    ([*BY_REVISION, f"https://{QUOTED}@{NOWHERE}/x.git"], {}),
    ([*BY_REVISION, f"https://oauth2:{QUOTED}@{NOWHERE}/x.git"], {}),
    ([*BY_REVISION, f"https://{NOWHERE}/x.git?private_token={QUOTED}"], {}),
    ([*BY_REVISION, f"me:{QUOTED}@127.0.0.1:x.git"], {}),
    (["data", "add", "photos", f"s3://key:{PASSWORD}@bucket/x"], KEYS),
    (["data", "add", "photos", f"https://me:{PASSWORD}@host/x.zip"], {}),
    (["data", "add", "photos", f"https://host/x.zip?token={PASSWORD}"], {}),
    (["data", "add", "photos", "s3://bucket/x"], KEYS | {"AWS_ENDPOINT_URL": f"http://me:{PASSWORD}@{NOWHERE}"}),
    (["data", "add", "photos", "s3://bucket/x"], KEYS | {"AWS_ENDPOINT_URL": f"http://me:{QUOTED}@{NOWHERE}"}),
    (["data", "add", "photos", "s3://bucket/x"], KEYS | {"AWS_ENDPOINT_URL": "http://127.0.0.1:abc"}),
    (["data", "check", f"https://me:{PASSWORD}@host/x"], {}),
    (["register", "--params", f"https://me:{PASSWORD}@host/params.yaml"], {}),
    (["results", "--report", f"https://me:{PASSWORD}@host/x?token={PASSWORD}"], {}),
]


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize(("arguments", "environment"), SOURCES)
def test_sources_of_data(dagnn: Dagnn, arguments: list[str], environment: dict[str, str], *, debug: bool) -> None:
    _check(dagnn([*arguments, *["--debug"][: int(debug)]], environment), (2, 3), debug=debug)


def test_a_value_of_the_environment_is_hidden_wherever_it_stands(dagnn: Dagnn) -> None:
    done = dagnn(["results", "--report", f"reports/{PASSWORD}"], {"MY_TOKEN": PASSWORD})
    assert done.status == 2 and "error: reports/*** does not exist" in done.err
    done = dagnn(["results", "--report", "reports/minio"], {"MINIO_ROOT_PASSWORD": "minio"})
    assert "error: reports/minio does not exist" in done.err


def test_json_stays_json(dagnn: Dagnn) -> None:
    uri = f"http://me:{QUOTED}@{NOWHERE}/?token={QUOTED}"
    done = dagnn(["doctor", "--json"], {"MLFLOW_TRACKING_URI": uri, "MLFLOW_TRACKING_PASSWORD": PASSWORD})
    checks = json.loads(done.out)
    assert any(f"http://{NOWHERE}/?token=***" in check["what"] for check in checks), checks
    _check(done, (1,), debug=True)

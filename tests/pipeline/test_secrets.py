"""Commands that are given secrets in every place, against servers that fail: nothing of a secret is shown or stored."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.pipeline.conftest import CommandLine, Ended

PASSWORD = "Zw9qTT/Kx@7vLpWW"
QUOTED = quote(PASSWORD, safe="")
PARTS = ("Zw9q", "7vLp")  # of either form
NOWHERE = "127.0.0.1:9"  # a port where nobody listens
DIGEST = "0123456789abcdef0123456789abcdef.dir"
KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": PASSWORD, "AWS_MAX_ATTEMPTS": "1"}


# the traceback has all that the line has
DEBUG = pytest.mark.parametrize("debug", [pytest.param(False, marks=pytest.mark.slow), True], ids=["", "debug"])


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


@DEBUG
@pytest.mark.parametrize("uri", MLFLOW)
def test_mlflow(in_project: CommandLine, uri: str, *, debug: bool) -> None:
    environment = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    _check(in_project(["history", "dagnn", *["--debug"][: int(debug)]], environment), (2, 3), debug=debug)


@DEBUG
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
def test_kubeflow(in_project: CommandLine, host: str, *, debug: bool) -> None:
    environment = {"DAGNN_KFP_TOKEN": PASSWORD}
    _check(in_project(["runs", "--host", host, *["--debug"][: int(debug)]], environment), (2, 3), debug=debug)


FETCH = ["data", "fetch", "out"]
BY_DIGEST = [*FETCH, "--md5", DIGEST, "--remote", "s3://bucket/x", "--endpoint-url"]
BY_REVISION = [*FETCH, "--revision", "main", "--path", "data/photos", "--repository"]
SLOW = pytest.mark.slow  # the store is asked several times
SOURCES = [
    ([*BY_DIGEST, f"http://me:{PASSWORD}@{NOWHERE}"], KEYS),
    pytest.param([*BY_DIGEST, f"http://me:{QUOTED}@{NOWHERE}"], KEYS, marks=SLOW),
    pytest.param([*BY_DIGEST, f"http://{NOWHERE}/?token={QUOTED}"], KEYS, marks=SLOW),
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
    pytest.param(
        ["data", "add", "photos", "s3://bucket/x"],
        KEYS | {"AWS_ENDPOINT_URL": f"http://me:{QUOTED}@{NOWHERE}"},
        marks=SLOW,
    ),
    (["data", "add", "photos", "s3://bucket/x"], KEYS | {"AWS_ENDPOINT_URL": "http://127.0.0.1:abc"}),
    (["data", "check", f"https://me:{PASSWORD}@host/x"], {}),
    (["register", "--params", f"https://me:{PASSWORD}@host/params.yaml"], {}),
    (["results", "--report", f"https://me:{PASSWORD}@host/x?token={PASSWORD}"], {}),
]


@DEBUG
@pytest.mark.parametrize(("arguments", "environment"), SOURCES)
def test_sources_of_data(
    in_project: CommandLine, arguments: list[str], environment: dict[str, str], *, debug: bool
) -> None:
    _check(in_project([*arguments, *["--debug"][: int(debug)]], environment), (2, 3), debug=debug)


@pytest.mark.parametrize("url", [f"https://me:{PASSWORD}@{NOWHERE}/x", f"https://me:{QUOTED}@{NOWHERE}/x"])
def test_a_remote_in_the_configuration_of_dvc(in_project: CommandLine, tmp_path: Path, url: str) -> None:
    (tmp_path / "data").mkdir()
    pointer = f"outs:\n- md5: {DIGEST}\n  size: 3\n  nfiles: 1\n  hash: md5\n  path: photos\n"
    (tmp_path / "data/photos.dvc").write_text(pointer)
    remote = f"['remote \"storage\"']\n    url = {url}\n    password = {PASSWORD}\n"
    (tmp_path / ".dvc/config").write_text(f"[core]\n    remote = storage\n{remote}")
    for command in (["add", "-A"], ["-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], check=True)
    done = in_project([*FETCH, "--repository", ".", "--revision", "HEAD", "--path", "data/photos", "--debug"])
    _check(done, (2, 3), debug=True)
    assert "data/photos" in done.err


def test_a_value_of_the_environment_is_hidden_wherever_it_stands(in_project: CommandLine) -> None:
    done = in_project(["results", "--report", f"reports/{PASSWORD}"], {"MY_TOKEN": PASSWORD})
    assert done.status == 2 and "error: reports/*** does not exist" in done.err
    done = in_project(["results", "--report", "reports/minio"], {"MINIO_ROOT_PASSWORD": "minio"})
    assert "error: reports/minio does not exist" in done.err


def test_json_stays_json(in_project: CommandLine) -> None:
    uri = f"http://me:{QUOTED}@{NOWHERE}/?token={QUOTED}"
    done = in_project(["doctor", "--json"], {"MLFLOW_TRACKING_URI": uri, "MLFLOW_TRACKING_PASSWORD": PASSWORD})
    checks = {check["name"]: check for check in json.loads(done.out)}
    assert checks["mlflow"]["status"] == "failed", checks
    _check(done, (1,), debug=True)

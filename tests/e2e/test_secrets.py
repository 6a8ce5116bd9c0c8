"""A whole run with secrets in every place: what it leaves behind, and a server's database, have none of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.fixtures.mlflow_server import mlflow_server

pytestmark = pytest.mark.slow

PASSWORD = "Zw9qTT/Kx@7vLpWW"
QUOTED = quote(PASSWORD, safe="")
PARTS = (b"Zw9q", b"7vLp")  # of either form
RUN = ("python", "-c", "from pipeline.cli.main import main; main()")


def test_nothing_is_left_behind(make_checkout: Callable[[], Any], tmp_path: Path) -> None:
    checkout = make_checkout()
    checkout.set({"register": {"data_licence": f"see https://me:{PASSWORD}@host/licence?token={PASSWORD}"}})
    checkout.commit()
    tracked = {checkout.root / name for name in checkout.run("git", "ls-files").split()}  # params.yaml has it
    (tmp_path / "files").mkdir()
    with mlflow_server(f"sqlite:///{tmp_path}/server.db", tmp_path / "files") as uri:
        checkout.environment |= {
            "MLFLOW_TRACKING_URI": uri.replace("://", f"://me:{QUOTED}@"),
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": PASSWORD,
            "HF_TOKEN": PASSWORD,
            "DAGNN_DEBUG": "1",
            # with a secret in it, as of a proxy before a registry of images
            "DAGNN_IMAGE": f"https://me:{PASSWORD}@host/dagnn:1",
        }
        done = [checkout.try_run(*RUN, "run")]
        (dataset,) = map(str, (checkout.root / ".dagnn/runs").glob("*/dataset/dataset_out"))
        reason = f"https://me:{QUOTED}@host/page"
        done += [checkout.try_run(*RUN, "promote", "--allow-dirty", "--reason", reason, "--dataset", dataset)]
        done += [checkout.try_run(*RUN, *command) for command in (["history"], ["lineage"], ["lineage", "--json"])]
    for one in done:
        for part in PARTS:
            assert part.decode() not in one.stdout + one.stderr, one.args
    assert [one.returncode for one in done[:3]] == [0, 0, 0], done
    files = [path for folder in (checkout.root, tmp_path) for path in folder.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"manifest.json", "server.db", "report.html"} <= names and any(name.endswith(".log") for name in names)
    for path in files:
        if path not in tracked and ".git" not in path.parts:
            content = path.read_bytes()
            assert not any(part in content for part in PARTS), path

"""The promotion gate in a copy of this checkout: trained by DVC, committed, promoted, its data fetched by digest."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.services.tracking.mlflow import Tracking

pytestmark = pytest.mark.slow


def register(checkout: Any) -> str:
    version = str(json.loads(checkout.run("dagnn", "register", "--json"))["version"])
    client = Tracking(uri=f"sqlite:///{checkout.root}/mlflow.db").client
    client.set_model_version_tag("dagnn", version, "data_licence", "no rights reserved")
    return version


def promote(checkout: Any, *options: str) -> tuple[int, dict[str, Any], str]:
    done = checkout.try_run("dagnn", "promote", "dagnn", "--json", *options)
    return done.returncode, json.loads(done.stdout), done.stderr


def failed(answer: dict[str, Any]) -> list[str]:
    return [check["name"] for check in answer["checks"] if check["verdict"] == "failed"]


def test_train_commit_promote_and_fetch_the_data(make_checkout: Callable[[], Any], tmp_path: Path) -> None:
    checkout = make_checkout()
    checkout.run("dvc", "remote", "add", "--default", "storage", str(tmp_path / "storage"))
    gate = {"max_drop_i2t": 0.9, "max_drop_t2i": 0.9, "max_slice_drop": 0.9}
    checkout.set({"register": {"gate": gate}})
    checkout.commit()
    checkout.run("dvc", "repro")
    register(checkout)
    status, answer, error = promote(checkout)
    assert (status, failed(answer)) == (1, ["dvc_lock"])
    assert "where it was trained, run `git add dvc.lock && git commit`" in error

    checkout.commit()
    status, answer, error = promote(checkout)
    assert (status, answer["accepted"]) == (0, True), error
    commit = checkout.run("git", "rev-parse", "HEAD")[:12]
    assert f"dvc.lock of commit {commit} lists this model" in answer["reason"]

    # another training, committed with a change that touches every stage, so that dvc.lock changes before it
    checkout.set({"dataset": {"seed": 7}, "train": {"lr": 0.002}})
    checkout.commit()
    checkout.run("dvc", "repro")
    checkout.commit()
    checkout.run("dvc", "push")
    version = register(checkout)
    for lost in (checkout.root / "artifacts" / "dataset", checkout.root / ".dvc" / "cache"):
        shutil.rmtree(lost)
    status, answer, error = promote(checkout)
    assert (status, failed(answer)) == (0, []), error
    assert (answer["version"], answer["champion"]) == (version, "1")
    assert "fetching its data set" in error

    shutil.rmtree(tmp_path / "storage")
    shutil.rmtree(checkout.root / ".dagnn" / "datasets")
    done = checkout.try_run("dagnn", "promote", "--version", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "give its folder as --dataset" in done.stderr.splitlines()[-1]

"""Provenance: ancestors through several steps, and the commit of the code."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from components.services.data_versions.raw_version import RawLineage
from components.services.lineage import provenance as module
from components.services.lineage.provenance import git_state, provenance
from components.services.tracking.tags import Lineage
from dagnn_core.artifacts import Artifact
from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.devices import describe_machine


def artifact(kind: str, digest: str, ancestors: dict[str, str], **record: Any) -> Artifact:
    return Artifact(
        path=Path(kind),
        kind=kind,
        content={},
        files={},
        content_digest=digest,
        provenance={"ancestors": ancestors, **record},
    )


def test_ancestors_reach_back_to_the_data_set() -> None:
    features = artifact("features", "f1", {"dataset": "d1"})
    graph = artifact("label_graph", "g1", {"dataset": "d1"})
    record = provenance("train", FeaturesConfig(image="precomputed"), parents=[features, graph])
    assert record["ancestors"] == {"dataset": "d1", "features": "f1", "label_graph": "g1"}
    assert record["params"]["features"]["image"] == "precomputed"
    assert record["packages"]["torch"].startswith("2.")


def test_every_ancestor_has_its_own_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGNN_GIT_COMMIT", raising=False)
    data = artifact("dataset", "d1", {}, git={"commit": "older"})
    features = artifact("features", "f1", {"dataset": "d1"}, step="extract_features", origins={"dataset": {"git": 1}})
    graph = artifact("label_graph", "g1", {"dataset": "d1"})
    origins = provenance("train", parents=[data, features, graph])["origins"]
    assert origins == {
        "dataset": {"git": 1},  # as the younger ancestor has it
        "features": {"step": "extract_features"},
        "label_graph": {},
    }


def test_where_a_pipeline_run_stored_everything_reaches_every_descendant() -> None:
    data = provenance("dataset", uris={"dataset": "s3://runs/7/dataset_out", "raw": "s3://runs/7/raw_out"})
    graph = provenance("build_label_graph", uris={"label_graph": "minio://runs/7/label_graph_out"})
    parents = [
        artifact("features", "f1", {}, uris=data["uris"]),
        artifact("label_graph", "g1", {}, uris=graph["uris"]),
    ]
    record = provenance("train", parents=parents, uris={"model": "s3://runs/7/model_out"})
    assert record["uris"] == {
        "dataset": "s3://runs/7/dataset_out",
        "raw": "s3://runs/7/raw_out",
        "label_graph": "minio://runs/7/label_graph_out",
        "model": "s3://runs/7/model_out",
    }
    assert all("uris" not in origin for origin in record["origins"].values())


@pytest.mark.parametrize("uri", ["", "/tmp/runs/7/model_out"])
def test_a_path_of_this_machine_is_not_recorded(uri: str) -> None:
    assert provenance("train", uris={"model": uri}) == provenance("train")


def test_image_and_pipeline_are_recorded_where_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGNN_IMAGE", raising=False)
    monkeypatch.setenv("DAGNN_PIPELINE_RUN", "")
    assert provenance("dataset")["execution"] == {}
    monkeypatch.setenv("DAGNN_IMAGE", "registry.example/dagnn@sha256:1")
    monkeypatch.setenv("DAGNN_PIPELINE_RUN", "local/1")
    machine = describe_machine(torch.device("cpu"))
    record = provenance("train", machine=machine)
    assert record["execution"] == {
        "image": "registry.example/dagnn@sha256:1",
        "pipeline_run": "local/1",
        "machine": machine,
    }
    assert machine["device"] == "cpu"
    assert machine["threads"] == torch.get_num_threads()
    assert platform.machine() in machine["processor"]
    git = {"commit": "c0ffee", "dirty": True}
    assert Lineage(digests={"raw": "a"}, git=git, execution=record["execution"]).tags() == {
        "raw_digest": "a",
        "git_commit": "c0ffee",
        "git_dirty": "true",
        "image_digest": "registry.example/dagnn@sha256:1",
        "pipeline_run": "local/1",
    }


def test_the_version_of_the_raw_data_reaches_every_descendant() -> None:
    raw = RawLineage(md5="a1.dir", size=5, num_files=2, commit="c0ffee")
    record = provenance("dataset", DatasetConfig(), raw=raw)
    assert record["ancestors"] == {"raw": "a1.dir"}
    assert (record["raw"]["md5"], record["raw"]["commit"], record["raw"]["num_files"]) == ("a1.dir", "c0ffee", 2)
    features = provenance("extract_features", parents=[artifact("dataset", "d1", record["ancestors"])])
    assert features["ancestors"] == {"raw": "a1.dir", "dataset": "d1"}
    assert "raw" not in features


def test_the_commit_is_that_of_the_code_wherever_it_is_called_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGNN_GIT_COMMIT", raising=False)
    checkout = tmp_path / "checkout"
    git = ["git", "-C", str(checkout), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", "init", "-q", str(checkout)], check=True)
    for name in ("code.py", "an old name", "moved", "dvc.lock"):
        (checkout / name).write_text(f"{name}\n")
    for arguments in (["add", "-A"], ["commit", "-q", "-m", "Test"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setattr(module, "_CHECKOUT", checkout)
    monkeypatch.chdir(tmp_path)
    (checkout / "untracked").write_text("data")
    (checkout / "dvc.lock").write_text("stages: {}\n")  # DVC writes it after every stage
    assert git_state() == {"commit": commit, "dirty": False, "changed": []}
    (checkout / "code.py").write_text("2\n")
    (checkout / "an old name").unlink()
    subprocess.run([*git, "mv", "moved", "näme"], check=True)
    assert git_state() == {"commit": commit, "dirty": True, "changed": ["an old name", "code.py", "moved", "näme"]}
    monkeypatch.setenv("DAGNN_GIT_COMMIT", "c0ffee")
    assert git_state() == {"commit": "c0ffee", "dirty": False, "changed": []}


def test_without_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGNN_GIT_COMMIT", raising=False)
    monkeypatch.setattr(module, "_CHECKOUT", tmp_path)
    assert git_state() == {"commit": "unknown", "dirty": True, "changed": []}


def test_of_a_package_in_the_checkout_of_another_project_the_commit_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGNN_GIT_COMMIT", raising=False)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / ".gitignore").write_text("/venv/\n")
    for arguments in (["add", "-A"], ["commit", "-q", "-m", "Test"]):
        subprocess.run([*git, *arguments], check=True)
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv/code.py").write_text("1\n")
    monkeypatch.setattr(module, "_CHECKOUT", tmp_path / "venv")
    assert git_state() == {"commit": "unknown", "dirty": True, "changed": []}


def test_a_checkout_that_git_does_not_read_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("DAGNN_GIT_COMMIT", raising=False)
    monkeypatch.setattr(module, "_CHECKOUT", tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert git_state() == {"commit": "unknown", "dirty": True, "changed": []}
    assert "run `git config --global --add safe.directory" in caplog.messages[0]
    assert caplog.messages[1] == f"no commit is recorded: git finds none in the checkout {tmp_path}"

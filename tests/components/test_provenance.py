"""Provenance: ancestors through several steps, and the commit of the code."""

import subprocess
from pathlib import Path

import pytest

from components.services import provenance as module
from components.services.lineage import RawLineage
from components.services.provenance import git_state, provenance
from dagnn_core.artifacts import Artifact
from dagnn_core.config import DatasetConfig, FeaturesConfig


def artifact(kind: str, digest: str, ancestors: dict[str, str]) -> Artifact:
    return Artifact(
        path=Path(kind), kind=kind, content={}, files={}, content_digest=digest, provenance={"ancestors": ancestors}
    )


def test_ancestors_reach_back_to_the_data_set() -> None:
    features = artifact("features", "f1", {"dataset": "d1"})
    graph = artifact("label_graph", "g1", {"dataset": "d1"})
    record = provenance("train", FeaturesConfig(image="precomputed"), parents=[features, graph])
    assert record["ancestors"] == {"dataset": "d1", "features": "f1", "label_graph": "g1"}
    assert record["params"]["FeaturesConfig"]["image"] == "precomputed"
    assert record["packages"]["torch"].startswith("2.")


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
    (checkout / "code.py").write_text("1\n")
    (checkout / "dvc.lock").write_text("stages: {}\n")
    for arguments in (["add", "-A"], ["commit", "-q", "-m", "Test"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setattr(module, "_CHECKOUT", checkout)
    monkeypatch.chdir(tmp_path)
    (checkout / "untracked").write_text("data")
    (checkout / "dvc.lock").write_text("stages: {dataset: {}}\n")  # DVC writes it after every stage
    assert git_state() == {"commit": commit, "dirty": False}
    (checkout / "code.py").write_text("2\n")
    assert git_state() == {"commit": commit, "dirty": True}
    monkeypatch.setenv("DAGNN_GIT_COMMIT", "c0ffee")
    assert git_state() == {"commit": "c0ffee", "dirty": False}


def test_without_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGNN_GIT_COMMIT", raising=False)
    monkeypatch.setattr(module, "_CHECKOUT", tmp_path)
    assert git_state() == {"commit": "unknown", "dirty": True}

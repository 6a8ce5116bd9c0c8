"""Step `train` on small real artifacts: what it writes, resumes, and refuses; and the model that comes out."""

import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.services.lineage.tree import machine_words
from components.services.tracking.mlflow import Tracking
from components.steps import train
from dagnn_core.artifacts import read_artifact
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import ArtifactError, BackendError, InputError
from dagnn_core.features.features import Features
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.retrieval.metrics import evaluate_retrieval
from tests.fixtures.locations import ROOT
from tests.fixtures.s3 import Bucket

Prepare = Callable[[Path, int], dict[str, Path]]

MODEL = ModelConfig(embedding_dim=8, image_to_text_hidden=8, text_to_image_hidden=8, hops=2)
PARAMS = TrainConfig(epochs=3, batch_size=16, lr=1e-3, device="cpu")


def run(inputs: dict[str, Path], tracking: Tracking, root: Path, params: TrainConfig = PARAMS) -> Path:
    out = root / "model"
    train.run(**inputs, model_params=MODEL, params=params, tracking=tracking, work=root / "work", model_out=out)
    return out


def start(
    python: list[str], inputs: dict[str, Path], tracking: Tracking, root: Path, params: TrainConfig
) -> subprocess.Popen[str]:
    """Start the step as a program of its own."""
    file = root / "params.yaml"
    file.write_text(json.dumps({"model": asdict(MODEL), "train": asdict(params)}))
    paths = {"params": file, **inputs, "work": root / "work", "model_out": root / "model"}
    flags = [f"--{name.replace('_', '-')}={path}" for name, path in paths.items()]
    return subprocess.Popen(
        [sys.executable, *python, "components.steps.train", *flags],
        env=os.environ | {"MLFLOW_TRACKING_URI": tracking.uri},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("share", "warns"), [(0.9, False), (1.0, True)])
def test_labels_on_nearly_every_item_are_warned_of(
    inputs: dict[str, Path], caplog: pytest.LogCaptureFixture, share: float, warns: bool
) -> None:
    features = Features.read(inputs["features"])
    labels = np.zeros_like(features.labels)
    held_out = np.flatnonzero(features.splits != "train")
    labels[held_out[: round(share * len(held_out))], 0] = 1
    train._warn_of_easy_labels(replace(features, labels=labels))
    warnings = [line for line in caplog.messages if "of val and test items have a label in common" in line]
    assert len(warnings) == warns
    assert all("100.0 % of the pairs" in line and "expected at most 90 %" in line for line in warnings)


def test_the_model_is_self_sufficient_and_tracked(inputs: dict[str, Path], tracking: Tracking, tmp_path: Path) -> None:
    path = run(inputs, tracking, tmp_path)
    moved = shutil.move(path, tmp_path / "elsewhere")
    model = TrainedModel.read(Path(moved), verify=True)
    assert model.label_names == ("boat", "night", "sea", "tree")
    features = Features.read(inputs["features"])
    embeddings = model.embed_text_features(features.text[:5])
    assert embeddings.shape == (5, 8) and embeddings.dtype == np.float32
    texts = ["a boat and a sea", "a tree"]
    np.testing.assert_array_equal(
        model.encode_texts(texts), model.embed_text_features(model.text_encoder.encode(texts))
    )
    assert model.encode_texts([]).shape == (0, 8)
    history = [json.loads(line) for line in (Path(moved) / "history.jsonl").read_text().splitlines()]
    val_metrics = json.loads((Path(moved) / "val_metrics.json").read_text())
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
    assert val_metrics["val_map_mean"] == max(epoch["val_map_mean"] for epoch in history)
    provenance = model.artifact.provenance
    assert set(provenance["ancestors"]) == {"dataset", "features", "label_graph"}
    tracked = tracking.client.get_run(provenance["mlflow_run_id"])
    assert tracked.info.status == "FINISHED"
    assert tracked.data.metrics["val_map_mean"] == pytest.approx(history[-1]["val_map_mean"])
    assert list((tmp_path / "work").iterdir()) == [], "a finished training leaves no checkpoint"


def test_a_model_that_ranks_by_labels_encodes_label_probabilities(
    inputs: dict[str, Path], tracking: Tracking, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    model_params = replace(MODEL, classification="cross_entropy", ranking="labels")
    train.run(
        **inputs, model_params=model_params, params=PARAMS, tracking=tracking, work=tmp_path / "work", model_out=out
    )
    model = TrainedModel.read(out, verify=True)
    assert model.artifact.content["output_dim"] == len(model.label_names) + 2
    embeddings = model.encode_texts(["a boat and a sea"])
    assert embeddings.shape == (1, 6) and (embeddings[:, :4] > 0).all() and embeddings[0, 4] == 0


@pytest.mark.parametrize("kind", ["ridge", "cca", "two_tower", "dscmr"])
def test_baselines_make_models_like_any_other(
    inputs: dict[str, Path], tracking: Tracking, tmp_path: Path, kind: Any
) -> None:
    out = tmp_path / "model"
    train.run(
        **inputs,
        model_params=ModelConfig(kind=kind, preset="best", embedding_dim=16),  # its ranking is of no effect
        params=PARAMS,
        tracking=tracking,
        work=tmp_path / "work",
        model_out=out,
    )
    model = TrainedModel.read(out, verify=True)
    features = Features.read(inputs["features"])
    rows = features.pairs("val")
    image, text = model.embed_image_features(features.image[rows]), model.embed_text_features(features.text[rows])
    assert image.shape == text.shape == (len(rows), model.artifact.content["output_dim"])
    val_metrics = json.loads((out / "val_metrics.json").read_text())
    metrics = evaluate_retrieval(image, text, features.labels[rows])
    assert metrics["map_mean"] == pytest.approx(val_metrics["val_map_mean"], abs=1e-6)


def test_incomplete_items_train_and_missing_features_are_never_read(
    tracking: Tracking, tmp_path: Path, prepare_incomplete: Callable[[Path], dict[str, Path]]
) -> None:
    paths = prepare_incomplete(tmp_path)
    features = Features.read(paths["features"])
    assert (~features.has_image).sum() > 0 < (~features.has_text).sum()
    for how in ("skip", "mask", "reconstruct"):
        out = tmp_path / how
        train.run(
            **paths,
            model_params=MODEL,
            params=replace(PARAMS, incomplete=how, reconstruct_from=2, batch_size=32),
            tracking=tracking,
            work=tmp_path / "work",
            model_out=out,
        )
        assert len((out / "history.jsonl").read_text().splitlines()) == 3


def test_equal_trainings_have_equal_digests(inputs: dict[str, Path], tracking: Tracking, tmp_path: Path) -> None:
    first, second = (
        read_artifact(run(inputs, tracking, tmp_path / name), "model").content_digest for name in ("a", "b")
    )
    assert first == second
    other = read_artifact(run(inputs, tracking, tmp_path / "c", replace(PARAMS, seed=1)), "model").content_digest
    assert other != first


def test_features_beyond_the_budget_are_read_from_the_disk_and_train_the_same_model(
    inputs: dict[str, Path], tracking: Tracking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    models = {}
    for name, budget in (("memory", 1.0), ("disk", 1e-6)):
        model = run(inputs, tracking, tmp_path / name, replace(PARAMS, memory_budget=budget))
        models[name] = read_artifact(model, "model").content_digest
    assert models["memory"] == models["disk"]
    told = [line for line in caplog.messages if "train.memory_budget" in line]
    assert len(told) == 1 and "are read from the disk, batch by batch" in told[0] and "is 1.1 kB" in told[0]


def test_the_precision_that_auto_chose_is_recorded_with_the_machine(
    inputs: dict[str, Path], tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "choose_precision", lambda wanted, device, key: "bf16")
    model = run(inputs, tracking, tmp_path, replace(PARAMS, epochs=1, precision="auto"))
    provenance = read_artifact(model, "model").provenance
    assert provenance["params"]["train"]["precision"] == "auto"
    assert provenance["execution"]["machine"]["precision"] == "bf16"
    assert machine_words(provenance["execution"]["machine"]).endswith(", bf16")


def test_an_interrupted_training_goes_on_in_the_same_mlflow_run(
    inputs: dict[str, Path], tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read_artifact(run(inputs, tracking, tmp_path / "whole"), "model").content_digest
    monkeypatch.setattr(train.train, "__kwdefaults__", {"checkpoint_seconds": 0.0})
    validate = train.train.__globals__["_validate"]
    calls = []

    def interrupt_in_epoch_two(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(*arguments)

    monkeypatch.setitem(train.train.__globals__, "_validate", interrupt_in_epoch_two)
    with pytest.raises(KeyboardInterrupt):
        run(inputs, tracking, tmp_path / "resumed")
    assert not (tmp_path / "resumed/model").exists()
    run_id = next((tmp_path / "resumed/work").glob("*/mlflow_run_id")).read_text()
    assert tracking.client.get_run(run_id).info.status == "KILLED"
    model = read_artifact(run(inputs, tracking, tmp_path / "resumed"), "model")
    assert len(calls) == 4, "epoch 1 is not trained again"
    assert model.content_digest == expected and model.provenance["mlflow_run_id"] == run_id
    assert tracking.client.get_run(run_id).info.status == "FINISHED"


@pytest.mark.slow
def test_a_training_that_is_told_to_terminate_ends_like_an_interrupted_one(
    inputs: dict[str, Path], tracking: Tracking, tmp_path: Path
) -> None:
    program = start(["-m"], inputs, tracking, tmp_path, replace(PARAMS, epochs=10_000, patience=10_000))
    assert program.stderr is not None
    while "epoch 2 of" not in program.stderr.readline():
        assert program.poll() is None
    program.terminate()
    _, stderr = program.communicate(timeout=60)
    assert program.returncode == 130
    assert "Traceback" not in stderr and "error: interrupted; nothing was left half written" in stderr
    assert [run.info.status for run in tracking.client.search_runs(["1"])] == ["KILLED"]
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml", "work"}


def test_a_second_training_of_the_same_inputs_says_who_runs(
    inputs: dict[str, Path], tracking: Tracking, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:

        def second(*_: object) -> None:
            message = (
                rf"\.lock: another training of the same inputs is running \(process {os.getpid()} on .*; wait for it"
            )
            with pytest.raises(BackendError, match=message):
                run(inputs, tracking, tmp_path)
            raise KeyboardInterrupt

        patch.setitem(train.train.__globals__, "train_epoch", second)
        run(inputs, tracking, tmp_path)
    assert len(tracking.client.search_runs(["1"])) == 1, "the second one has not even begun"
    run(inputs, tracking, tmp_path)


def test_after_a_failure_to_write_the_model_the_rerun_only_writes_it(
    inputs: dict[str, Path], tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read_artifact(run(inputs, tracking, tmp_path / "whole"), "model").content_digest
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    sealed = train.write_model

    def too_large(*arguments: object, **options: object) -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        try:
            return sealed(*arguments, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    root = tmp_path / "small"
    monkeypatch.setattr(train, "write_model", too_large)
    with pytest.raises(BackendError, match=r"small/model/model\.safetensors: the file would be larger than the system"):
        run(inputs, tracking, root)
    assert [path.name for path in root.iterdir()] == ["work"]
    monkeypatch.setattr(train, "write_model", sealed)
    monkeypatch.setitem(train.train.__globals__, "train_epoch", None)  # no epoch is trained again
    assert read_artifact(run(inputs, tracking, root), "model").content_digest == expected
    assert list((root / "work").iterdir()) == []


def test_too_little_space_is_told_before_the_training(
    inputs: dict[str, Path], tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagnn_core.disk.free_bytes", lambda _: 500_000)
    sizes = r"work/\w+/checkpoint\.safetensors \(\d+\.\d [kM]B\) and .*/model \(\d+\.\d MB\)"
    message = rf"{sizes}: \d+\.\d MB are needed on this disk, 0\.5 MB are free; free some space"
    monkeypatch.setitem(train.train.__globals__, "train_epoch", None)
    with pytest.raises(BackendError, match=message):
        run(inputs, tracking, tmp_path)


@pytest.mark.slow
def test_torchrun_trains_one_model_in_one_mlflow_run(
    inputs: dict[str, Path], tracking: Tracking, tmp_path: Path
) -> None:
    alone = run(inputs, tracking, tmp_path / "alone")
    torchrun = ["-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    program = start([*torchrun, "--rdzv-endpoint=127.0.0.1:0", "-m"], inputs, tracking, tmp_path, PARAMS)
    _, stderr = program.communicate(timeout=300)
    assert program.returncode == 0, stderr
    assert stderr.count("epoch 3 of 3") == 1, "one process reports"
    model = read_artifact(tmp_path / "model", "model", verify=True)
    assert tracking.client.get_run(model.provenance["mlflow_run_id"]).info.status == "FINISHED"
    assert len(tracking.client.search_runs(["1"])) == 2, "one run for each training"
    assert list((tmp_path / "work").iterdir()) == []
    expected, got = (
        [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        for folder in (alone, tmp_path / "model")
    )
    assert got == [pytest.approx(epoch, rel=1e-3) for epoch in expected]


KILLED = """
import functools, os, sys, time
from pathlib import Path
from components.steps import train
from components.services.tracking.mlflow import Tracking
from tests.components.steps.test_train import MODEL, PARAMS
validate = train.train.__globals__["_validate"]
def slowly(*arguments):
    time.sleep(0.3)
    return validate(*arguments)
train.train.__globals__["_validate"] = slowly
train.train.__kwdefaults__["checkpoint_seconds"] = 0.0
train.mirrored = functools.partial(train.mirrored, seconds=0.05)
features, label_graph, uri, work, checkpoints_uri = sys.argv[1:]
train.run(features=Path(features), label_graph=Path(label_graph), model_params=MODEL, params=PARAMS,
          tracking=Tracking(uri=uri), work=Path(work), model_out=Path(work, "model"), checkpoints_uri=checkpoints_uri)
"""


@pytest.mark.slow
def test_a_killed_training_goes_on_without_its_disk(
    *,
    inputs: dict[str, Path],
    tracking: Tracking,
    tmp_path: Path,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.endpoint)
    expected = read_artifact(run(inputs, tracking, tmp_path / "whole"), "model").content_digest
    uri = f"{bucket.uri}/checkpoints/"
    arguments = [inputs["features"], inputs["label_graph"], tracking.uri, tmp_path / "lost", uri]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *map(str, arguments)], cwd=ROOT)
    while not any(key.endswith("/checkpoint.safetensors") for key in bucket.keys):
        assert process.poll() is None, "it has ended too early"
        time.sleep(0.02)
    process.kill()
    process.wait()
    (digest,) = {key.split("/")[1] for key in bucket.keys}
    run_id = bucket.get(f"checkpoints/{digest}/mlflow_run_id").decode()
    shutil.rmtree(tmp_path / "lost")
    with caplog.at_level(logging.INFO):
        out = tmp_path / "new" / "model"
        train.run(
            **inputs,
            model_params=MODEL,
            params=PARAMS,
            tracking=tracking,
            work=tmp_path / "new" / "work",
            model_out=out,
            checkpoints_uri=uri,
        )
    assert any(message.startswith("resuming after epoch ") for message in caplog.messages)
    model = read_artifact(out, "model", verify=True)
    assert (model.content_digest, model.provenance["mlflow_run_id"]) == (expected, run_id)
    assert bucket.keys == []


def test_features_and_label_graph_of_different_data_are_refused(
    inputs: dict[str, Path], prepare: Prepare, tracking: Tracking, tmp_path: Path
) -> None:
    other = prepare(tmp_path / "other", 1)
    with pytest.raises(ArtifactError, match=r"made from different data sets; run `dvc repro build_label_graph`"):
        run(inputs | {"label_graph": other["label_graph"]}, tracking, tmp_path)


def test_a_missing_gpu_is_refused(
    inputs: dict[str, Path], tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"train.device is cuda, but this machine has no usable GPU"):
        run(inputs, tracking, tmp_path, replace(PARAMS, device="cuda"))


def test_a_server_that_does_not_answer_stops_before_any_work(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"127\.0\.0\.1:9"):
        run(inputs, Tracking(uri="http://127.0.0.1:9"), tmp_path)
    assert not (tmp_path / "model").exists() and not any((tmp_path / "work").iterdir())


@pytest.fixture(scope="module")
def trained(inputs: dict[str, Path], empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    shutil.copy(empty_database, root / "mlflow.db")
    return run(inputs, Tracking(uri=f"sqlite:///{root}/mlflow.db"), root)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "model.json", "text_encoder/encoder.json", "image_encoder/encoder.json"]
)
def test_a_model_with_a_missing_file_is_refused(trained: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "model"))
    (copy / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing, though its manifest lists it; run `dvc repro train`"):
        TrainedModel.read(copy)


def test_weights_of_another_architecture_are_refused(trained: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "model"))
    record = json.loads((copy / "model.json").read_text())
    record["model"]["hops"] = 3
    text = json.dumps(record, indent=2) + "\n"
    assert len(text) == (copy / "model.json").stat().st_size, "else the size check finds it first"
    (copy / "model.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"model.safetensors does not fit model.json"):
        TrainedModel.read(copy)
    with pytest.raises(ArtifactError, match=r"model.json does not have the checksum of its manifest"):
        TrainedModel.read(copy, verify=True)


def test_features_of_another_dimension_are_refused(trained: Path) -> None:
    model = TrainedModel.read(trained)
    with pytest.raises(InputError, match=r"image features have shape \[2, 7\], expected \[N, 10\]"):
        model.embed_image_features(np.zeros((2, 7), dtype=np.float32))
    with pytest.raises(InputError, match="cannot encode"):
        model.encode_images([b"an image"])

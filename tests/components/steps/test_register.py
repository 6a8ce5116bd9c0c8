import ast
import base64
import hashlib
import html
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from components.services.promotion.gate import GateResult
from components.services.promotion.promotion import promote
from components.services.registry import served_code
from components.services.registry.stored_model import find_fault
from components.services.registry.versions import CHALLENGER, CHAMPION, RegisteredVersion
from components.services.tracking.mlflow import Tracking
from components.steps.register import run
from dagnn_core.artifacts import manifest_digest_of, read_artifact, write_artifact, write_json
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.register import GateConfig, RegisterConfig
from dagnn_core.errors import ArtifactError, CheckFailedError, InputError
from dagnn_core.features.encoders.classic import ClassicEncoder
from dagnn_core.features.encoders.descriptors import DIM
from dagnn_core.features.encoders.precomputed import PrecomputedEncoder
from dagnn_core.features.encoders.registry import open_text_backbone
from dagnn_core.features.encoders.words import WordEncoder
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.model.files import write_model
from dagnn_core.model.kinds import build_network
from dagnn_core.nn.label_graphs import GraphTensors
from dagnn_core.reports.comparison.compare import ComparedReport, compare_reports
from dagnn_core.reports.evaluation.queries import FILE as QUERIES
from dagnn_core.reports.evaluation.queries import Queries
from pipeline.cli import registry as commands
from tests.fixtures import forked
from tests.fixtures.evaluation import dataset, make_evaluation

__all__ = ["dataset"]

LABELS = ["boat", "sea", "night"]
TEXTS = ["a boat on the sea", "night at sea"]
CONFIG = ModelConfig(embedding_dim=8, image_to_text_hidden=4, text_to_image_hidden=4, hops=2)
PARAMS = RegisterConfig(model_name="scenes", data_licence="CC BY 4.0")
AT = (("map", "_at_50"), ("ndcg", "_at_10"), ("recall", "_at_10"))
RAW = (
    ClassicEncoder(mean=np.zeros(DIM, np.float32), deviation=np.ones(DIM, np.float32)),
    WordEncoder.fit(TEXTS, kind="tfidf", min_word_count=1, max_words=100),
)
METRICS = {
    f"{prefix}{name}": value
    for prefix, share in (("", 1), ("cca_", 0.9), ("chance_", 0.5))
    for name, value in {
        "map_i2t": 0.7 * share,
        "map_t2i": 0.6 * share,
        "map_mean": 0.65 * share,
        **({"map_mean_low": 0.6, "map_mean_high": 0.7} if not prefix else {}),
        **{f"{kind}_{way}{at}": 0.8 * share for kind, at in AT for way in ("i2t", "t2i")},
    }.items()
}
RAW_DATA = {
    "md5": f"{'b' * 32}.dir",
    "size": 12345,
    "num_files": 3,
    "repository": "https://git.example.org/scenes.git",
    "revision": "v1",
    "commit": "b" * 40,
    "path": "data/photos",
    "remote": "s3://bucket/dvc",
}
VECTORS = (PrecomputedEncoder(modality="image", dim=5), PrecomputedEncoder(modality="text", dim=3))


def make_model(path, encoders, *, seed=0, run_id="a" * 32):
    torch.manual_seed(seed)
    image, text = encoders
    graph = GraphTensors(torch.rand(3, 4), torch.eye(3), torch.eye(3), 0.4)
    network = build_network(CONFIG, image_dim=image.dim, text_dim=text.dim, graph=graph)
    with write_artifact(path.with_name("features"), kind="features", provenance={}) as draft:
        for name, encoder in (("image", image), ("text", text)):
            (draft.path / f"{name}_encoder").mkdir()
            encoder.save(draft.path / f"{name}_encoder")
            draft.content[name] = {"kind": encoder.kind, "dim": encoder.dim}
        draft.content["label_names"] = LABELS
    provenance = {
        "mlflow_run_id": run_id,
        "params": {"model": {"hops": 2}, "train": {"lr": 5e-5, "seed": 103}},
        "ancestors": {"dataset": "d" * 64, "features": "f" * 64, "label_graph": "9" * 64},
        "git": {"commit": "c0ffee", "dirty": False},
        "packages": {"python": "3.11.2", "torch": "2.13.0"},
    }
    with write_artifact(path, kind="model", provenance=provenance) as draft:
        draft.content = write_model(
            draft.path,
            config=CONFIG,
            state=network.state_dict(),
            graph=graph,
            features=read_artifact(path.with_name("features"), "features"),
            history=[{"epoch": 1, "loss_total": 2.5, "val_map_mean": 0.5}],
            val_metrics={"val_map_mean": 0.5},
        )
    return path


def make_report(path, model, *, raw=RAW_DATA, label_names=LABELS, uris=None, queries=None, **metrics):
    ancestors = {"dataset": "d" * 64, "model": read_artifact(model, "model").content_digest}
    with write_artifact(path, kind="report", provenance={"ancestors": ancestors, "uris": uris or {}}) as draft:
        draft.content = {
            "num_test": 20,
            "data": {
                "content_digest": "d" * 64,
                "raw": raw,
                "layout": "folder",
                "label_names": list(label_names),
                "num_rows": 103,
                "num_items": 100,
                "splits": {"train": 70, "val": 10, "test": 20},
                "modalities": {"complete": 90, "image_only": 6, "text_only": 4},
                "label_counts": {split: dict.fromkeys(label_names, 60) for split in ("train", "val", "test")},
                "rejected": {"no text": 2, "image cannot be decoded": 1},
            },
        }
        write_json(draft.path / "metrics.json", METRICS | metrics)
        (draft.path / "report.html").write_text("<html>")
        if queries:
            queries.write(draft.path / QUERIES)
    return path


class Registered(NamedTuple):
    """A model, its report, and the version that both became in a registry of their own."""

    tracking: Tracking
    model: Path
    report: Path
    version: RegisteredVersion


@pytest.fixture(scope="module")
def registered(empty_database, tmp_path_factory):
    """One version for the tests that read only."""
    folder = tmp_path_factory.mktemp("registered")
    tracking = Tracking(uri=f"sqlite:///{shutil.copy(empty_database, folder)}")
    model = make_model(folder / "model", RAW)
    report = make_report(folder / "report", model)
    return Registered(tracking, model, report, run(model=model, report=report, params=PARAMS, tracking=tracking))


@pytest.fixture(scope="module", autouse=True)
def files_parsed_once():
    """Which modules a file of this library imports is the same for all tests."""
    follow = cache(lambda name, file: tuple(imports(name, file)))
    imports = served_code._imports
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(served_code, "_imports", follow)
        yield


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "model", RAW)


@pytest.fixture
def report(tmp_path, model):
    return make_report(tmp_path / "report", model)


def make_image(colour):
    file = io.BytesIO()
    Image.new("RGB", (32, 24), colour).save(file, "PNG")
    return file.getvalue()


def version_of(tracking, registered):
    return tracking.client.get_model_version(*registered)


def stored_models(tracking):
    folder = Path(tracking.uri.removeprefix("sqlite:///")).parent / "mlartifacts" / "models"
    return [model / "artifacts" for model in folder.iterdir()]


FORGET_THIS_LIBRARY = """
import os, sys
for name in [name for name in sys.modules if name.split(".")[0] in ("components", "dagnn_core", "pipeline", "tests")]:
    del sys.modules[name]
sys.path[:] = [entry for entry in sys.path if not os.path.exists(os.path.join(entry, "dagnn_core"))]
"""


def in_new_process(tracking, code, *, forks=False, **arguments):
    """Run code away from the checkout; it sees `model`, loaded from the registry without any pickle.

    The process is a new interpreter, or else one that forks from this and forgets this library.
    """
    prelude = (
        "import base64, json, sys, numpy as np, mlflow\n"
        f"arguments = json.loads({json.dumps(arguments)!r})\n"
        "mlflow.set_tracking_uri(arguments['uri'])\n"
        "model = mlflow.pyfunc.load_model('models:/scenes@challenger')\n"
        "def refuse(rows):\n"
        "    try: model.predict(rows)\n"
        "    except Exception as error: return str(error)\n"
        "    raise AssertionError('accepted')\n"
        "def imported():\n"
        "    found = [module for name, module in sys.modules.items() if name.split('.')[0] == 'dagnn_core']\n"
        "    return sorted(module.__file__.partition('/code/')[2] for module in found)\n"
    )
    environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    folder = Path(tracking.uri.removeprefix("sqlite:///")).parent
    if forks:
        done = forked.run_code(FORGET_THIS_LIBRARY + prelude + code, cwd=folder, environment=environment)
    else:
        command = [sys.executable, "-c", prelude + code]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def stored_modules(tracking):
    """Files of this library that the one stored model has."""
    [stored] = stored_models(tracking)
    return sorted(str(path.relative_to(stored / "code")) for path in (stored / "code").rglob("*.py"))


def test_version_has_its_lineage(registered):
    tracking, model, report, registered_version = registered
    assert registered_version == RegisteredVersion("scenes", "1")
    version = version_of(tracking, registered_version)
    tags = dict(version.tags)
    assert tags.pop("mlflow_model_id").startswith("m-")
    params = b'{"model":{"hops":2},"train":{"lr":5e-05,"seed":103}}'
    assert tags == {
        "git_commit": "c0ffee",
        "git_dirty": "false",
        "dataset_digest": "d" * 64,
        "features_digest": "f" * 64,
        "label_graph_digest": "9" * 64,
        "model_digest": read_artifact(model, "model").content_digest,
        "model_manifest_digest": read_artifact(model, "model").manifest_digest,
        "report_digest": read_artifact(report, "report").content_digest,
        "mlflow_run_id": version.run_id,
        "params_digest": hashlib.sha256(params).hexdigest(),
        "seed": "103",
        "python_version": "3.11.2",
        "torch_version": "2.13.0",
        "raw_md5": RAW_DATA["md5"],
        "raw_repository": "https://git.example.org/scenes.git",
        "raw_revision": "v1",
        "raw_commit": "b" * 40,
        "raw_path": "data/photos",
        "raw_remote": "s3://bucket/dvc",
        "data_licence": "CC BY 4.0",
        "registered_by": tracking.who,
        "map_i2t": "0.7",
        "map_t2i": "0.6",
        "map_mean": "0.65",
    }
    assert tracking.client.get_model_version_by_alias("scenes", CHALLENGER).version == version.version
    assert "| MAP | mean | 0.650 (0.600 to 0.700) |" in version.description


def test_run_holds_report_and_model(registered):
    tracking = registered.tracking
    version = version_of(tracking, registered.version)
    assert {entry.path for entry in tracking.client.list_artifacts(version.run_id, "report")} == {
        "report/manifest.json",
        "report/metrics.json",
        "report/report.html",
    }
    [output] = tracking.client.get_run(version.run_id).outputs.model_outputs
    assert output.model_id == version.tags["mlflow_model_id"]
    assert tracking.client.get_logged_model(output.model_id).status == "READY"


def queries_of(dataset, seed):
    evaluation = make_evaluation(dataset, seed)
    return Queries.of(dataset, evaluation.rows, scores=evaluation.scores, first=evaluation.first)


@pytest.mark.slow  # four registrations
def test_the_champion_stands_beside_the_model_where_it_can(tracking, tmp_path, dataset, caplog):
    def register(seed, queries):
        folder = tmp_path / str(seed)
        model = make_model(folder / "model", RAW, seed=seed, run_id=str(seed) * 32)
        report = make_report(folder / "report", model, queries=queries, map_mean=0.65 + seed / 1000)
        return version_of(tracking, run(model=model, report=report, params=PARAMS, tracking=tracking)), report

    caplog.set_level("INFO", logger="components.steps.register")
    first, old = register(1, queries_of(dataset, 1))
    assert "champion" not in first.description
    tracking.client.set_registered_model_alias("scenes", CHAMPION, first.version)

    second, new = register(2, queries_of(dataset, 2))
    assert "| | | this model | CCA | chance | champion, scenes/1 |" in second.description
    assert "| MAP | mean | 0.652 (0.600 to 0.700) | 0.585 | 0.325 | 0.651 |" in second.description
    one, other = (ComparedReport.read(str(path), read_artifact(path, "report")) for path in (old, new))
    mean, low, high = compare_reports([one, other]).family("overall")[2].changes[0].difference
    assert f"mean of both {mean:+.3f} ({low:+.3f} to {high:+.3f})." in second.description
    assert f"mean of both {mean:+.4f} ({low:+.4f} to {high:+.4f})" in caplog.text
    page = Path(tracking.client.download_artifacts(second.run_id, "comparison/champion.html", tmp_path)).read_text()
    assert "reference: <b>champion, scenes/1</b>" in page

    third, _ = register(3, None)
    fault = "the model's report has no queries.parquet: an older program wrote this report."
    assert f"Not compared with the champion, scenes/1: {fault}" in html.unescape(third.description)
    assert "| chance |\n" in third.description
    again = run(model=old.parent / "model", report=old, params=PARAMS, tracking=tracking)
    assert again.version == "1" and "champion" not in version_of(tracking, again).description


def test_same_model_gets_a_new_version_where_mlflows_record_of_the_old_was_deleted(tracking, model, report):
    first = version_of(tracking, run(model=model, report=report, params=PARAMS, tracking=tracking))
    tracking.client.delete_logged_model(first.tags["mlflow_model_id"])
    assert run(model=model, report=report, params=PARAMS, tracking=tracking).version == "2"


def test_metrics_are_tied_to_model_and_test_split(registered):
    tracking = registered.tracking
    version = version_of(tracking, registered.version)
    logged = tracking.client.get_logged_model(version.tags["mlflow_model_id"])
    assert {metric.key: metric.value for metric in logged.metrics} == METRICS
    name, digest = f"test-{'d' * 12}", RAW_DATA["md5"]
    assert {(metric.dataset_name, metric.dataset_digest) for metric in logged.metrics} == {(name, digest)}

    import mlflow.data

    inputs = tracking.client.get_run(version.run_id).inputs.dataset_inputs
    [used] = [used for used in inputs if used.dataset.name == name]
    assert (used.dataset.digest, [tag.value for tag in used.tags]) == (digest, ["test"])
    assert mlflow.data.get_source(used).to_dict()["tags"] == {
        "content_digest": "d" * 64,
        **{key: RAW_DATA[key] for key in ("md5", "repository", "revision", "commit", "path", "remote")},
    }
    assert [column["name"] for column in json.loads(used.dataset.schema)["mlflow_colspec"]] == [
        *("id", "text", "image", "labels")
    ]
    profile = json.loads(used.dataset.profile)
    assert (profile["num_rows"], profile["num_rejected"], profile["label_counts"]["sea"]) == (20, 3, 60)
    [found] = tracking.client.search_logged_models(
        [logged.experiment_id],
        filter_string="metrics.map_mean > 0.6",
        datasets=[{"dataset_name": name, "dataset_digest": digest}],
    )
    assert found.model_id == logged.model_id


def test_data_that_is_not_under_dvc_is_known_by_its_content(tracking, model, report):
    report = make_report(report, model, raw=None)
    params = RegisterConfig(model_name="scenes")
    version = version_of(tracking, run(model=model, report=report, params=params, tracking=tracking))
    assert version.tags["data_licence"] == ""
    assert "Licence or terms: not stated" in version.description
    assert not [tag for tag in version.tags if tag.startswith("raw_")]
    logged = tracking.client.get_logged_model(version.tags["mlflow_model_id"])
    assert {metric.dataset_digest for metric in logged.metrics} == {"d" * 36}


def test_a_long_card_is_whole_in_the_files_and_shortened_in_the_description(tracking, tmp_path, model):
    names = [f"label number {number} with a long name" for number in range(200)]
    report = make_report(tmp_path / "report", model, label_names=[*LABELS, *names])
    version = version_of(tracking, run(model=model, report=report, params=PARAMS, tracking=tracking))
    [stored] = stored_models(tracking)
    card = (stored / "card.md").read_text()
    assert "| label number 199 with a long name | 60 | 60 | 60 |" in card
    assert len(version.description) <= 5000 < len(card)
    assert version.description.endswith("The rest is in `card.md` and `card.html` beside the model's files.\n")
    assert "<h1>Model card: scenes</h1>" in (stored / "card.html").read_text()


def test_report_of_an_older_program_is_refused(tracking, tmp_path, model):
    ancestors = {"model": read_artifact(model, "model").content_digest}
    with write_artifact(tmp_path / "old", kind="report", provenance={"ancestors": ancestors}) as draft:
        write_json(draft.path / "metrics.json", METRICS)
    with pytest.raises(ArtifactError, match=r"old was made by an older program; run `dvc repro evaluate`"):
        run(model=model, report=tmp_path / "old", params=PARAMS, tracking=tracking)
    assert tracking.client.search_registered_models() == []


def test_same_model_keeps_its_version(tracking, tmp_path, model, report):
    first = run(model=model, report=report, params=PARAMS, tracking=tracking)
    other = make_model(tmp_path / "other", RAW, seed=1)
    second = run(model=other, report=make_report(tmp_path / "r2", other), params=PARAMS, tracking=tracking)
    again = run(model=model, report=make_report(report, model, map_mean=0.9), params=PARAMS, tracking=tracking)

    assert (first.version, second.version, again) == ("1", "2", first)
    assert str(tracking.client.get_model_version_by_alias("scenes", CHALLENGER).version) == "1"
    version = version_of(tracking, again)
    assert version.tags["map_mean"] == "0.9"
    assert "| MAP | mean | 0.900 (0.600 to 0.700) |" in version.description
    [card] = [folder / "card.md" for folder in stored_models(tracking) if folder.parent.name in version.source]
    assert "| MAP | mean | 0.900 (0.600 to 0.700) |" in card.read_text()
    logged = tracking.client.get_logged_model(version.tags["mlflow_model_id"])
    assert {metric.value for metric in logged.metrics if metric.key == "map_mean"} >= {0.9}


def test_version_says_where_pipeline_runs_stored_its_artifacts(tracking, tmp_path, model):
    def register_from(run_id, model=model):
        uris = {kind: f"s3://runs/{run_id}/{kind}_out" for kind in ("dataset", "features", "model", "report")}
        report = make_report(tmp_path / run_id, model, uris=uris)
        registered = run(model=model, report=report, params=PARAMS, tracking=tracking)
        tags = version_of(tracking, registered).tags
        return registered.version, {tag: value for tag, value in tags.items() if tag.endswith("_uri")}

    def uris_of(run_id):
        return {f"{kind}_uri": f"s3://runs/{run_id}/{kind}_out" for kind in ("dataset", "features", "model", "report")}

    assert register_from("7") == ("1", uris_of("7"))
    assert register_from("8") == ("1", uris_of("8"))
    manifest = json.loads((model / "manifest.json").read_text())
    manifest["provenance"]["ancestors"]["dataset"] = "e" * 64
    manifest["manifest_digest"] = manifest_digest_of(manifest)
    write_json(model / "manifest.json", manifest)
    assert register_from("9") == ("1", uris_of("8")), "the same model of other data"


def test_version_names_the_pipeline_run_that_registered_it_last(tracking, model, report, monkeypatch):
    for run_id in ("run-7", "run-8"):
        monkeypatch.setenv("DAGNN_PIPELINE_RUN", run_id)
        registered = run(model=model, report=report, params=PARAMS, tracking=tracking)
        assert version_of(tracking, registered).tags["register_run"] == run_id


def test_version_and_the_run_of_kubeflow_name_each_other(tracking, model, report, monkeypatch):
    monkeypatch.setenv("DAGNN_PIPELINE_RUN", "run-7")
    client = tracking.client
    registered = run(model=model, report=report, params=PARAMS, tracking=tracking)
    assert "kubeflow_mlflow_run" not in version_of(tracking, registered).tags
    experiment = client.get_experiment_by_name(tracking.experiment).experiment_id
    theirs = [
        client.create_run(experiment, tags={"kfp.pipeline_run_id": name}).info.run_id for name in ("run-6", "run-7")
    ]
    assert run(model=model, report=report, params=PARAMS, tracking=tracking) == registered
    assert version_of(tracking, registered).tags["kubeflow_mlflow_run"] == theirs[1]
    named = [client.get_run(run_id).data.tags.get("model_version") for run_id in theirs]
    assert named == [None, f"{registered.name}/{registered.version}"]


def test_a_run_of_kubeflow_that_lets_nobody_write_is_a_warning(tracking, model, report, monkeypatch, caplog):
    monkeypatch.setenv("DAGNN_PIPELINE_RUN", "run-7")
    client = tracking.client
    experiment = client.create_experiment(tracking.experiment)
    theirs = client.create_run(experiment, tags={"kfp.pipeline_run_id": "run-7"}).info.run_id
    with closing(sqlite3.connect(tracking.uri.removeprefix("sqlite:///"))) as database, database:
        database.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON tags WHEN new.key = 'model_version' "
            "BEGIN SELECT RAISE(ABORT, 'not permitted'); END"
        )
    registered = run(model=model, report=report, params=PARAMS, tracking=tracking)
    assert version_of(tracking, registered).tags["kubeflow_mlflow_run"] == theirs
    assert f"MLflow run {theirs} does not name the version scenes/1" in caplog.text


@pytest.mark.slow
def test_same_model_gets_a_new_version_where_the_files_of_the_old_are_gone(tracking, model, report):
    first = run(model=model, report=report, params=PARAMS, tracking=tracking)
    [stored] = stored_models(tracking)
    (stored / "artifacts" / "model" / "history.jsonl").unlink()
    assert run(model=model, report=report, params=PARAMS, tracking=tracking).version == "2"
    assert run(model=model, report=report, params=PARAMS, tracking=tracking).version == "2"
    assert find_fault(tracking, version_of(tracking, first)).endswith("history.jsonl is missing in its store")
    assert find_fault(tracking, version_of(tracking, RegisteredVersion("scenes", "2"))) is None


def test_no_pickle_and_no_bytecode_is_stored(registered):
    [stored] = stored_models(registered.tracking)
    files = [path for path in stored.rglob("*") if path.is_file()]
    suffixes = {path.suffix for path in files} | {""}
    of_code, of_model = {".css", ".html", ".j2", ".py", ".typed"}, {".json", ".jsonl", ".npy", ".safetensors"}
    assert suffixes <= of_code | of_model | {"", ".md", ".txt", ".yaml"}
    assert {path.name for path in files if path.suffix == ""} == {"MLmodel"}
    assert any(path.parts[-4:] == ("code", "dagnn_core", "model", "embedder.py") for path in files)
    for path in files:
        assert path.suffix != ".npy" or np.load(path, allow_pickle=False).dtype.kind == "f"


def test_registered_model_embeds_as_the_trained_one_in_a_new_process(registered):
    tracking, model = registered.tracking, registered.model
    images = [make_image("navy"), make_image("tomato")]
    encoded = [base64.b64encode(content).decode() for content in images]
    code = """
rows = [
    {"image": arguments["images"][0]},
    {"text": arguments["texts"][0]},
    {"text": arguments["texts"][1], "image": None},
    {"image": arguments["images"][1], "text": ""},
]
import dagnn_core
example = model.predict(model.input_example)
print(json.dumps({
    "mixed": model.predict(rows).tolist(),
    "texts": model.predict([{"text": text} for text in arguments["texts"]]).tolist(),
    "dtype": str(example.dtype),
    "example": example.shape,
    "code": dagnn_core.__file__,
    "inputs": [(column.name, column.required) for column in model.metadata.signature.inputs],
    "outputs": model.metadata.signature.outputs.to_dict()[0]["tensor-spec"],
    "both": refuse([{"text": "boat"}, {"text": "boat", "image": arguments["images"][0]}]),
    "neither": refuse([{"text": "", "image": None}]),
    "list": refuse({"text": ["boat", "sea"]}),
    "base64": refuse([{"text": "boat"}, {"image": "sea.jpg"}]),
    "undecodable": refuse([{"text": "boat"}, {"image": base64.b64encode(b"no image").decode()}]),
    "imported": imported(),
}))
"""
    got = in_new_process(tracking, code, forks=True, uri=tracking.uri, texts=TEXTS, images=encoded)

    trained = TrainedModel.read(model)
    texts, images = trained.encode_texts(TEXTS), trained.encode_images(images)
    np.testing.assert_allclose(got["mixed"], [images[0], *texts, images[1]], atol=1e-5)
    np.testing.assert_allclose(got["texts"], texts, atol=1e-5)
    assert np.abs(images[0] - images[1]).max() > 1e-3
    assert (got["dtype"], got["example"]) == ("float32", [2, 8])
    assert "mlartifacts" in got["code"] and got["imported"] == stored_modules(tracking)
    assert got["inputs"] == [["text", False], ["image", False]]
    assert got["outputs"] == {"dtype": "float32", "shape": [-1, 8]}
    assert "row 2 has both text and image, expected exactly one" in got["both"]
    assert "row 1 has neither text and image" in got["neither"]
    assert "row 1: text is of type" in got["list"]
    assert "row 2: image is not base64" in got["base64"]
    assert "image 1 cannot be decoded" in got["undecodable"]


@pytest.mark.slow
def test_model_on_precomputed_vectors_takes_them_as_json(tracking, tmp_path):
    model = make_model(tmp_path / "model", VECTORS)
    report = make_report(tmp_path / "report", model)
    registered = run(model=model, report=report, params=PARAMS, tracking=tracking)
    image, text = [0.1, 0.2, 0.3, 0.4, 0.5], [1.0, -2.0, 3.0]
    code = """
image, text = json.dumps(arguments["image"]), json.dumps(arguments["text"])
print(json.dumps({
    "mixed": model.predict([{"text": text}, {"image": image}]).tolist(),
    "example": model.predict(model.input_example).shape,
    "raw": refuse([{"image": image}, {"text": "a boat"}]),
    "short": refuse([{"text": "[1, 2]"}]),
    "nan": refuse([{"text": "[1, 2, NaN]"}]),
    "imported": imported(),
}))
"""
    got = in_new_process(tracking, code, uri=tracking.uri, image=image, text=text)

    trained = TrainedModel.read(model)
    expected = [
        trained.embed_text_features(np.array([text]))[0],
        trained.embed_image_features(np.array([image]))[0],
    ]
    np.testing.assert_allclose(got["mixed"], expected, atol=1e-5)
    assert (got["example"], got["imported"]) == ([2, 8], stored_modules(tracking))
    assert "row 2: text is 'a boat', expected 3 numbers as a JSON list" in got["raw"]
    assert "row 1: text is '[1, 2]', expected 3 numbers" in got["short"]
    assert "expected 3 numbers" in got["nan"]
    assert "list of 5 numbers" in version_of(tracking, registered).description


@pytest.mark.slow
def test_a_pretrained_encoder_is_served_with_its_network(tracking, tmp_path, model_folder):
    folder = shutil.copytree(model_folder("bert"), tmp_path / "bert")
    encoder = open_text_backbone(FeaturesConfig(text="huggingface", text_model=str(folder), text_pooling="mean"))
    model = make_model(tmp_path / "model", (RAW[0], encoder))
    run(model=model, report=make_report(tmp_path / "report", model), params=PARAMS, tracking=tracking)
    expected = TrainedModel.read(model).encode_texts(TEXTS)
    shutil.rmtree(folder)
    code = "model.predict(model.input_example)  # with an image: encoders are loaded when they are needed\n"
    code += "got = model.predict([{'text': text} for text in arguments['texts']]).tolist()\n"
    code += "print(json.dumps({'embeddings': got, 'imported': imported()}))"
    got = in_new_process(tracking, code, uri=tracking.uri, texts=TEXTS)
    np.testing.assert_allclose(got["embeddings"], expected, atol=1e-5)
    assert got["imported"] == stored_modules(tracking)
    assert np.abs(expected[0] - expected[1]).max() > 1e-6
    [stored] = stored_models(tracking)
    assert_imports_are_pinned(stored, everywhere=True)


@pytest.mark.slow
def test_requirements_pin_what_the_stored_code_imports(tracking, model, report):
    run(model=model, report=report, params=PARAMS, tracking=tracking)
    [stored] = stored_models(tracking)
    pinned = assert_imports_are_pinned(stored, everywhere=False)
    assert "transformers" not in pinned


def assert_imports_are_pinned(stored, *, everywhere):
    """Also inside of functions, where transformers is imported, or not."""
    pinned = {}
    for line in (stored / "requirements.txt").read_text().split():
        package, _, number = line.partition("==")
        pinned[package] = number
    distributions = packages_distributions()
    code = (
        "import components.services.registry.pyfunc_model, json, sys\n"
        "print(json.dumps([module.__file__ for name, module in sys.modules.items() if name.startswith('dagnn_core.')]))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    files = json.loads(done.stdout)
    assert len(files) > 5
    for file in [*files, stored / "pyfunc_model.py"]:
        for package in imported_packages(Path(file), everywhere=everywhere):
            assert set(distributions[package]) & set(pinned), f"{file} imports {package}"
    assert all(number and "+" not in number for number in pinned.values())
    return pinned


def imported_packages(file, *, everywhere):
    names = set()
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"dagnn_core"}


def test_report_of_another_model_is_refused(tracking, tmp_path, model, report):
    other = make_model(tmp_path / "other", RAW, seed=1)
    with pytest.raises(ArtifactError, match=r"report is the report of another model than .*other; run `dvc repro eval"):
        run(model=other, report=report, params=PARAMS, tracking=tracking)
    assert tracking.client.search_registered_models() == []


def test_damaged_model_is_refused(tracking, model, report):
    (model / "history.jsonl").unlink()
    with pytest.raises(ArtifactError, match=r"history.jsonl is missing"):
        run(model=model, report=report, params=PARAMS, tracking=tracking)


def test_name_that_mlflow_does_not_take(tracking, model, report):
    with pytest.raises(InputError, match=r"got 'a/b'; correct register.model_name in params.yaml"):
        run(model=model, report=report, params=RegisterConfig(model_name="a/b"), tracking=tracking)


def test_unreachable_server_is_one_line_and_status_3(model, report):
    code = "from components.command import run_step; from pipeline.cli.registry import register; run_step(register)"
    variables = os.environ | {"MLFLOW_TRACKING_URI": "http://ann:secret@127.0.0.1:9"}
    done = forked.run_code(code, "--model", model, "--report", report, "--params", "{}", environment=variables)
    assert done.returncode == 3
    [line] = done.stderr.splitlines()
    assert line.startswith("error: MLflow at http://127.0.0.1:9 cannot be used: ")


@pytest.fixture
def tracking_by_environment(tracking, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    return tracking


def test_report_below_the_floors_is_not_registered(tracking, model, report):
    params = RegisterConfig(model_name="scenes", gate=GateConfig(min_map_i2t=0.7, min_map_t2i=0.61))
    with pytest.raises(
        CheckFailedError, match=r"report: map_t2i 0.6000 is below 0.61; nothing is registered.*register.gate of params"
    ) as refused:
        run(model=model, report=report, params=params, tracking=tracking)
    assert refused.value.exit_status == 1
    assert "map_i2t" not in str(refused.value)
    assert tracking.client.search_registered_models() == []
    assert tracking.client.search_experiments(filter_string="name = 'dagnn'") == []


def test_command_registers(tracking_by_environment, tmp_path, model, report, capsys):
    params = '{"model_name": "scenes"}'
    commands.register(model=model, report=report, params=params)
    printed = capsys.readouterr().out
    assert "scenes version 1, alias challenger" in printed
    assert f"mlflow ui --backend-store-uri {tracking_by_environment.uri}" in printed
    assert 'mlflow.pyfunc.load_model("models:/scenes@challenger")' in printed

    other = make_model(tmp_path / "other", RAW, seed=1)
    other_report = make_report(tmp_path / "other_report", other, map_mean=0.5)
    commands.register(model=other, report=other_report, params=params, as_json=True)
    registered = json.loads(capsys.readouterr().out)
    assert (registered["version"], registered["alias"]) == ("2", "challenger")


def test_commands_rollback_and_history(tracking_by_environment, store_version, capsys):
    def printed():
        return capsys.readouterr().out.splitlines()

    why = "better for the sea, and for boats at night, as everybody said"
    for map_mean in (0.5, 0.6):
        store_version(tracking_by_environment, "scenes")
        found = GateResult((), {"map_mean": map_mean})
        promote(tracking_by_environment, name="scenes", version=None, examine=lambda *_, found=found: found, why=why)
    store_version(tracking_by_environment, "scenes")

    commands.rollback(params='{"model_name": "scenes"}', why="ticket 7")
    assert printed() == ["champion: version 1 of scenes, after version 2"]
    commands.rollback(name="scenes", to="1", params="{}")
    assert printed() == ["champion: version 1 of scenes, as before"]
    commands.rollback(name="scenes", to="2", params="{}", as_json=True)
    assert json.loads(printed()[0]) == {"name": "scenes", "champion": "2", "replaced": "1"}

    commands.history(name="scenes", params="{}", as_json=True)
    lines = [json.loads(line) for line in printed()]
    assert [(line["entry"], line["what"], line["from"], line["to"]) for line in lines] == [
        (1, "promoted", None, "1"),
        (2, "promoted", "1", "2"),
        (3, "rolled back", "2", "1"),
        (4, "rolled back", "1", "2"),
    ]
    assert set(lines[0]) == {"entry", "when", "from", "to", "who", "what", "figures", "why"}
    assert lines[1]["figures"] == {"map_mean": 0.6}
    assert lines[2]["when"].endswith("+00:00")

    commands.history(name="scenes", params="{}")
    table = printed()
    assert table[0].split() == ["#", "when", "(UTC)", "who", "what", "from", "to", "map_mean", "why"]
    assert [line.split()[0] for line in table if line[:3].strip().isdigit()] == ["1", "2", "3", "4"]
    assert all(len(line) <= 100 for line in table)
    assert table[-1] == "champion: version 2"

    tracking_by_environment.client.set_registered_model_alias("scenes", CHAMPION, "3")
    commands.history(name="scenes", params="{}")
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "champion: version 3"
    assert captured.err.startswith("warning: alias champion is at version 3, the ledger at version 2 (entry 4, ")


def test_history_without_an_event(tracking_by_environment, store_version, capsys):
    store_version(tracking_by_environment, "scenes", map_mean="0.5")
    commands.history(name="scenes", params="{}")
    assert capsys.readouterr().out == "champion: none\n"

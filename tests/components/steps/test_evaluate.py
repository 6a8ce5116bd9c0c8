"""Step `evaluate` on a small trained model: what it writes and tracks, and what it refuses."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.services.tracking.mlflow import Tracking
from components.steps import evaluate, train
from dagnn_core.artifacts import read_artifact, write_artifact
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.train import TrainConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.errors import ArtifactError, BackendError, InputError
from dagnn_core.features.features import Features
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.reports.comparison.compare import ComparedReport, compare_reports
from dagnn_core.reports.evaluation import report as writer
from dagnn_core.reports.evaluation.measure import evaluate as evaluate_model
from dagnn_core.reports.evaluation.measure import score_baselines
from dagnn_core.retrieval.metrics import evaluate_retrieval

Paths = dict[str, Path]
Prepare = Callable[[Path, int], Paths]

PARAMS = EvaluateConfig(num_queries=3, num_retrieved=2)
FIGURES = {
    *("map_i2t", "map_t2i", "map_mean", "map_i2t_at_50", "map_t2i_at_50"),
    *("ndcg_i2t", "ndcg_t2i", "ndcg_i2t_at_10", "ndcg_t2i_at_10", "recall_i2t_at_10", "recall_t2i_at_10"),
    *("ndcg_jaccard_i2t", "ndcg_jaccard_t2i", "ndcg_jaccard_i2t_at_10", "ndcg_jaccard_t2i_at_10"),
}


@pytest.fixture(scope="module")
def trained(inputs: Paths, empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Paths of a data set, its features and a model; the database that knows its run is `mlflow.db` beside them."""
    root = tmp_path_factory.mktemp("trained")
    shutil.copy(empty_database, root / "mlflow.db")
    train.run(
        **inputs,
        model_params=ModelConfig(embedding_dim=8, image_to_text_hidden=8, text_to_image_hidden=8, hops=2),
        params=TrainConfig(epochs=3, batch_size=16, lr=1e-3, device="cpu"),
        tracking=Tracking(uri=f"sqlite:///{root}/mlflow.db"),
        work=root / "work",
        model_out=root / "model",
    )
    return {"dataset": inputs["features"].parent / "dataset", "features": inputs["features"], "model": root / "model"}


@pytest.fixture
def same_tracking(trained: Paths) -> Tracking:
    return Tracking(uri=f"sqlite:///{trained['model'].parent}/mlflow.db")


def run(paths: Paths, tracking: Tracking, root: Path) -> Path:
    out = root / "report"
    evaluate.run(**paths, params=PARAMS, tracking=tracking, report_out=out)
    return out


@pytest.fixture(scope="module")
def report(trained: Paths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of an evaluation, which tests only read."""
    tracking = Tracking(uri=f"sqlite:///{trained['model'].parent}/mlflow.db")
    return run(trained, tracking, tmp_path_factory.mktemp("evaluated"))


def test_the_report_holds_the_metrics_of_the_test_split(trained: Paths, report: Path) -> None:
    artifact = read_artifact(report, "report", verify=True)
    assert set(artifact.files) == {
        *("metrics.json", "analysis.json", "queries.parquet", "history.csv", "precision_recall.csv", "report.html")
    }
    metrics = json.loads((report / "metrics.json").read_text())
    expected = {f"{prefix}{name}" for prefix in ("", "cca_", "chance_") for name in FIGURES}
    maps = ("map_i2t", "map_t2i", "map_mean")
    intervals = {f"{name}_{end}" for name in maps for end in ("low", "high")}
    assert set(metrics) == expected | intervals | {"num_queries", "num_queries_excluded"}
    assert all(metrics[f"{name}_low"] < metrics[name] < metrics[f"{name}_high"] for name in maps)
    assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())
    data = Features.read(trained["features"])
    rows = data.rows("test")
    model = TrainedModel.read(trained["model"])
    direct = evaluate_retrieval(
        model.embed_image_features(data.image[rows]), model.embed_text_features(data.text[rows]), data.labels[rows]
    )
    assert {name: metrics[name] for name in direct} == direct
    assert metrics["chance_map_mean"] < metrics["map_mean"] and metrics["chance_map_mean"] < metrics["cca_map_mean"]
    dataset = read_artifact(trained["dataset"], "dataset")
    described = {"content_digest": dataset.content_digest, "raw": None}
    assert artifact.content["data"] == dataset.content | described
    ancestors = artifact.provenance["ancestors"]
    assert ancestors["model"] == model.artifact.content_digest and set(ancestors) == {
        *("dataset", "features", "label_graph", "model")
    }


def test_the_tables_can_be_plotted(report: Path) -> None:
    history, curve = (
        list(csv.DictReader((report / name).read_text().splitlines()))
        for name in ("history.csv", "precision_recall.csv")
    )
    assert [row["epoch"] for row in history] == ["1", "2", "3"]
    assert {"epoch", "loss_total", "val_map_i2t", "val_map_t2i"} <= set(history[0])
    methods = {f"{method}_{direction}" for method in ("model", "cca", "chance") for direction in ("i2t", "t2i")}
    assert set(curve[0]) == {"recall"} | methods
    assert [float(row["recall"]) for row in curve] == [step / 20 for step in range(21)]
    for name in methods:
        precision = [float(row[name]) for row in curve]
        assert precision == sorted(precision, reverse=True) and 0 < precision[-1] <= precision[0] <= 1


def test_the_run_that_trained_the_model_gets_metrics_and_report(
    trained: Paths, same_tracking: Tracking, report: Path
) -> None:
    run_id = read_artifact(trained["model"], "model").provenance["mlflow_run_id"]
    logged = same_tracking.client.get_run(run_id).data.metrics
    metrics = json.loads((report / "metrics.json").read_text())
    assert {name: logged[name] for name in metrics} == pytest.approx(metrics)
    assert "report/report.html" in {file.path for file in same_tracking.client.list_artifacts(run_id, "report")}


def test_the_results_are_logged_as_a_table(
    trained: Paths, same_tracking: Tracking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    out = run(trained, same_tracking, tmp_path)
    metrics = json.loads((out / "metrics.json").read_text())
    lines = [line for message in caplog.messages for line in message.splitlines()]
    assert any("MAP i2t" in line and "R@10 t2i" in line for line in lines)
    for name, prefix in (("model", ""), ("CCA", "cca_"), ("chance", "chance_")):
        row = next(line.split() for line in lines if line.startswith(name))
        assert row[1:4] == [f"{metrics[prefix + name]:.3f}" for name in ("map_i2t", "map_t2i", "map_mean")]
    assert str(out / "report.html") in caplog.text


def test_equal_evaluations_have_equal_digests_and_another_server_gets_the_run_too(
    trained: Paths, report: Path, tracking: Tracking, tmp_path: Path
) -> None:
    again = run(trained, tracking, tmp_path)
    assert read_artifact(again, "report").content_digest == read_artifact(report, "report").content_digest
    recreated = tracking.client.search_runs([tracking.client.get_experiment_by_name("dagnn").experiment_id])
    assert "map_mean" in recreated[0].data.metrics


def test_inputs_that_do_not_belong_together_are_refused(
    trained: Paths, prepare: Prepare, same_tracking: Tracking, tmp_path: Path
) -> None:
    other = prepare(tmp_path / "other", 1)["features"]
    with pytest.raises(ArtifactError, match=r"made from another dataset artifact .* run `dvc repro extract_features`"):
        run(trained | {"dataset": other.parent / "dataset"}, same_tracking, tmp_path)
    with pytest.raises(ArtifactError, match=r"made from another features artifact .* run `dvc repro train`"):
        run(trained | {"dataset": other.parent / "dataset", "features": other}, same_tracking, tmp_path)
    assert not (tmp_path / "report").exists()


def test_features_without_test_items_are_refused(trained: Paths) -> None:
    data = Features.read(trained["features"])
    without = replace(data, splits=np.where(data.splits == "test", "train", data.splits))
    with pytest.raises(InputError, match=r"has no test items, expected at least one; correct the splits"):
        evaluate_model(TrainedModel.read(trained["model"]), without)


@pytest.mark.slow  # a page for each
@pytest.mark.parametrize(
    ("name", "num_queries"),
    [("one label", None), ("one query", 1), ("two queries", 2), ("one item", 1), ("k above the gallery", 3)],
)
def test_test_splits_that_say_little_have_a_report(trained: Paths, tmp_path: Path, name: str, num_queries: int) -> None:
    dataset, features = Dataset.read(trained["dataset"]), Features.read(trained["features"])
    labels, splits = features.labels.copy(), features.splits.copy()
    test = features.rows("test")
    if name == "one label":
        labels[:] = np.arange(labels.shape[1]) == 0
    elif name.endswith(("query", "queries")):
        labels[test] = 0
        labels[test[:num_queries], 0] = 1
    else:
        labels[test] = np.arange(labels.shape[1]) == 0
        splits[test[num_queries:]] = "train"
    dataset, features = (replace(one, labels=labels, splits=splits) for one in (dataset, features))
    model = TrainedModel.read(trained["model"])
    evaluation = evaluate_model(model, features)
    with write_artifact(tmp_path / "report", kind="report", provenance={}) as draft:
        config = EvaluateConfig(num_queries=3, num_retrieved=20)
        writer.write_report(
            draft, evaluation, dataset=dataset, features=features, model=model, config=config, resources={}
        )
    report = ComparedReport.read("one", read_artifact(tmp_path / "report", "report"))
    assert evaluation.metrics["num_queries"] == (num_queries or len(test))
    assert all(map(math.isfinite, evaluation.metrics.values()))
    assert compare_reports([report, replace(report, name="other")]).rows[2].reference == evaluation.metrics["map_mean"]


def test_no_relevant_item_and_values_that_are_not_finite_are_refused(trained: Paths) -> None:
    features, model = Features.read(trained["features"]), TrainedModel.read(trained["model"])
    test = features.rows("test")
    labels, text = features.labels.copy(), np.array(features.text)
    labels[test], text[test[0]] = 0, np.nan
    with pytest.raises(InputError, match="queries has a relevant item, so MAP is undefined"):
        evaluate_model(model, replace(features, labels=labels))
    with pytest.raises(InputError, match=r"embedding 0 of .* is not finite, expected finite numbers"):
        evaluate_model(model, replace(features, text=text))


def test_the_baseline_learns_from_pairs_alone(trained: Paths) -> None:
    data = Features.read(trained["features"])
    half = data.rows("train")[::2]
    lacking = np.isin(np.arange(len(data.ids)), half)
    image = np.where(lacking[:, None], 0, data.image)
    incomplete = score_baselines(replace(data, image=image, has_image=~lacking))
    without = score_baselines(replace(data, splits=np.where(lacking, "none", data.splits)))
    assert incomplete.cca.metrics == without.cca.metrics
    assert incomplete.cca.metrics != score_baselines(data).cca.metrics


def test_a_damaged_model_is_refused(trained: Paths, same_tracking: Tracking, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained["model"], tmp_path / "model"))
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    with pytest.raises(ArtifactError, match=r"model.safetensors does not have the checksum of its manifest"):
        run(trained | {"model": copy}, same_tracking, tmp_path)


def test_a_server_that_does_not_answer_stops_before_any_work(trained: Paths, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"127\.0\.0\.1:9"):
        run(trained, Tracking(uri="http://127.0.0.1:9"), tmp_path)
    assert not (tmp_path / "report").exists()


def test_an_interrupted_evaluation_leaves_the_earlier_report(
    trained: Paths, report: Path, same_tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(report, tmp_path / "report"))
    before = read_artifact(out, "report", verify=True).content_digest

    def interrupt(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "render_report", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(trained, same_tracking, tmp_path)
    assert read_artifact(out, "report", verify=True).content_digest == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]

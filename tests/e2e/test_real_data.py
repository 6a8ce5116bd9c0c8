"""Real data from the raw files to a report, by the commands that a user types, in a copy of this checkout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dagnn_core.artifacts import read_artifact
from dagnn_core.model.embedder import TrainedModel
from tests.fixtures.locations import SHARED

DATA = SHARED / "data"
FASHION, COCO, MIRFLICKR = (DATA / name for name in ("fashion", "coco_mini", "mirflickr25k"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not at ../shared/data"),
]


def findings(checkout: Any, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit status and findings of `dagnn data check`, by name."""
    done = checkout.try_run("dagnn", "data", "check", *arguments, "--json")
    return done.returncode, {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


def above(found: dict[str, Any], verdict: str) -> set[str]:
    return {name for name, finding in found.items() if finding["verdict"] == verdict}


def test_fashion(make_checkout: Callable[[], Any]) -> None:
    """9,583 product photos: under DVC, imported, encoded, trained on, evaluated, checked."""
    checkout = make_checkout()
    checkout.run("dagnn", "data", "add", "fashion", str(FASHION))
    checkout.run("dagnn", "params", "use", "fashion", "--force")
    checkout.set({"dataset": {"source": "data/fashion"}, "features": {"image": "precomputed"}})
    checkout.set({"model": {"embedding_dim": 64, "hops": 1}, "train": {"epochs": 2, "lr": 0.001}})
    checkout.run("dvc", "repro")
    dataset = read_artifact(checkout.root / "artifacts/dataset", "dataset", verify=True)
    assert dataset.content["splits"] == {"train": 6571, "val": 1000, "test": 2000}
    assert dataset.content["rejected"] == {"no label": 12}
    assert dataset.provenance["raw"]["md5"] in (checkout.root / "data/fashion.dvc").read_text()
    assert "card.html" in dataset.files
    metrics = json.loads((checkout.root / "artifacts/report/metrics.json").read_text())
    assert metrics["map_mean"] > 1.5 * 0.347, "chance MAP is 0.347"
    status, found = findings(checkout, "artifacts/dataset")
    assert status == 1
    assert above(found, "failed") == {"leaked_images"}
    assert found["leaked_images"]["value"] == pytest.approx(0.02, abs=0.005)


def test_coco(make_checkout: Callable[[], Any], model_folder: Callable[[str], Path]) -> None:
    """363 COCO photos with 80 categories, through a vision transformer with random weights and a sentence encoder."""
    checkout = make_checkout()
    checkout.run("dagnn", "data", "add", "coco", str(COCO))
    checkout.run("dagnn", "params", "use", "coco", "--force")
    coco = {"parts": ["mini"], "test_parts": [], "images": "images"}
    drawn = {"val_fraction": 0.2, "min_label_count": 5}  # every fifteenth has rare labels only, which is no fault
    checkout.set({"dataset": {"source": "data/coco", **drawn, "coco": coco}})
    encoders = {"image": "huggingface", "image_model": str(model_folder("vit"))}
    encoders |= {"text": "huggingface", "text_model": str(model_folder("bert"))}
    graph = {"embedding": "ppmi_svd", "embedding_dim": 16}
    checkout.set({"features": encoders, "label_graph": graph})
    checkout.set({"model": {"embedding_dim": 16, "hops": 1}, "train": {"epochs": 2, "lr": 0.001}})
    checkout.run("dvc", "repro")
    dataset = read_artifact(checkout.root / "artifacts/dataset", "dataset", verify=True)
    assert dataset.content["num_rows"] == 363
    assert dataset.content["num_items"] + sum(dataset.content["rejected"].values()) == 363
    model = TrainedModel.read(checkout.root / "artifacts/model", verify=True)
    assert model.encode_texts(["a boat on the sea"]).shape == (1, 16)
    status, found = findings(checkout, "artifacts/dataset")
    assert above(found, "failed") == set()
    assert status == 0


def test_mirflickr_matrices(make_checkout: Callable[[], Any]) -> None:
    """20,015 items as matrices of tags and labels: a data set of texts alone, the label graph, no drift."""
    checkout = make_checkout()
    checkout.run("dagnn", "data", "add", "mirflickr", str(MIRFLICKR))
    matrices = {"text": "mirflickr25k-yall.mat", "labels": "mirflickr25k-lall.mat", "image": ""}
    matrices |= {"label_names": "label_names.txt", "text_names": "common_tags.txt", "test_rows": "0:2000"}
    source = {"layout": "features", "source": "data/mirflickr", "incomplete": "keep", "features": matrices}
    checkout.set({"dataset": source})
    checkout.run("dvc", "repro", "build_label_graph")
    dataset = read_artifact(checkout.root / "artifacts/dataset", "dataset", verify=True)
    assert dataset.content["num_items"] == 20_015
    assert dataset.content["splits"]["test"] == 2000
    graph = read_artifact(checkout.root / "artifacts/label_graph", "label_graph", verify=True)
    assert graph.content["num_edges"] == pytest.approx(78, abs=2), "77 on all items, 79 on 17,815 of them"
    status, found = findings(checkout, "artifacts/dataset")
    assert above(found, "failed") == set()
    assert status == 0
    rows = ("--text", matrices["text"], "--labels", matrices["labels"], "--label-names", "label_names.txt")
    rows += ("--image", "", "--text-names", "common_tags.txt", "--incomplete", "keep")
    checkout.run(*("dagnn", "data", "import", "features", "data/mirflickr", "other", *rows, "--test-rows", "0:500"))
    status, found = findings(checkout, "artifacts/dataset", "--against", "other")
    assert status == 0, "the same items in other splits do not drift"
    assert above(found, "warning") == {"shared_ids", "shared_texts"}
    assert found["shared_ids"]["value"] == 20_015

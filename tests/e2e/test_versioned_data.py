"""Raw data under DVC in a copy of this checkout: added, used, changed, and brought back from S3."""

import csv
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dagnn_core.artifacts import read_artifact
from tests.fixtures.s3 import AWS, SECRET, Bucket

pytestmark = pytest.mark.slow


def write_source(folder: Path, count: int) -> Path:
    """Small images and a table of them, in splits of their own."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    with (folder / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "text", "labels", "split"])
        for number in range(count):
            labels = ["boat", "sea", "night"][: number % 3 + 1]
            noise = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / "images" / f"{number}.png")
            split = ("train", "train", "train", "val", "test")[number % 5]
            writer.writerow([number, f"a {' and a '.join(labels)}", "|".join(labels), split])
    return folder


def stages_run(output: str) -> list[str]:
    return re.findall(r"^Running stage '(\w+)'", output, flags=re.MULTILINE)


def test_add_repro_change_and_go_back(make_checkout: Callable[[], Any], bucket: Bucket, tmp_path: Path) -> None:
    checkout = make_checkout()
    checkout.environment |= AWS
    checkout.run("dvc", "remote", "add", "--default", "storage", f"{bucket.uri}/dvc")
    checkout.run("dvc", "remote", "modify", "storage", "endpointurl", bucket.endpoint)
    source = write_source(tmp_path / "photos", 120)
    printed = checkout.run("dagnn", "data", "add", "photos", str(source))
    for line in ("git add data/photos.dvc data/.gitignore", "dvc push", "-S dataset.source=data/photos"):
        assert line in printed
    folder = {"table": "table.csv", "images": "images.tar", "image_pattern": "{id}.png", "split_column": "split"}
    changes = {"layout": "folder", "source": "data/photos", "folder": folder, "min_label_count": 1}
    checkout.set({"dataset": changes, "features": {"min_word_count": 1}})
    checkout.run("dvc", "repro", "build_label_graph")
    checkout.commit()
    output = checkout.run("dvc", "push")
    first = read_artifact(checkout.root / "artifacts/dataset", "dataset")
    assert first.content["num_items"] == 120
    md5 = first.provenance["raw"]["md5"]
    assert md5 in (checkout.root / "data/photos.dvc").read_text()
    assert first.provenance["ancestors"] == {"raw": md5}
    graph = read_artifact(checkout.root / "artifacts/label_graph", "label_graph")
    assert graph.provenance["ancestors"]["raw"] == md5
    assert stages_run(checkout.run("dvc", "repro", "build_label_graph")) == []

    write_source(source, 130)
    checkout.run("dagnn", "data", "add", "photos", str(source))
    assert stages_run(checkout.run("dvc", "repro", "build_label_graph")) == ["dataset", "build_label_graph"]
    assert read_artifact(checkout.root / "artifacts/dataset", "dataset").content["num_items"] == 130
    checkout.commit()

    output += checkout.run("dvc", "push")
    clone = type(checkout)(tmp_path / "clone")
    clone.environment |= AWS
    subprocess.run(["git", "clone", "--quiet", str(checkout.root), str(clone.root)], check=True)
    clone.run("git", "checkout", "--quiet", "HEAD~1")
    output += clone.run("dvc", "pull", "data/photos.dvc")
    clone.run("dvc", "repro", "dataset")
    again = read_artifact(clone.root / "artifacts/dataset", "dataset", verify=True)
    assert again.content_digest == first.content_digest
    assert SECRET not in output
    for name in clone.run("git", "ls-files").split():
        assert SECRET.encode() not in (clone.root / name).read_bytes() or name == "tests/fixtures/s3.py"

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.params import load_spec
from components.params_file import load_params
from components.services.lineage.provenance import provenance
from components.steps import dataset as step
from dagnn_core.artifacts import read_artifact
from dagnn_core.config.dataset import DatasetConfig, FolderConfig
from dagnn_core.config.section import section_json
from dagnn_core.data.dataset import KIND, Dataset
from dagnn_core.data.ingest.shards import ShardWriter
from dagnn_core.data.ingest.work import images_digest
from dagnn_core.data.layouts.folder import open_folder
from dagnn_core.errors import InputError
from dagnn_core.work import work_folder
from examples.demo_scenes import DemoSpec, render_scenes
from tests.fixtures import forked
from tests.fixtures.locations import ROOT

SPLITS = ["train", "train", "train", "val", "test"]
HEADER = ["id", "text", "labels", "split"]
FOLDER = FolderConfig(table="table.csv", images="images", image_pattern="{id}.png", split_column="split")


def make_source(folder, count=20, side=8):
    """Raw data with noise as images; labels `boat` and `water` in every split."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        noise = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "images" / f"p{i}.png")
    write_table(folder, rows(count))
    return folder


def rows(count=20):
    return [[f"p{i}", f"text {i}", "boat|water" if i % 2 else "water", SPLITS[i % 5]] for i in range(count)]


def write_table(folder, table):
    with (folder / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([HEADER, *table])


@pytest.fixture
def source(tmp_path):
    return make_source(tmp_path / "source")


@pytest.fixture
def params(source):
    return DatasetConfig(layout="folder", source=str(source), folder=FOLDER, max_rejected=0.2)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out" / "dataset"


def work_of(out):
    return out.parent.with_name("work")


def run(*, params, dataset_out):
    """Run the step, and see that it leaves no unfinished work."""
    step.run(params=params, work=work_of(dataset_out), dataset_out=dataset_out)
    assert entries(work_of(dataset_out)) == []


def rejected(out):
    return pq.read_table(out / "rejected.parquet").to_pylist()


def entries(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_images_are_stored_as_they_are(source, params, out):
    run(params=params, dataset_out=out)
    dataset = Dataset.read(out, verify=True)
    assert dataset.ids == tuple(f"p{i}" for i in range(20))
    assert dataset.label_names == ("boat", "water")
    assert dataset.splits.tolist() == SPLITS * 4
    assert dataset.images([7]) == [(source / "images" / "p7.png").read_bytes()]
    content = dataset.artifact.content
    assert content["layout"] == "folder"
    assert content["num_rows"] == 20
    assert content["splits"] == {"train": 12, "val": 4, "test": 4}
    assert content["rejected"] == {}
    assert dataset.artifact.provenance["step"] == "dataset"


def test_the_artifact_has_a_data_card(params, out):
    run(params=params, dataset_out=out)
    artifact = read_artifact(out, KIND, verify=True)
    assert {"card.html", "card.md", "card/labels.png", "card/sample-12.jpg"} <= set(artifact.files)
    page = artifact.file("card.html").read_text(encoding="utf-8")
    assert "Imported by the layout folder" in page
    source = Path(params.source)
    elsewhere = shutil.copytree(source, source.with_name("elsewhere"))
    run(params=replace(params, source=str(elsewhere)), dataset_out=out)
    assert read_artifact(out, KIND).content_digest == artifact.content_digest, "wherever the source is"


def test_a_tar_gives_the_same_files_as_a_folder(source, params, out):
    with tarfile.open(source / "images.tar", "w") as tar:
        tar.add(source / "images", ".")
    run(params=params, dataset_out=out)
    other = out.with_name("of_tar")
    run(params=replace(params, folder=replace(FOLDER, images="images.tar")), dataset_out=other)
    assert read_artifact(other, KIND).content_digest == read_artifact(out, KIND).content_digest


def test_the_raw_data_may_be_elsewhere_than_the_parameters_say(source, params, out):
    elsewhere = replace(params, source="data/photos")
    step.run(params=elsewhere, work=out.parent / "work", dataset_out=out, source=source)
    moved = read_artifact(out, KIND, verify=True)
    step.run(params=params, work=out.parent / "work", dataset_out=out)
    assert read_artifact(out, KIND).content_digest == moved.content_digest
    assert moved.provenance["params"]["dataset"]["source"] == "data/photos"


def test_precomputed_vectors_are_written_in_row_order(source, params, out):
    ids = [f"p{i}" for i in reversed(range(20))]
    np.savez(source / "v.npz", ids=ids, features=np.arange(40, dtype=np.float16).reshape(20, 2))
    write_table(source, [row for row in rows() if row[0] != "p3"])
    run(
        params=replace(params, folder=replace(FOLDER, images="", text_vectors="v.npz", image_vectors="v.npz")),
        dataset_out=out,
    )
    dataset = Dataset.read(out, verify=True)
    assert "p3" not in dataset.ids
    np.testing.assert_array_equal(dataset.vectors("image")[:, 0], [38 - 2 * i for i in range(20) if i != 3])
    assert dataset.vectors("text").dtype == np.float16
    assert dataset.images([0]) == [None]
    assert dataset.artifact.content["vectors"]["image"] == {"dim": 2, "dtype": "float16"}


def test_unusable_rows_are_quarantined_with_row_reason_and_detail(source, params, out, caplog):
    (source / "images" / "p4.png").write_bytes(b"hello")
    image = (source / "images" / "p5.png").read_bytes()
    (source / "images" / "p5.png").write_bytes(image[: len(image) // 2])
    (source / "images" / "p6.png").unlink()
    table = rows()
    table[0][1] = ""
    write_table(source, table)
    run(params=params, dataset_out=out)
    found = rejected(out)
    assert [(entry["row"], entry["id"], entry["reason"]) for entry in found] == [
        (1, "p0", "empty text"),
        (5, "p4", "undecodable image"),
        (6, "p5", "undecodable image"),
        (7, "p6", "image missing"),
    ]
    assert found[1]["detail"].startswith("p4.png: not an image in one of the formats")
    assert found[2]["detail"].startswith("p5.png: OSError")
    assert found[3]["detail"] == "p6.png"
    dataset = Dataset.read(out, verify=True)
    assert dataset.ids == ("p1", "p2", "p3", *(f"p{i}" for i in range(7, 20)))
    assert dataset.artifact.content["rejected"] == {"undecodable image": 2, "empty text": 1, "image missing": 1}
    assert "rejected 4 of 20 rows (2 undecodable image, 1 empty text, 1 image missing)" in caplog.text


def test_too_many_unusable_rows_stop_the_step(source, params, out):
    for i in range(3):
        (source / "images" / f"p{i}.png").unlink()
    (source / "images" / "p9.png").write_bytes(b"")
    message = (
        r"table\.csv: 4 of 20 rows cannot be used \(3 image missing, 1 undecodable image\), expected at most "
        r"15\.000% of them; first: row 1 \(line 2\) 'p0': image missing \(p0\.png\); row 2 .*; row 3 [^;]*; "
        r"correct them or raise dataset\.max_rejected"
    )
    with pytest.raises(InputError, match=message):
        run(params=replace(params, max_rejected=0.15), dataset_out=out)
    assert entries(out.parent) == []
    run(params=replace(params, max_rejected=0.2), dataset_out=out)


def test_faults_of_the_table_stop_the_step_before_images_are_read(source, params, out):
    write_table(source, [[*row[:2], "", row[3]] for row in rows()])
    shutil.rmtree(source / "images")
    (source / "images").mkdir()
    with pytest.raises(InputError, match=r"20 of 20 rows cannot be used \(20 no label\)"):
        run(params=params, dataset_out=out)


def test_rare_labels_are_dropped_with_the_items_that_have_no_other(source, params, out):
    table = rows()
    table[3][2], table[4][2], table[5][2] = "rare|boat", "rare", "rare|water"
    write_table(source, table)
    run(params=replace(params, min_label_count=2), dataset_out=out)
    dataset = Dataset.read(out, verify=True)
    assert dataset.label_names == ("boat", "water")
    assert dataset.artifact.content["dropped_labels"] == {"rare": 1}
    assert [(entry["row"], entry["reason"]) for entry in rejected(out)] == [(5, "rare labels only")]


def test_the_label_counts_that_matter_are_those_of_usable_rows(source, params, out):
    """The only training item with `rare` has a damaged image, so the label cannot be learned."""
    table = rows()
    table[0][2], table[4][2] = "rare|water", "rare|water"
    write_table(source, table)
    run(params=params, dataset_out=out)
    (source / "images" / "p0.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"the label 'rare' is on 1 items of val and test \(first: id 'p4'"):
        run(params=params, dataset_out=out)


@pytest.mark.parametrize("missing", ["train", "val", "test"])
def test_an_empty_split_is_an_error(source, params, out, missing):
    other = "train" if missing != "train" else "val"
    write_table(source, [[*row[:3], other if row[3] == missing else row[3]] for row in rows()])
    with pytest.raises(InputError, match=rf"table\.csv: no item is in the split '{missing}' \(of 20\)"):
        run(params=params, dataset_out=out)


def test_drawn_splits_do_not_move_when_rows_go(source, params, out):
    drawn = replace(params, seed=4, folder=replace(FOLDER, split_column=""), val_fraction=0.3, test_fraction=0.3)
    run(params=drawn, dataset_out=out)
    before = Dataset.read(out)
    split_of = dict(zip(before.ids, before.splits, strict=True))
    write_table(source, rows()[::-1][2:])
    run(params=drawn, dataset_out=out)
    after = Dataset.read(out)
    assert len(after) == 18
    assert all(split_of[item_id] == split for item_id, split in zip(after.ids, after.splits, strict=True))


def modalities(dataset):
    return {
        item_id: {(True, True): "complete", (True, False): "image", (False, True): "text"}[image, text]
        for item_id, image, text in zip(dataset.ids, dataset.has_image.tolist(), dataset.has_text.tolist(), strict=True)
    }


def incomplete_in(source, *, without_text=(), without_image=()):
    table = rows()
    for i in without_text:
        table[i][1] = " "
    for i in without_image:
        (source / "images" / f"p{i}.png").unlink(missing_ok=True)
    write_table(source, table)


def test_incomplete_training_items_are_kept_where_asked_for(source, params, out, caplog):
    caplog.set_level("INFO")
    incomplete_in(source, without_text=[0, 5], without_image=[1])
    run(params=replace(params, incomplete="keep"), dataset_out=out)
    dataset = Dataset.read(out, verify=True)
    assert len(dataset) == 20
    found = {item_id: what for item_id, what in modalities(dataset).items() if what != "complete"}
    assert found == {"p0": "image", "p1": "text", "p5": "image"}
    assert dataset.texts[:2] == ("", "text 1")
    assert dataset.images([0, 1]) == [(source / "images" / "p0.png").read_bytes(), None]
    assert dataset.artifact.content["modalities"] == {"complete": 17, "image_only": 2, "text_only": 1}
    assert dataset.artifact.content["rejected"] == {}
    assert "4 test items (17 complete, 2 image-only, 1 text-only), 2 labels" in caplog.text


def test_an_empty_cell_is_a_missing_image(source, params, out):
    table = [[*row, f"{row[0]}.png" if row[0] != "p2" else ""] for row in rows()]
    with (source / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([[*HEADER, "file"], *table])
    params = replace(params, folder=replace(FOLDER, image_column="file"))
    run(params=params, dataset_out=out)
    assert [(entry["row"], entry["reason"]) for entry in rejected(out)] == [(3, "image missing")]
    run(params=replace(params, incomplete="keep"), dataset_out=out)
    assert modalities(Dataset.read(out))["p2"] == "text"


def test_what_lacks_both_and_what_lacks_one_outside_training_is_rejected(source, params, out):
    incomplete_in(source, without_text=[0, 1, 3, 4], without_image=[1, 8, 9])
    (source / "images" / "p2.png").write_bytes(b"hello")
    run(params=replace(params, incomplete="keep", max_rejected=0.5), dataset_out=out)
    assert [(entry["id"], entry["reason"]) for entry in rejected(out)] == [
        ("p1", "neither image nor text"),
        ("p2", "undecodable image"),
        *((f"p{i}", "no image or no text, though in val or test") for i in (3, 4, 8, 9)),
    ]
    dataset = Dataset.read(out, verify=True)
    assert modalities(dataset).pop("p0") == "image"
    assert dataset.artifact.content["modalities"] == {"complete": 13, "image_only": 1, "text_only": 0}


def test_incomplete_rows_outside_training_count_as_rejected(source, params, out):
    incomplete_in(source, without_text=[3, 4])
    message = (
        r"2 of 20 rows cannot be used \(2 no image or no text, though in val or test\), expected at most 5\.000% .*"
        r"first: row 4 \(line 5\) 'p3'"
    )
    with pytest.raises(InputError, match=message):
        run(params=replace(params, incomplete="keep", max_rejected=0.05), dataset_out=out)


def test_where_splits_are_drawn_incomplete_items_go_to_training_and_the_others_stay(source, params, out):
    drawn = replace(params, seed=4, folder=replace(FOLDER, split_column=""), val_fraction=0.3, test_fraction=0.3)
    run(params=drawn, dataset_out=out)
    before = Dataset.read(out)
    split_of = dict(zip(before.ids, before.splits, strict=True))
    lacking = [int(item_id[1:]) for split in ("val", "test") for item_id in before.ids if split_of[item_id] == split][
        ::3
    ]
    incomplete_in(source, without_text=lacking)
    run(params=replace(drawn, incomplete="keep"), dataset_out=out)
    after = Dataset.read(out)
    expected = split_of | {f"p{i}": "train" for i in lacking}
    assert dict(zip(after.ids, after.splits, strict=True)) == expected
    assert after.artifact.content["modalities"]["image_only"] == len(lacking) > 0


def test_without_any_complete_training_item_the_step_stops(source, params, out):
    keep = replace(params, incomplete="keep", folder=replace(FOLDER, image_pattern="{id}.jpg"))
    message = r"table\.csv: none of the 12 training items has both image and text, .*that dataset\.folder names"
    with pytest.raises(InputError, match=message):
        run(params=keep, dataset_out=out)
    with pytest.raises(InputError, match=r"none of the 20 training items has both image and text"):
        run(params=replace(keep, folder=replace(keep.folder, split_column="")), dataset_out=out)
    write_table(
        source, [[*row[:2], "boat|water", split] for row, split in zip(rows(3), ["train", "val", "test"], strict=True)]
    )
    with pytest.raises(InputError, match=r"none of the 1 training items .*lower dataset\.train_without_image and"):
        run(params=replace(params, train_without_image=0.6), dataset_out=out)
    assert entries(out.parent) == []


def test_precomputed_vectors_of_incomplete_items_are_zeros(source, params, out):
    ids = [f"p{i}" for i in range(20)]
    vectors = np.arange(1, 41, dtype=np.float32).reshape(20, 2)
    np.savez(source / "image.npz", ids=ids[1:], features=vectors[1:])
    np.savez(source / "text.npz", ids=ids, features=vectors)
    incomplete_in(source, without_text=[2])
    folder = replace(FOLDER, image_vectors="image.npz", text_vectors="text.npz")
    for images in ("", "images"):
        run(params=replace(params, incomplete="keep", folder=replace(folder, images=images)), dataset_out=out)
        dataset = Dataset.read(out, verify=True)
        assert {item_id: what for item_id, what in modalities(dataset).items() if what != "complete"} == {
            "p0": "text",
            "p2": "image",
        }
        expected = vectors.copy()
        expected[0] = 0
        np.testing.assert_array_equal(dataset.vectors("image"), expected)
        assert dataset.images([0]) == [None]  # its image alone would not do where vectors are asked for
        expected = vectors.copy()
        expected[2] = 0
        np.testing.assert_array_equal(dataset.vectors("text"), expected)


@pytest.mark.parametrize("vectors", [False, True])
def test_images_and_texts_are_taken_away_from_training_items(source, params, out, vectors, caplog):
    caplog.set_level("INFO")
    features = np.ones((20, 2), dtype=np.float32)
    np.savez(source / "v.npz", ids=[f"p{i}" for i in range(20)], features=features)
    names = {"image_vectors": "v.npz", "text_vectors": "v.npz"} if vectors else {}
    params = replace(params, train_without_image=0.5, train_without_text=0.25, folder=replace(FOLDER, **names))
    run(params=params, dataset_out=out)
    dataset = Dataset.read(out, verify=True)
    assert dataset.artifact.content["modalities"] == {"complete": 11, "image_only": 3, "text_only": 6}
    assert "12 train, 4 val, 4 test items (11 complete, 3 image-only, 6 text-only), 2 labels" in caplog.text
    assert (dataset.has_image & dataset.has_text)[dataset.splits != "train"].all()
    assert (dataset.has_image | dataset.has_text).all()
    images = dataset.images(range(20))
    assert [image is not None for image in images] == dataset.has_image.tolist()
    assert [bool(text) for text in dataset.texts] == dataset.has_text.tolist()
    if vectors:
        np.testing.assert_array_equal(dataset.vectors("image")[:, 0], dataset.has_image)
        np.testing.assert_array_equal(dataset.vectors("text")[:, 0], dataset.has_text)


def test_the_demo_loses_images_too(tmp_path, out):
    spec = demo_spec(tmp_path, "{num_scenes: 60, width: 96, height: 96}")
    params = DatasetConfig(source=str(spec), min_label_count=2, train_without_image=0.4, train_without_text=0.4)
    run(params=params, dataset_out=out)
    dataset = Dataset.read(out, verify=True)
    num_train = len(dataset.rows("train"))
    counts = dataset.artifact.content["modalities"]
    assert counts["image_only"] == counts["text_only"] == round(0.4 * num_train)
    assert [image is not None for image in dataset.images(range(60))] == dataset.has_image.tolist()


def test_texts_alone_are_a_data_set_for_a_label_graph(source, params, out):
    texts = replace(params, folder=replace(FOLDER, images=""))
    with pytest.raises(InputError, match="neither images nor image_vectors"):
        run(params=texts, dataset_out=out)
    with pytest.raises(InputError, match="none of the 12 training items has both image and text"):
        run(params=replace(texts, incomplete="keep", train_without_text=0.1), dataset_out=out)
    incomplete_in(source, without_text=[3])
    run(params=replace(texts, incomplete="keep"), dataset_out=out)
    dataset = Dataset.read(out, verify=True)
    assert dataset.artifact.content["modalities"] == {"complete": 0, "image_only": 0, "text_only": 19}
    assert dataset.artifact.content["splits"] == {"train": 12, "val": 3, "test": 4}
    assert dataset.artifact.content["rejected"] == {"neither image nor text": 1}


def test_an_error_leaves_the_data_set_that_is_there(source, params, out):
    run(params=params, dataset_out=out)
    before = read_artifact(out, KIND).content_digest
    write_table(source, [[*row[:3], "holdout"] for row in rows()])
    with pytest.raises(InputError, match="unknown split 'holdout'"):
        run(params=params, dataset_out=out)
    assert read_artifact(out, KIND, verify=True).content_digest == before
    assert entries(out.parent) == ["dataset"]


# ru_maxrss would begin with the peak of the process that starts this one
PEAK_MEMORY = """
import re, sys
from pathlib import Path
from components.steps.dataset import run
from components.params import load_section
from dagnn_core.config.dataset import DatasetConfig
out = Path(sys.argv[2])
run(params=load_section(sys.argv[1], DatasetConfig), work=out.with_name("work"), dataset_out=out)
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="no /proc, which tells a peak of memory"
)


@pytest.mark.slow
@needs_proc
def test_memory_does_not_grow_with_the_images(source, params, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (836, 836, 3), dtype=np.uint8)
    Image.fromarray(noise).save(source / "images" / "p.bmp")  # 2 MiB
    peaks = []
    for count in (50, 150):
        write_table(source, rows(count))
        for i in range(count):
            (source / "images" / f"p{i}.png").unlink(missing_ok=True)
            (source / "images" / f"p{i}.png").hardlink_to(source / "images" / "p.bmp")
        command = [sys.executable, "-c", PEAK_MEMORY, section_json(params), str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 60  # MiB, where the images are 200 MiB more


@needs_proc
@pytest.mark.slow
def test_memory_of_a_hundred_thousand_items(tmp_path):
    count = 100_000
    rng = np.random.default_rng(0)
    images = []
    for _ in range(300):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((64, 64)).save(file, "JPEG")
        images.append(file.getvalue())
    (tmp_path / "source").mkdir()
    with tarfile.open(tmp_path / "source" / "images.tar", "w") as tar:
        for i in range(count):
            member = tarfile.TarInfo(f"p{i}.png")
            member.size = len(images[i % 300])
            tar.addfile(member, io.BytesIO(images[i % 300]))
    write_table(tmp_path / "source", rows(count))
    folder = replace(FOLDER, images="images.tar")
    section = section_json(DatasetConfig(layout="folder", source=str(tmp_path / "source"), folder=folder))
    command = [sys.executable, "-c", PEAK_MEMORY, section, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert int(done.stdout) < 400  # MiB
    assert len(Dataset.read(tmp_path / "out")) == count


def demo_spec(tmp_path, text):
    path = tmp_path / "scenes.yaml"
    path.write_text(text)
    return path


def test_the_demo_is_rendered_with_all_its_scenes(tmp_path, out):
    spec = demo_spec(tmp_path, "{num_scenes: 60, width: 96, height: 96}")
    run(params=DatasetConfig(source=str(spec), min_label_count=2), dataset_out=out)
    dataset = Dataset.read(out, verify=True)
    scenes = list(render_scenes(DemoSpec(num_scenes=60, width=96, height=96)))
    assert dataset.ids == tuple(scene.id for scene in scenes)
    assert dataset.texts == tuple(scene.text for scene in scenes)
    assert dataset.images(range(60)) == [scene.image for scene in scenes]
    labels = [{name for name, has in zip(dataset.label_names, row, strict=True) if has} for row in dataset.labels]
    assert labels == [set(scene.labels) & set(dataset.label_names) for scene in scenes]
    assert dataset.artifact.content["layout"] == "demo"
    assert dataset.artifact.content["rejected"] == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_scene: 5\n", r"scenes\.yaml: unknown key scenes\.num_scene; did you mean 'num_scenes'\? valid keys"),
        ("num_scenes: many\n", r"scenes\.yaml: scenes\.num_scenes must be a whole number, got 'many'"),
        ("num_scenes: 0\n", r"scenes\.yaml: .*num_scenes must be >= 1, got 0"),
        ("- 1\n", r"scenes\.yaml: scenes must be a mapping"),
        ("a: [\n", r"scenes\.yaml is not valid YAML"),
    ],
)
def test_a_bad_spec_file_is_named_with_its_key(tmp_path, out, text, message):
    spec = demo_spec(tmp_path, text)
    with pytest.raises(InputError, match=message):
        run(params=DatasetConfig(source=str(spec)), dataset_out=out)


def test_a_spec_file_of_the_layout_folder(tmp_path):
    path = demo_spec(tmp_path, "table: t.csv\nlabel_columns: [a, b]\n")
    assert load_spec(path, FolderConfig) == FolderConfig(table="t.csv", label_columns=("a", "b"))


# the command line, as DVC calls it


def command(params, out, *, work=None):
    section = section_json(params) if isinstance(params, DatasetConfig) else str(params)
    options = ["--params", section, "--work", str(work or work_of(out)), "--dataset-out", str(out)]
    return ["components.steps.dataset", *options]


def fails(params, out, status, *, work=None):
    done = forked.run(*command(params, out, work=work))
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("error: ")
    return message


def test_the_command_writes_the_data_set(params, out):
    done = forked.run(*command(params, out))
    assert done.returncode == 0, done.stderr
    assert "data set: 12 train, 4 val, 4 test items, 2 labels" in done.stderr
    assert len(Dataset.read(out, verify=True)) == 20


def test_bad_input_is_one_line_and_status_2(source, params, out):
    write_table(source, [[*row[:3], "holdout"] for row in rows()])
    message = fails(params, out, 2)
    assert "table.csv, row 1 (line 2): unknown split 'holdout', expected train, validation or test" in message
    assert entries(out.parent) == []


def test_a_mistyped_key_is_one_line_and_status_2(tmp_path, out):
    path = tmp_path / "params.yaml"
    path.write_text("dataset:\n  max_reject: 0.1\n")
    assert "dataset.max_reject; did you mean 'max_rejected'?" in fails(path, out, 2)
    assert entries(out.parent) == []


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="no /sys, a place where even root may not write")
def test_no_permission_in_the_output_or_work_folder_is_status_3(params, tmp_path):
    message = fails(params, Path("/sys/kernel/dagnn/dataset"), 3, work=tmp_path)
    assert "/sys/kernel/dagnn" in message
    message = fails(params, tmp_path / "dataset", 3, work=Path("/sys/kernel/dagnn"))
    assert "/sys/kernel/dagnn" in message


def test_an_output_or_work_folder_below_a_file_is_status_2(params, tmp_path, out):
    (tmp_path / "file").write_text("mine")
    assert f"{tmp_path / 'file'} " in fails(params, tmp_path / "file" / "dataset", 2, work=tmp_path)
    fails(params, tmp_path / "file" / "deep" / "dataset", 2, work=tmp_path)
    message = fails(params, out, 2, work=tmp_path / "file")
    assert message.startswith(f"error: {tmp_path / 'file'}/")
    assert "cannot be a folder" in message
    assert message.endswith("name another folder with --work")
    assert (tmp_path / "file").read_text() == "mine"


def on_small_disk(disk, command):
    """Run a command with 512 KiB of disk at `disk`; it prints what is left there at the end."""
    script = 'mount -t tmpfs -o size=512k tmpfs "$0" && "$@"; status=$?; ls -A "$0"; exit $status'
    mounted = ["unshare", "-rm", "sh", "-c", script, str(disk)]
    disk.mkdir()
    if (
        shutil.which("unshare") is None
        or subprocess.run([*mounted, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this system lets no user mount a small disk (unshare -rm)")
    program = [*mounted, sys.executable, "-m", *command]
    done = subprocess.run(program, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith(f"error: {disk}")
    assert "no space is left" in message
    return done.stdout


@pytest.mark.parametrize("large", ["images", pytest.param("vectors", marks=pytest.mark.slow)])
def test_no_space_is_status_3_and_leaves_nothing(tmp_path, out, large):
    source = make_source(tmp_path / "source", side=128 if large == "images" else 8)  # 20 images of 48 KiB
    np.savez(source / "v.npz", ids=[f"p{i}" for i in range(20)], features=np.ones((20, 10_000)))
    folder = replace(FOLDER, image_vectors="v.npz" if large == "vectors" else "")
    params = DatasetConfig(layout="folder", source=str(source), folder=folder)
    disk = tmp_path / "disk"
    assert on_small_disk(disk, command(params, disk / "dataset", work=work_of(out))) == ""
    run(params=params, dataset_out=out)  # resumes from the work, which is elsewhere


@pytest.mark.slow
def test_no_space_for_unfinished_work_is_status_3_and_leaves_the_checks(tmp_path, out):
    source = make_source(tmp_path / "source", side=128)
    params = DatasetConfig(layout="folder", source=str(source), folder=FOLDER)
    disk = tmp_path / "disk"
    assert len(on_small_disk(disk, command(params, out, work=disk)).split()) == 1
    assert entries(out.parent) == []


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm, another file system than that of tmp_path")
def test_unfinished_work_may_be_on_another_file_system(params, out):
    step.run(params=params, work=work_of(out), dataset_out=out)
    other = out.with_name("other")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as work:
        step.run(params=params, work=Path(work), dataset_out=other)
        assert entries(Path(work)) == []
    assert read_artifact(other, KIND, verify=True).content_digest == read_artifact(out, KIND).content_digest


def test_shards_are_moved_where_they_can_be(params, out):
    run(params=params, dataset_out=out)
    assert (out / "data-00000.parquet").stat().st_nlink == 1


def test_a_second_import_of_the_same_images_is_refused(params, out):
    raw = open_folder(Path(params.source), params.folder)
    digest = images_digest(raw, provenance("dataset", params)["packages"])
    with work_folder(work_of(out) / digest, busy="another import of the same images is running"):
        message = fails(replace(params, seed=5), out, 3)
    assert f"{digest}.lock: another import of the same images is running (process {os.getpid()} on " in message
    assert message.endswith("wait for it, or name another folder with --work")
    run(params=params, dataset_out=out)


def test_ctrl_c_leaves_nothing_and_the_next_run_works(tmp_path, out):
    spec = demo_spec(tmp_path, "{num_scenes: 60, width: 96, height: 96}")
    params = DatasetConfig(source=str(spec), min_label_count=2)
    out.parent.mkdir()

    def interrupt_itself():
        flush = ShardWriter._flush_group

        def flush_and_interrupt(shards):
            flush(shards)
            assert shards._temporary.stat().st_size
            os.killpg(os.getpgrp(), signal.SIGINT)

        ShardWriter._flush_group = flush_and_interrupt
        forked.run_module(*command(params, out))

    done = forked.fork(interrupt_itself).wait()
    assert done.returncode == 130
    assert done.stderr.strip().splitlines()[-1].startswith("error: interrupted")
    assert "Traceback" not in done.stderr
    assert entries(out.parent) == []
    step.run(params=params, work=work_of(out), dataset_out=out)
    assert len(Dataset.read(out, verify=True)) > 40


def kill_when(pattern, params, out):
    """Kill the command without warning as soon as a file is there in its work; return what it has said."""
    with forked.start(*command(params, out)) as process:
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size for path in work_of(out).rglob(pattern)):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        done = process.wait()
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    return done.stderr


@pytest.mark.slow
def test_a_killed_import_goes_on_in_both_passes(source, params, out, caplog):
    caplog.set_level("INFO")
    count = 1500  # images of 192 KiB: three blocks of checks, five shards
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    for path in (source / "images").iterdir():
        path.unlink()
    for i in range(count):
        Image.fromarray(noise).save(source / "images" / "p0.png") if i == 0 else (
            source / "images" / f"p{i}.png"
        ).hardlink_to(source / "images" / "p0.png")
    table = rows(count)
    table[3][1] = ""
    write_table(source, table)
    (source / "images" / "p5.png").unlink()
    assert "resuming" not in kill_when("checks.jsonl", params, out)
    errors = kill_when("data-00000-*.parquet", params, out)
    assert re.search(r"resuming: (512|1,024) of 1,499 images were checked before", errors)
    run(params=params, dataset_out=out)
    assert "resuming: 1,499 of 1,499 images were checked before" in caplog.text
    assert re.search(r"resuming: (\d+|1,\d+) of 1,498 items were written before", caplog.text)
    resumed = read_artifact(out, KIND, verify=True)
    caplog.clear()
    run(params=params, dataset_out=out.with_name("whole"))
    assert "resuming" not in caplog.text
    whole = read_artifact(out.with_name("whole"), KIND)
    assert resumed.content_digest == whole.content_digest
    assert resumed.content == whole.content
    assert resumed.content["rejected"] == {"empty text": 1, "image missing": 1}


# real data

FASHION = ROOT / "../shared/data/fashion"


@pytest.mark.slow
@pytest.mark.skipif(not FASHION.is_dir(), reason="the fashion data set is not at ../shared/data/fashion")
def test_fashion_as_its_configuration_reads_it(out):
    params = load_params(ROOT / "configs/fashion.yaml")["dataset"]
    run(params=replace(params, source=str(FASHION)), dataset_out=out)
    dataset = Dataset.read(out, verify=True)
    content = dataset.artifact.content
    assert content["splits"] == {"train": 6571, "val": 1000, "test": 2000}
    assert content["rejected"] == {"no label": 12}
    assert len(dataset.label_names) == 59
    assert dataset.labels.sum() / len(dataset) == pytest.approx(2.97, abs=0.01)
    names = [entry["name"] for entry in json.loads((FASHION / "labels.json").read_text())["labels"]]
    assert list(dataset.label_names) == names
    assert dataset.vectors("image").shape == (9571, 2304)

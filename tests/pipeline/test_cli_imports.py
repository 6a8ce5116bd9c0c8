import zipfile
from collections import defaultdict
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from components.steps.dataset import run
from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.config.section import parse_section
from dagnn_core.data.dataset import Dataset
from dagnn_core.errors import InputError
from pipeline.cli.imports import LAYOUTS, app
from pipeline.cli.main import app as root
from tests.fixtures import forked

ROOT = Path(__file__).parents[2]
COCO_MINI = ROOT.parent / "shared" / "data" / "coco_mini"
SOURCES = [layout for layout in LAYOUTS if layout != "folder"]
SMALL = {"mirflickr25k": {"min_tag_count": 5}, "nuswide": {"num_concepts": 3}}
"""Keys that differ from the defaults, since the data sets of the tests are tiny."""


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def options(layout):
    return [word for key, value in SMALL.get(layout, {}).items() for word in (f"--{key.replace('_', '-')}", value)]


def source_of(layout, request):
    return request.getfixturevalue("matrices" if layout == "features" else layout)


def split_of(dataset):
    return dict(zip(dataset.ids, dataset.splits.tolist(), strict=True))


@pytest.mark.parametrize("layout", SOURCES)
def test_the_official_layout_needs_a_source_alone(layout, request, tmp_path):
    source = source_of(layout, request)
    shared = ("--val-fraction", 0.25, "--test-fraction", 0.25, "--min-label-count", 2)
    assert invoke(layout, source, tmp_path / "out", *options(layout), *shared).exit_code == 0
    dataset = Dataset.read(tmp_path / "out", verify=True)
    assert dataset.artifact.content["layout"] == layout
    assert all(size > 0 for size in dataset.artifact.content["splits"].values())
    assert dataset.artifact.content["modalities"]["complete"] == len(dataset) > 20
    assert dataset.artifact.content["rejected"] == {}
    if layout == "features":
        assert dataset.vectors("image").shape == (26, 5)
        assert dataset.has_text.all()
        assert set(dataset.texts) == {""}
    else:
        assert all(dataset.images(range(len(dataset))))


@pytest.mark.parametrize("layout", SOURCES)
def test_the_configuration_makes_the_same_data_set(layout, request, tmp_path):
    source = source_of(layout, request)
    shared = {"min_label_count": 2, "val_fraction": 0.25}
    values = {"layout": layout, "source": str(source), layout: SMALL.get(layout, {})} | shared
    run(params=parse_section(DatasetConfig, values, "dataset"), work=tmp_path / "work", dataset_out=tmp_path / "a")
    invoke(layout, source, tmp_path / "b", *options(layout), "--min-label-count", 2, "--val-fraction", 0.25)
    digests = {Dataset.read(tmp_path / name).artifact.content_digest for name in "ab"}
    assert len(digests) == 1


def test_every_key_is_an_option_with_its_docstring_and_default():
    for layout in LAYOUTS:
        text = " ".join(CliRunner().invoke(root, ["data", "import", layout, "--help"]).stdout.split())
        for entry in fields(getattr(DatasetConfig(), layout)):
            name = entry.name.replace("_", "-")
            assert f"--{name} " in text or f"--{name.removesuffix('s')} " in text, (layout, name)
        assert "Fraction of unusable rows above which the step stops. [default: 0.02]" in text


def test_options_override_the_spec_file_and_lists_are_repeated_options(nuswide, tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text("concepts: [zebra, sky]\ntags: all\nsplits: drawn\n")
    arguments = ("--concept", "sky", "--concept", "person", "--seed", 2)
    assert invoke("nuswide", nuswide, tmp_path / "out", "--spec", spec, *arguments).exit_code == 0
    params = Dataset.read(tmp_path / "out").artifact.provenance["params"]["dataset"]
    assert params["nuswide"]["concepts"] == ["sky", "person"]
    assert (params["nuswide"]["tags"], params["nuswide"]["splits"], params["seed"]) == ("all", "drawn", 2)
    spec.write_text("concept: [zebra]\n")
    with pytest.raises(InputError, match=r"spec\.yaml: unknown key spec\.concept; did you mean 'concepts'"):
        invoke("nuswide", nuswide, tmp_path / "out", "--spec", spec)


def test_captions_of_a_image_share_its_split_and_its_bytes(coco, tmp_path):
    drawn = ("--val-fraction", 0.3, "--test-fraction", 0.3)
    invoke("coco", coco, tmp_path / "out", "--captions", "rows", *drawn)
    splits = defaultdict(set)
    for item_id, split in split_of(Dataset.read(tmp_path / "out")).items():
        splits[item_id.split("-")[0]].add(split)
    assert len(splits) == 25
    assert all(len(found) == 1 for found in splits.values())
    invoke("coco", coco, tmp_path / "joined", *drawn)
    assert {item_id: {split} for item_id, split in split_of(Dataset.read(tmp_path / "joined")).items()} == splits


def test_validation_is_drawn_from_the_official_training_split(nuswide, tmp_path):
    arguments = ("--concept", "sky", "--concept", "animal", "--val-fraction", 0.4, "--test-fraction", 0.5)
    invoke("nuswide", nuswide, tmp_path / "out", *arguments)
    splits = split_of(Dataset.read(tmp_path / "out"))
    numbers = {split: {int(key[:4]) for key, found in splits.items() if found == split} for split in ("val", "test")}
    assert all(number % 2 == 0 for number in numbers["test"])
    assert len(numbers["test"]) == 14
    assert numbers["val"]
    assert all(number % 2 for number in numbers["val"])


def test_missing_images_are_rejected_or_kept_as_texts_for_training(nuswide, tmp_path):
    for number in (1, 2):
        (nuswide / "Flickr" / "actor" / f"{number:04d}_{1000 + number}.jpg").unlink()
    arguments = ("--concept", "sky", "--concept", "animal", "--val-fraction", 0.4)
    with pytest.raises(InputError, match=r"2 of 29 rows cannot be used \(2 image missing\)"):
        invoke("nuswide", nuswide, tmp_path / "out", *arguments)
    invoke("nuswide", nuswide, tmp_path / "out", *arguments, "--max-rejected", 0.1)
    assert Dataset.read(tmp_path / "out").artifact.content["rejected"] == {"image missing": 2}
    invoke("nuswide", nuswide, tmp_path / "out", *arguments, "--incomplete", "keep", "--max-rejected", 0.1)
    dataset = Dataset.read(tmp_path / "out")
    assert split_of(dataset)["0001_1001"] == "train"
    # the official test image cannot be held out, and of those without tags the test split has one
    assert dataset.artifact.content["rejected"] == {"no image or no text, though in val or test": 2}


def test_a_zip_bomb_is_a_rejected_row_even_where_incomplete_items_are_kept(coco, tmp_path):
    with zipfile.ZipFile(coco / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((coco / "train2017").iterdir()):
            archive.writestr(path.name, bytes(4 << 20) if path.stem.endswith("07") else path.read_bytes())
    arguments = ("--images", "images", "--part", "train2017", "--max-rejected", 0.1, "--incomplete", "keep")
    invoke("coco", coco, tmp_path / "out", *arguments)
    rejected = pq.read_table(tmp_path / "out" / "rejected.parquet").to_pylist()
    assert [(entry["id"], entry["reason"]) for entry in rejected] == [("7", "undecodable image")]
    assert "4194304 bytes packed into" in rejected[0]["detail"]


def test_decompression_bombs_are_rejected_rows(coco, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(InputError, match=r"25 undecodable image.*first: row 1 '1': .*DecompressionBombWarning"):
        invoke("coco", coco, tmp_path / "out")


def test_texts_of_matrices_alone_are_a_data_set(matrices, tmp_path):
    (matrices / "words.txt").write_text("a\nb\nc\nd\n")
    arguments = ("--image", "", "--text-names", "words.txt", "--val-fraction", 0.25)
    invoke("features", matrices, tmp_path / "out", *arguments, "--incomplete", "keep")
    dataset = Dataset.read(tmp_path / "out")
    assert all(text.startswith("a") for text in dataset.texts)
    assert not dataset.has_image.any()
    vectors = dataset.vectors("text")
    np.testing.assert_array_equal(vectors.sum(axis=1), [len(text.split()) for text in dataset.texts])


@pytest.mark.parametrize("layout", SOURCES)
def test_a_wrong_folder_is_one_line_and_status_2(layout, tmp_path):
    code = "from components.command import run_command; from pipeline.cli.data import app; run_command(app)"
    done = forked.run_code(code, "import", layout, tmp_path / "none", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'none'}")
    assert "expected" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="the small part of COCO is not at ../shared/data/coco_mini")
@pytest.mark.parametrize(("captions", "num_items"), [("joined", 363), ("rows", 1816)])
def test_real_images_of_coco(captions, num_items, tmp_path):
    arguments = ("--images", "images", "--captions", captions, "--min-label-count", 2)
    assert invoke("coco", COCO_MINI, tmp_path / "out", *arguments).exit_code == 0
    dataset = Dataset.read(tmp_path / "out", verify=True)
    assert len(dataset) == num_items
    assert len(dataset.label_names) == 80
    assert dataset.artifact.content["rejected"] == {}

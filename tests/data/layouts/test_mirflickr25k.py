import shutil
import zipfile
from collections import Counter
from dataclasses import replace

import pytest

from dagnn_core.config.dataset import Mirflickr25kConfig
from dagnn_core.data.layouts.mirflickr25k import open_mirflickr25k
from dagnn_core.data.raw import RawData
from dagnn_core.errors import InputError

CONFIG = Mirflickr25kConfig(min_tag_count=5)


def labels(raw: RawData) -> dict[str, tuple[str, ...]]:
    return {item.id: item.labels for item in raw.items}


def test_images_with_frequent_tags_and_labels_are_the_data_set(mirflickr25k, caplog):
    caplog.set_level("INFO")
    raw = open_mirflickr25k(mirflickr25k, CONFIG)
    assert [item.id for item in raw.items] == [f"im{number}" for number in range(1, 23)]
    assert raw.num_rows == 22
    assert not raw.rejections
    assert raw.items[0].text == "Canon été"
    assert raw.items[1].labels == ("animals", "sky")
    assert raw.image(raw.items[4]) == (mirflickr25k / "mirflickr" / "im5.jpg").read_bytes()
    assert "22 of 24 images have a label and one of the 3 tags of at least 5 images" in caplog.text


def test_the_threshold_decides_which_tags_are_left(mirflickr25k):
    assert open_mirflickr25k(mirflickr25k, replace(CONFIG, min_tag_count=1)).items[0].text == "Canon été rare1"
    raw = open_mirflickr25k(mirflickr25k, replace(CONFIG, min_tag_count=12))
    assert {item.text for item in raw.items} == {"Canon été"}


def test_annotations_are_potential_relevant_or_both(mirflickr25k):
    relevant = open_mirflickr25k(mirflickr25k, replace(CONFIG, annotations="relevant"))
    assert labels(relevant)["im1"] == ("animals",)
    assert labels(relevant)["im4"] == ("sky",)
    assert "im3" not in labels(relevant)
    both = open_mirflickr25k(mirflickr25k, replace(CONFIG, annotations="both"))
    assert labels(both)["im4"] == ("animals", "sky", "sky_r1")
    assert labels(both)["im1"] == ("animals_r1", "sky")


def test_the_first_images_can_be_the_test_split(mirflickr25k):
    assert {item.split for item in open_mirflickr25k(mirflickr25k, CONFIG).items} == {""}
    raw = open_mirflickr25k(mirflickr25k, replace(CONFIG, num_test=5))
    assert [item.id for item in raw.items if item.split == "test"] == [f"im{number}" for number in range(1, 6)]
    assert Counter(item.split for item in raw.items) == {"test": 5, "train": 17}
    assert raw.draws_val


def test_images_without_frequent_tags_can_be_kept(mirflickr25k):
    raw = open_mirflickr25k(mirflickr25k, CONFIG, keep_incomplete=True)
    assert [(item.id, item.has_text) for item in raw.items][-2:] == [("im22", True), ("im24", False)]


def test_the_top_folder_may_be_the_source_and_images_may_be_packed(mirflickr25k):
    official = open_mirflickr25k(mirflickr25k, CONFIG)
    images = [official.image(item) for item in official.items]
    inner = mirflickr25k / "mirflickr"
    shutil.move(mirflickr25k / "mirflickr25k_annotations_v080", inner)
    flat = open_mirflickr25k(inner, CONFIG)
    assert [flat.image(item) for item in flat.items] == images
    shutil.move(inner / "mirflickr25k_annotations_v080", mirflickr25k)
    with zipfile.ZipFile(mirflickr25k / "mirflickr.zip", "w") as archive:
        for path in inner.glob("*.jpg"):
            archive.write(path, f"mirflickr/{path.name}")
    shutil.move(inner / "meta", mirflickr25k)
    shutil.rmtree(inner)
    packed = open_mirflickr25k(mirflickr25k, CONFIG)
    assert [packed.image(item) for item in packed.items] == images
    assert packed.items == flat.items == official.items


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("sky.txt", b"1\n\nimage\n", r"sky\.txt, entry 2: 'image', expected the number of an image"),
        ("sky.txt", b"1\n25\n", r"sky\.txt, entry 2: there is no tags25\.txt, expected tags of every image"),
        ("sky.txt", b"1\n-2\n", r"sky\.txt, entry 2: '-2', expected the number"),
        ("sky.txt", b"\xff\xfe", r"sky\.txt is not valid UTF-8"),
        ("../mirflickr/meta/tags/tags3.txt", b"\xff", r"tags3\.txt is not valid UTF-8"),
    ],
)
def test_damaged_files_are_named(mirflickr25k, name, content, message):
    (mirflickr25k / "mirflickr25k_annotations_v080" / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_mirflickr25k(mirflickr25k, CONFIG)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tags": "none"}, r"none has no tags1\.txt, tags2\.txt \.\.\., expected MIRFLICKR's tags there"),
        ({"annotations_folder": "none"}, r"none has no potential annotations \(LABEL\.txt, LABEL_r1\.txt\)"),
        ({"annotations_folder": "mirflickr", "annotations": "both"}, r"mirflickr has no annotations \(LABEL\.txt"),
    ],
)
def test_missing_folders_are_named(mirflickr25k, changes, message):
    with pytest.raises(InputError, match=message):
        open_mirflickr25k(mirflickr25k, replace(CONFIG, **changes))

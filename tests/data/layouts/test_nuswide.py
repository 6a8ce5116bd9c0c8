import shutil
import tarfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from dagnn_core.config.dataset import NuswideConfig
from dagnn_core.data.layouts.nuswide import open_nuswide
from dagnn_core.data.raw import Reason
from dagnn_core.errors import InputError

CONFIG = NuswideConfig(num_concepts=3)


def rewrite(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def test_images_with_tags_and_concepts_are_the_data_set(nuswide, caplog):
    caplog.set_level("INFO")
    raw = open_nuswide(nuswide, CONFIG)
    assert raw.label_order == ("sky", "person", "animal"), "the most frequent ones first"
    assert len(raw.items) == raw.num_rows == 29
    assert "29 of 30 images have a tag and one of the 3 concepts" in caplog.text
    first, second = raw.items[:2]
    assert (first.id, first.text, first.labels) == ("0001_1001", "blue man", ("sky",))
    assert (second.text, second.labels) == ("man", ("sky", "person"))
    assert raw.image(second) == (nuswide / "Flickr" / "actor" / "0002_1002.jpg").read_bytes()
    assert Counter(item.split for item in raw.items) == {"train": 15, "test": 14}
    assert raw.draws_val


def test_concepts_by_name_or_number(nuswide):
    raw = open_nuswide(nuswide, replace(CONFIG, concepts=("zebra", "animal")))
    assert raw.label_order == ("zebra", "animal")
    assert {item.id for item in raw.items if "zebra" in item.labels} == {"0013_1013", "0026_1026"}
    assert len(open_nuswide(nuswide, replace(CONFIG, num_concepts=81)).label_order) == 4


def test_all_tags_or_drawn_splits(nuswide):
    raw = open_nuswide(nuswide, replace(CONFIG, tags="all", splits="drawn"))
    assert raw.items[0].text == "blue man uncommon"
    assert {item.split for item in raw.items} == {""}
    assert not raw.draws_val


def test_files_of_the_parts_take_the_place_of_those_of_all(nuswide):
    whole = open_nuswide(nuswide, CONFIG)
    shutil.rmtree(nuswide / "Groundtruth" / "AllLabels")
    (nuswide / "NUS_WID_Tags" / "AllTags1k.txt").unlink()
    assert open_nuswide(nuswide, CONFIG).items == whole.items
    shutil.move(nuswide / "Groundtruth" / "TrainTestLabels", nuswide)
    (nuswide / "Groundtruth").rmdir()
    assert open_nuswide(nuswide, CONFIG).items == whole.items


@pytest.mark.parametrize("folder", ["Low_Level_Features", "NUS_WID_Low_Level_Features/Low_Level_Features"])
def test_low_level_features_are_precomputed_vectors_of_the_right_images(nuswide, folder):
    if not (nuswide / folder).is_dir():
        (nuswide / folder).parent.mkdir()
        shutil.move(nuswide / "Low_Level_Features", nuswide / folder)
    raw = open_nuswide(nuswide, replace(CONFIG, image_features=("CH", "WT")))
    assert raw.image is None
    vectors = raw.vectors["image"].of([item.id for item in raw.items])
    numbers = np.array([int(item.id[:4]) for item in raw.items], dtype=np.float32)
    np.testing.assert_array_equal(vectors, np.stack([numbers, numbers / 2, -numbers], axis=1))
    assert vectors.dtype == np.float32


def test_features_in_the_order_of_all_images_are_read_too(nuswide):
    (nuswide / "Low_Level_Features" / "Normalized_CH.dat").write_text("".join(f"{n} 0\n" for n in range(1, 31)))
    raw = open_nuswide(nuswide, replace(CONFIG, image_features=("CH",)))
    assert raw.vectors["image"].of(["0007_1007"]).tolist() == [[7, 0]]


def test_features_that_are_not_numbers_are_rejected_rows(nuswide):
    rewrite(nuswide / "Low_Level_Features" / "Train_Normalized_CH.dat", "3 1.5", "nan 1.5")
    raw = open_nuswide(nuswide, replace(CONFIG, image_features=("CH",)))
    assert [(entry.id, entry.reason) for entry in raw.rejections] == [("0003_1003", Reason.BAD_VECTOR)]


def test_images_in_an_archive(nuswide):
    with tarfile.open(nuswide / "Flickr.tar", "w") as archive:
        archive.add(nuswide / "Flickr", "Flickr")
    shutil.rmtree(nuswide / "Flickr")
    raw = open_nuswide(nuswide, CONFIG)
    assert all(raw.image(item) for item in raw.items)


def test_texts_alone_and_images_without_tags_are_kept_where_asked_for(nuswide):
    texts = replace(CONFIG, images="")
    with pytest.raises(InputError, match=r"dataset\.nuswide has neither images nor image_features"):
        open_nuswide(nuswide, texts)
    raw = open_nuswide(nuswide, texts, keep_incomplete=True)
    assert raw.is_text_alone
    assert [item.id for item in raw.items if not item.has_text] == ["0006_1006"]


def test_images_in_neither_list_are_rejected(nuswide):
    for name in ("ImageList/TrainImagelist.txt", "Groundtruth/TrainTestLabels/Labels_sky_Train.txt"):
        path = nuswide / name
        path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    raw = open_nuswide(nuswide, CONFIG)
    assert [(entry.id, entry.reason) for entry in raw.rejections] == [("0001_1001", Reason.NO_SPLIT)]
    assert len(open_nuswide(nuswide, replace(CONFIG, splits="drawn")).items) == 29


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "Groundtruth/AllLabels/Labels_sky.txt",
            "1\n",
            "",
            r"Labels_sky\.txt has 29 lines, expected 30, one for each image",
        ),
        ("Groundtruth/AllLabels/Labels_sky.txt", "1\n", "2\n", r"Labels_sky\.txt: '2', expected 0 or 1 on each line"),
        (
            "NUS_WID_Tags/AllTags1k.txt",
            "1\t0\t1\t\n",
            "",
            r"AllTags1k\.txt has 29 lines, expected 30, one for each image of",
        ),
        (
            "NUS_WID_Tags/AllTags1k.txt",
            "0\t0\t1",
            "0\t1",
            r"actor/0002_1002\.jpg in .* are 2 numbers, expected 3 zeros",
        ),
        ("NUS_WID_Tags/AllTags1k.txt", "0\t0\t1", "0\tx\t1", r"actor/0002_1002\.jpg in .* are 3 numbers, expected 3"),
        ("NUS_WID_Tags/TagList1k.txt", "man\n", "man\nsea\n", r"are 3 numbers, expected 4 zeros and ones"),
        ("ImageList/Imagelist.txt", "0002_1002", "0001_1001", r"Imagelist\.txt: 'actor/0001_1001\.jpg' is there twice"),
        (
            "ImageList/TestImagelist.txt",
            "0002_",
            "0003_",
            r"TestImagelist\.txt: 'actor/0003_1002\.jpg' is not in Imagelist\.txt",
        ),
        ("Low_Level_Features/Test_Normalized_CH.dat", "4 2.0", "4", r"Normalized_CH\.dat .*number of columns changed"),
        ("Low_Level_Features/Test_Normalized_CH.dat", "4 2.0", "four 2", r"Normalized_CH\.dat .*could not convert"),
        ("Low_Level_Features/Test_Normalized_CH.dat", "2 1.0 \n", "", r"Test_Normalized_CH\.dat has 14 lines, expect"),
    ],
)
def test_files_that_do_not_match_are_named(nuswide, name, old, new, message):
    rewrite(nuswide / name, old, new)
    with pytest.raises(InputError, match=message):
        open_nuswide(nuswide, replace(CONFIG, image_features=("CH",)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "none"}, r"none does not exist, expected a folder"),
        ({"concepts": ("sky", "moon")}, r"Labels_moon\.txt does not exist, expected NUS-WIDE's file of this name"),
        ({"image_features": ("EDH",)}, r"Normalized_EDH\.dat does not exist"),
    ],
)
def test_missing_files_are_named(nuswide, changes, message):
    with pytest.raises(InputError, match=message):
        open_nuswide(nuswide, replace(CONFIG, **changes))


def test_missing_lists_and_what_is_no_text_are_named(nuswide):
    path = nuswide / "NUS_WID_Tags" / "TagList1k.txt"
    path.write_bytes(b"\xff\n")
    with pytest.raises(InputError, match=r"TagList1k\.txt is not a text"):
        open_nuswide(nuswide, CONFIG)
    shutil.rmtree(nuswide / "Groundtruth")
    with pytest.raises(InputError, match=r"AllLabels has no Labels_CONCEPT\.txt, nor .*TrainTestLabels any"):
        open_nuswide(nuswide, CONFIG)
    shutil.rmtree(nuswide / "ImageList")
    with pytest.raises(InputError, match=r"Imagelist\.txt does not exist, expected NUS-WIDE's file"):
        open_nuswide(nuswide, CONFIG)

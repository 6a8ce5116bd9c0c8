import gzip
import json
import shutil
import zipfile
from collections import Counter
from dataclasses import replace

import pytest

from dagnn_core.config.dataset import CocoConfig
from dagnn_core.data.layouts.coco import open_coco
from dagnn_core.data.raw import Reason
from dagnn_core.errors import InputError

CONFIG = CocoConfig()


def edit(source, name, change):
    path = source / "annotations" / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_one_item_for_each_image_of_all_parts(coco):
    raw = open_coco(coco, CONFIG)
    assert [item.id for item in raw.items] == [str(number) for number in range(1, 26)]
    assert raw.num_rows == 25
    assert raw.label_order == ("car", "cat", "dog")
    third, last = raw.items[2], raw.items[-1]
    assert third.text == "Caption 0 of 3. Caption 1 of 3."
    assert third.labels == ("car", "cat", "dog"), "the dog is in a crowd, and the car is there twice"
    assert raw.image(third) == (coco / "train2017" / "000000000003.jpg").read_bytes()
    assert last.image_path == "val2017/000000000025.jpg"
    assert raw.image(last) == (coco / "val2017" / "000000000025.jpg").read_bytes()
    assert {item.split for item in raw.items} == {""}
    assert not raw.draws_val


def test_one_item_for_each_caption_in_the_group_of_its_image(coco):
    raw = open_coco(coco, replace(CONFIG, captions="rows"))
    assert len(raw.items) == raw.num_rows == 50
    assert [(item.row, item.id, item.text, item.group) for item in raw.items[4:6]] == [
        (5, "3-0", "Caption 0 of 3.", "3"),
        (6, "3-1", "Caption 1 of 3.", "3"),
    ]
    assert raw.items[4].labels == raw.items[5].labels


def test_parts_can_be_chosen_and_be_the_test_split(coco):
    raw = open_coco(coco, replace(CONFIG, test_parts=("val2017",)))
    assert Counter(item.split for item in raw.items) == {"train": 20, "test": 5}
    assert raw.draws_val
    raw = open_coco(coco, replace(CONFIG, parts=("val2017",)))
    assert len(raw.items) == 5


def test_packed_annotations_and_images_in_archives_are_the_same(coco):
    plain = open_coco(coco, CONFIG)
    images = [plain.image(item) for item in plain.items]
    for path in list((coco / "annotations").glob("*.json")):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    with zipfile.ZipFile(coco / "train2017.zip", "w") as archive:
        for path in (coco / "train2017").iterdir():
            archive.write(path, f"train2017/{path.name}")
    shutil.rmtree(coco / "train2017")
    packed = open_coco(coco, CONFIG)
    assert packed.items == plain.items
    assert [packed.image(item) for item in packed.items] == images


def test_images_without_labels_or_captions_are_rejected_or_incomplete(coco):
    edit(coco, "captions_val2017.json", lambda content: content["annotations"].__delitem__(slice(0, 10, 5)))
    edit(coco, "captions_val2017.json", lambda content: content["annotations"].append({"image_id": 22, "caption": " "}))
    edit(coco, "instances_train2017.json", lambda content: content["images"].append({"id": 77, "file_name": "x.jpg"}))
    edit(coco, "instances_train2017.json", lambda content: content["images"].append({"id": 78, "file_name": "../x"}))
    raw = open_coco(coco, CONFIG)
    assert [(entry.row, entry.id, entry.reason) for entry in raw.rejections] == [
        (21, "77", Reason.EMPTY_TEXT),
        (22, "78", Reason.EMPTY_TEXT),
        (23, "21", Reason.EMPTY_TEXT),
    ]
    raw = open_coco(coco, replace(CONFIG, captions="rows"), keep_incomplete=True)
    assert [(entry.id, entry.reason) for entry in raw.rejections] == [("77", Reason.NO_LABEL), ("78", Reason.NO_LABEL)]
    lacking = next(item for item in raw.items if item.id == "21")
    assert (lacking.has_image, lacking.has_text, lacking.text) == (True, False, "")


def test_paths_that_leave_the_folder_are_rejected(coco):
    edit(coco, "instances_val2017.json", lambda content: content["images"][0].update(file_name="../../x.jpg"))
    raw = open_coco(coco, CONFIG)
    assert [(entry.id, entry.reason) for entry in raw.rejections] == [("21", Reason.IMAGE_OUTSIDE)]


def test_half_a_character_does_not_stop_the_import(coco):
    edit(coco, "captions_val2017.json", lambda content: content["annotations"][0].update(caption="\ud83d boat"))
    raw = open_coco(coco, CONFIG)
    assert raw.items[20].text == "? boat Caption 1 of 21."


def test_captions_of_other_images_are_reported(coco, caplog):
    edit(
        coco, "captions_val2017.json", lambda content: content["annotations"].append({"image_id": 999, "caption": "x"})
    )
    open_coco(coco, CONFIG)
    assert "1 images of" in caplog.text
    shutil.copy(coco / "annotations" / "captions_train2017.json", coco / "annotations" / "captions_val2017.json")
    with pytest.raises(InputError, match=r"none of the images in .*captions_val2017\.json is in .*instances_val"):
        open_coco(coco, CONFIG)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "instances_train2017.json",
            lambda content: content["annotations"][0].update(category_id=99),
            r"instances_train2017\.json: an annotation is of the category 99, which is not among the 3 of the file",
        ),
        (
            "instances_train2017.json",
            lambda content: content["annotations"][0].update(image_id=99),
            r"instances_train2017\.json: an annotation is of the image 99, which is not among the 20 of the file",
        ),
        (
            "instances_train2017.json",
            lambda content: content["annotations"][4].pop("image_id"),
            r"instances_train2017\.json, annotations, record 5: no 'image_id'; correct or copy the file",
        ),
        (
            "instances_train2017.json",
            lambda content: content["images"][1].update(id="2"),
            r"images, record 2: 'id' is '2', expected a whole number",
        ),
        (
            "instances_train2017.json",
            lambda content: content["images"][1].update(id=1),
            r"images, record 2: the id 1 is there twice",
        ),
        (
            "instances_train2017.json",
            lambda content: content["categories"][0].update(name=None),
            r"categories, record 1: 'name' is None, expected a text",
        ),
        ("instances_train2017.json", lambda content: content.pop("images"), r"instances_train2017\.json has no images"),
        (
            "instances_train2017.json",
            lambda content: content.update(images=3),
            r"images, record 1: no 'id'",
        ),
        (
            "captions_train2017.json",
            lambda content: content["annotations"].insert(0, "a boat"),
            r"captions_train2017\.json, annotations, record 1: no 'caption'",
        ),
        (
            "captions_train2017.json",
            lambda content: content["annotations"].clear(),
            r"captions_train2017\.json has no annotations, expected an annotation file of COCO",
        ),
    ],
)
def test_damaged_annotations_name_file_and_record(coco, name, change, message):
    edit(coco, name, change)
    with pytest.raises(InputError, match=message):
        open_coco(coco, CONFIG)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": "none"}, r"none has no part with both instances_PART\.json and captions_PART\.json"),
        ({"parts": ("val2014",)}, r"val2014 does not exist, expected a folder, an uncompressed tar or a zip"),
        (
            {"test_parts": ("test2017",)},
            r"test_parts names 'test2017', which is not among the parts train2017, val2017",
        ),
        ({"images": "images"}, r"images does not exist, expected a folder"),
        ({"parts": ("x",), "images": "train2017"}, r"instances_x\.json does not exist, expected a JSON file"),
    ],
)
def test_missing_files_are_named(coco, changes, message):
    with pytest.raises(InputError, match=message):
        open_coco(coco, replace(CONFIG, **changes))


def test_truncated_annotations_are_named(coco):
    path = coco / "annotations" / "captions_val2017.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(InputError, match=r"captions_val2017\.json is damaged or no JSON object"):
        open_coco(coco, CONFIG)

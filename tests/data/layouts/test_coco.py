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


def every_id(convert, *keys):
    def change(content):
        for array in ("images", "annotations", "categories"):
            for record in content.get(array, ()):
                record |= {key: convert(record[key]) for key in keys if key in record}

    return change


VARIANTS = {
    "texts": [("instances", str, "id image_id category_id"), ("captions", str, "image_id")],
    "padded texts in the annotations": [
        ("instances", "{:012d}".format, "image_id"),
        ("captions", "{:012d}".format, "image_id"),
    ],
    "floats": [("instances", float, "image_id category_id"), ("captions", float, "image_id")],
    "floats in the images": [("instances", float, "id")],
    "texts in the captions": [("captions", str, "image_id")],
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_numbers_are_the_same_as_floats_and_texts(coco, variant):
    plain = open_coco(coco, CONFIG)
    for part in ("train2017", "val2017"):
        for kind, convert, keys in variant:
            edit(coco, f"{kind}_{part}.json", every_id(convert, *keys.split()))
    raw = open_coco(coco, CONFIG)
    assert raw.items == plain.items
    assert raw.label_order == plain.label_order


def test_texts_that_are_no_numbers_are_ids(coco):
    for part in ("train2017", "val2017"):
        edit(coco, f"instances_{part}.json", every_id("n{}".format, "id", "image_id", "category_id"))
        edit(coco, f"captions_{part}.json", every_id("n{}".format, "image_id"))
    raw = open_coco(coco, CONFIG)
    assert [item.id for item in raw.items] == [f"n{number}" for number in range(1, 26)]
    assert raw.items[2].labels == ("cat", "dog", "car"), "in the order of n17, n18, n3"


def test_a_number_as_a_text_keeps_its_zeros_in_the_id_of_the_item(coco):
    edit(coco, "instances_val2017.json", lambda content: content["images"][0].update(id=" 0021 "))
    raw = open_coco(coco, replace(CONFIG, parts=("val2017",)))
    assert (raw.items[0].id, raw.items[0].text) == ("0021", "Caption 0 of 21. Caption 1 of 21.")


def test_ids_that_begin_again_in_each_part_have_its_name(coco, caplog):
    caplog.set_level("INFO")
    renumber = every_id(lambda number: number - 20, "image_id")
    for kind in ("instances", "captions"):
        edit(coco, f"{kind}_val2017.json", renumber)
    edit(
        coco,
        "instances_val2017.json",
        lambda content: [image.update(id=image["id"] - 20) for image in content["images"]],
    )
    raw = open_coco(coco, CONFIG)
    ids = [item.id for item in raw.items]
    assert not raw.rejections
    assert (ids[0], ids[20], len(set(ids))) == ("train2017-1", "val2017-1", 25)
    assert raw.items[20].text == "Caption 0 of 21. Caption 1 of 21."
    assert raw.image(raw.items[20]) == (coco / "val2017" / "000000000021.jpg").read_bytes()
    assert caplog.messages == ["the image id 1 is in several parts, so the ids of the items are PART-ID"]
    rows = open_coco(coco, replace(CONFIG, captions="rows"))
    assert (rows.items[40].id, rows.items[40].group) == ("val2017-1-0", "val2017-1")


def test_the_same_image_in_two_parts_is_still_a_duplicate(coco):
    for kind in ("instances", "captions"):
        shutil.copy(coco / "annotations" / f"{kind}_val2017.json", coco / "annotations" / f"{kind}_mini.json")
    raw = open_coco(coco, replace(CONFIG, parts=("val2017", "mini"), images="val2017"))
    assert [item.id for item in raw.items] == ["21", "22", "23", "24", "25"]
    assert {entry.reason for entry in raw.rejections} == {Reason.DUPLICATE_ID}


@pytest.mark.parametrize("name", ["cat", " cat ", "cat\n"])
def test_two_categories_of_one_name_are_one_label(coco, caplog, name):
    def change(content):
        content["categories"].append({"id": 40, "name": name, "supercategory": "toy"})
        content["annotations"].append({"image_id": 1, "category_id": 40})
        content["annotations"].append({"image_id": 2, "category_id": 40})

    edit(coco, "instances_train2017.json", change)
    raw = open_coco(coco, CONFIG)
    assert raw.label_order == ("car", "cat", "dog")
    assert [item.labels for item in raw.items[:2]] == [("car", "cat"), ("car", "cat")]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith(
        "instances_train2017.json: the categories 17 and 40 have one name, 'cat', and become one label"
    )


def test_names_of_categories_are_composed(coco):
    edit(coco, "instances_train2017.json", lambda content: content["categories"][1].update(name="ve\u0301lo"))
    edit(coco, "instances_val2017.json", lambda content: content["categories"][1].update(name="v\u00e9lo"))
    assert open_coco(coco, CONFIG).label_order == ("car", "v\u00e9lo", "dog")


def test_the_file_of_an_image_without_file_name_is_the_end_of_its_address(coco):
    def change(content):
        for image in content["images"]:
            name = image.pop("file_name")
            image["coco_url"] = f"http://images.cocodataset.org/val2017/{name}?x=1"

    plain = open_coco(coco, CONFIG)
    edit(coco, "instances_val2017.json", change)
    assert open_coco(coco, CONFIG).items == plain.items


def test_backslashes_in_a_file_name_are_slashes(coco):
    (coco / "val2017" / "a").mkdir()
    (coco / "val2017" / "000000000021.jpg").rename(coco / "val2017" / "a" / "21.jpg")
    edit(coco, "instances_val2017.json", lambda content: content["images"][0].update(file_name="a\\21.jpg"))
    raw = open_coco(coco, CONFIG)
    assert raw.image(raw.items[20])


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
            lambda content: content["images"][1].update(id=2.5),
            r"images, record 2: 'id' is 2\.5, expected a whole number or a text",
        ),
        (
            "instances_train2017.json",
            lambda content: content["images"][1].update(id=True),
            r"images, record 2: 'id' is True, expected a whole number or a text",
        ),
        (
            "instances_train2017.json",
            lambda content: content["annotations"][1].update(image_id=" "),
            r"annotations, record 2: 'image_id' is ' ', expected a whole number or a text",
        ),
        (
            "instances_train2017.json",
            lambda content: content["annotations"][1].update(image_id="x"),
            r"an annotation is of the image x, which is not among the 20 of the file",
        ),
        (
            "instances_train2017.json",
            lambda content: content["images"][1].update(id="01"),
            r"images, record 2: the id 1 is there twice",
        ),
        (
            "instances_train2017.json",
            lambda content: content["images"][1].pop("file_name"),
            r"images, record 2: no 'file_name'",
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

import io
import json
import shutil
import tarfile
from collections import Counter
from dataclasses import replace

import pytest

from dagnn_core.config.dataset import WebDatasetConfig
from dagnn_core.data.layouts.webdataset import open_webdataset
from dagnn_core.data.raw import Reason
from dagnn_core.errors import InputError
from tests.fixtures.layouts import labels_of, make_image, sample_of, write_rows, write_shard
from tests.fixtures.locations import SHARED

CONFIG = WebDatasetConfig()
CASE = SHARED / "cases" / "28-img2dataset"


def open_one(root, samples, **changes):
    """One shard, alone in a folder."""
    root.mkdir(exist_ok=True)
    write_shard(root / "a.tar", samples)
    return open_webdataset(root, replace(CONFIG, **changes))


def note(**fields):
    return json.dumps(fields).encode()


def image_and(**members):
    return {"jpg": make_image(1)} | members


def labels(raw):
    return [item.labels for item in raw.items]


def test_samples_of_all_shards_with_the_parquet_beside_them(webdataset, caplog):
    caplog.set_level("INFO")
    raw = open_webdataset(webdataset, CONFIG)
    assert raw.num_rows == len(raw.items) == 24
    assert [item.id for item in raw.items[::12]] == ["000000000", "000010000"]
    assert (raw.items[3].text, raw.items[3].labels) == ("text of 3", ("car", "cat", "dog"))
    assert raw.items[13].image_path == "00001.tar/000010001.jpg"
    assert raw.image(raw.items[13]) == make_image(10_001)
    assert {item.split for item in raw.items} == {""}
    assert raw.place(14) == "00001.tar, sample 2"
    assert caplog.messages == [
        f"{webdataset}: no file names a split, so train, val and test are drawn by val_fraction and test_fraction"
    ]


def test_json_alone_will_do(tmp_path):
    raw = open_one(
        tmp_path / "s", {"a": image_and(json=note(caption=" a  boat ", labels=["sea", "boat", None, "sea"]))}
    )
    assert (raw.items[0].text, raw.items[0].labels) == ("a boat", ("sea", "boat"))


def test_a_member_comes_before_json_and_json_before_parquet(tmp_path):
    root = tmp_path / "s"
    root.mkdir()
    write_rows(root / "a.parquet", {"a": ["parquet"], "b": ["parquet"], "c": ["parquet"]})
    samples = {
        "a": image_and(txt=b"x", labels=b"member|more", json=note(labels=["json"])),
        "b": image_and(txt=b"x", json=note(labels=["json"])),
        "c": image_and(txt=b"x", json=note(labels=None)),
    }
    assert labels(open_one(root, samples)) == [("member", "more"), ("json",), ("parquet",)]


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"txt": b"one", "json": note(caption="two")}, "one"),
        ({"txt": b" ", "json": note(caption="two", text="three")}, "two"),
        ({"json": note(text=["three", "four"])}, "three four"),
        ({"caption": b"\xef\xbb\xbffive"}, "five"),
    ],
)
def test_where_texts_are(tmp_path, members, text):
    raw = open_one(tmp_path / "s", {"a": image_and(cls=b"x", **members)}, label_field="cls")
    assert raw.items[0].text == text


def test_fields_of_other_names(tmp_path):
    sample = image_and(json=note(tags="sea, boat", alt="a boat"), txt=b"no")
    raw = open_one(tmp_path / "s", {"a": sample}, text_field="alt", label_field="tags", label_separator=",")
    assert (raw.items[0].text, raw.items[0].labels) == ("a boat", ("sea", "boat"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2, 0], [("car",), ("boat",)]),
        (["2", "0"], [("car",), ("boat",)]),
        ([[0, 2], [1]], [("boat", "car"), ("cat",)]),
        ([[0, 1], [1, 0]], [("boat", "cat"), ("cat", "boat")]),
        ([[0, 1, 1], [1, 0, 0]], [("cat", "car"), ("boat",)]),
        ([[False, True, True], [True, False, False]], [("cat", "car"), ("boat",)]),
        ([["car", "plane"], ["boat"]], [("car",), ("boat",)]),
    ],
)
def test_class_numbers_vectors_of_zeros_and_ones_and_names(tmp_path, values, expected):
    root = tmp_path / "s"
    root.mkdir()
    (root / "names.txt").write_text("boat\ncat\ncar\n")
    samples = {str(number): image_and(txt=b"x", json=note(labels=value)) for number, value in enumerate(values)}
    raw = open_one(root, samples, label_names="names.txt")
    assert labels(raw) == expected
    assert raw.label_order == ("boat", "cat", "car")


def test_the_class_number_of_a_member(tmp_path):
    root = tmp_path / "s"
    root.mkdir()
    (root / "names.txt").write_text("boat\ncat\n")
    samples = {"a": image_and(txt=b"x", cls=b"1\n"), "b": image_and(txt=b"x", cls=b"-1")}
    raw = open_one(root, samples, label_field="cls", label_names="names.txt")
    assert labels(raw) == [("cat",)]
    assert [(entry.id, entry.reason) for entry in raw.rejections] == [("b", Reason.NO_LABEL)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0, 1, 1, 0], r"'labels' holds lists of 4 to 4 zeros and ones, expected one for each of the 3 label names"),
        (7, r"the label 7 in 'labels', expected a number below 3, since there are so many names"),
    ],
)
def test_numbers_that_do_not_fit_the_names_are_refused(tmp_path, value, message):
    root = tmp_path / "s"
    root.mkdir()
    (root / "names.txt").write_text("boat\ncat\ncar\n")
    with pytest.raises(InputError, match=message):
        open_one(root, {"a": image_and(txt=b"x", json=note(labels=value))}, label_names="names.txt")


def test_zeros_and_ones_without_names_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"lists of 3 to 3 zeros and ones, .* 0 label names; name the labels"):
        open_one(tmp_path / "s", {"a": image_and(txt=b"x", json=note(labels=[0, 1, 1]))})


def test_keys_that_are_in_several_shards_have_the_name_of_theirs(webdataset, caplog):
    caplog.set_level("INFO")
    (webdataset / "more").mkdir()
    for suffix in ("tar", "parquet"):
        shutil.copy(webdataset / f"00000.{suffix}", webdataset / "more" / f"00000.{suffix}")
    raw = open_webdataset(webdataset, CONFIG)
    ids = [item.id for item in raw.items]
    assert len(set(ids)) == 36
    assert ids[::12] == ["00000-000000000", "00001-000010000", "more-00000-000000000"]
    assert "the key 000000000 is in several shards" in caplog.text


def test_what_was_not_downloaded_is_left_out_and_what_is_lost_is_rejected(webdataset, caplog):
    caplog.set_level("INFO")
    numbers = [*range(12), 50, 51]
    statuses = [*["success"] * 12, "failed_to_download", "success"]
    rows = {f"{number:09d}": labels_of(number) for number in numbers}
    write_rows(webdataset / "00000.parquet", rows, status=statuses, caption=["c"] * 14)
    raw = open_webdataset(webdataset, CONFIG)
    assert raw.num_rows == 25
    assert "left out: 1 failed_to_download" in caplog.text
    lost = raw.items[12]
    assert (lost.id, lost.text, raw.image(lost)) == ("000000051", "c", None), "so the import names it as missing"


def test_samples_without_image_text_or_labels_are_rejected(tmp_path):
    samples = {
        "no-text": image_and(cls=b"boat"),
        "no-label": image_and(txt=b"x"),
        "no-image": {"txt": b"x", "cls": b"boat"},
        "../out": image_and(txt=b"x", cls=b"boat"),
        "../../out": image_and(txt=b"x", cls=b"boat"),
        "good": image_and(txt=b"x", cls=b"boat"),
    }
    raw = open_one(tmp_path / "s", samples, label_field="cls")
    assert {entry.id: entry.reason for entry in raw.rejections} == {
        "no-text": Reason.EMPTY_TEXT,
        "no-label": Reason.NO_LABEL,
        "../../out": Reason.IMAGE_OUTSIDE,
    }
    assert {item.id: raw.image(item) is not None for item in raw.items} == {
        "no-image": False,
        "../out": True,
        "good": True,
    }


def test_members_that_cannot_be_read_are_named_and_only_cost_what_they_say(tmp_path, caplog):
    deep = b"[" * 100_000
    samples = {
        "a": image_and(txt=b"\xff\xfe", json=b"{", cls=b"boat"),
        "b": image_and(txt=b"x", json=deep, cls=b"boat"),
        "c": image_and(txt=b"x", json=b"[1]", cls=b"boat"),
        "d": image_and(json=b'{"caption": "\\ud83d boat", "n": ' + b"9" * 5000 + b"}", cls=b"boat"),
        "e": image_and(txt=bytes(11 << 20), json=note(caption="y"), cls=b"boat"),
    }
    raw = open_one(tmp_path / "s", samples, label_field="cls")
    assert {entry.id: entry.reason for entry in raw.rejections} == {"a": Reason.EMPTY_TEXT, "d": Reason.EMPTY_TEXT}
    assert [item.id for item in raw.items] == ["b", "c", "e"]
    assert "4 .txt or .json members cannot be read: a.txt, a.json, d.json and 1 more" in caplog.text


def test_which_members_are_a_sample(tmp_path):
    extra = {"seg.png": b"mask", "JSON": note(labels=["boat"]), "txt": b"x", "png": make_image(2), "mp3": b""}
    samples = {"folder/a": extra | {"jpeg": make_image(1)}, "folder/._a": {"jpg": b"AppleDouble"}, "README": {"": b""}}
    raw = open_one(tmp_path / "s", samples)
    assert [(item.id, item.image_path) for item in raw.items] == [("folder/a", "a.tar/folder/a.png")]
    assert raw.image(raw.items[0]) == make_image(2)


def test_links_in_a_shard_are_left_alone(tmp_path):
    root = tmp_path / "s"
    root.mkdir()
    with tarfile.open(root / "a.tar", "w") as tar:
        for name, target in {"a.jpg": "/etc/passwd", "a.txt": "/etc/passwd"}.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        text = tarfile.TarInfo("a.json")
        text.size = len(note(labels=["boat"]))
        tar.addfile(text, io.BytesIO(note(labels=["boat"])))
    raw = open_webdataset(root, CONFIG, keep_incomplete=True)
    assert (raw.items[0].text, raw.image(raw.items[0])) == ("", None)


@pytest.mark.parametrize(
    ("names", "expected", "draws_val"),
    [
        (["train-0", "train-1", "val-0", "test-0"], {"train": 2, "val": 1, "test": 1}, False),
        (["Training/0", "x_evaluation_7", "training/1"], {"train": 2, "test": 1}, True),
        (["train-0", "train-1"], {"": 2}, False),
        (["0", "cc12m-000"], {"": 2}, False),
        (["dev/trained-0", "test/0", "train/0"], {"train": 1, "val": 1, "test": 1}, False),
    ],
)
def test_splits_are_in_the_names_of_shards_and_folders(tmp_path, names, expected, draws_val):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_shard(tmp_path / f"{name}.tar", {name.replace("/", "-"): image_and(txt=b"x", labels=b"a")})
    raw = open_webdataset(tmp_path, CONFIG)
    assert dict(Counter(item.split for item in raw.items)) == expected
    assert raw.draws_val == draws_val


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train-0", "extra"], r"extra\.tar names no split that is known, though other files do"),
        (["train-0", "val-0"], r"has train and val but no test, expected files of train and test"),
        (["train/test-0", "val/0"], r"names several splits: test \(test-0\.tar\) and train \(train\)"),
        ([], r"has no \*\*/\*\.tar, expected uncompressed tar files as img2dataset writes them"),
    ],
)
def test_shards_that_name_some_splits_only_are_never_drawn_again(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_shard(tmp_path / f"{name}.tar", {"a": image_and(txt=b"x", labels=b"a")})
    with pytest.raises(InputError, match=message):
        open_webdataset(tmp_path, CONFIG)


def test_shards_are_chosen_by_their_pattern(webdataset):
    assert len(open_webdataset(webdataset, replace(CONFIG, shards="00001.tar")).items) == 12
    with pytest.raises(InputError, match=r"shards is '/x/\*\.tar', expected a pattern relative to dataset\.source"):
        open_webdataset(webdataset, replace(CONFIG, shards="/x/*.tar"))


@pytest.mark.parametrize("cut", [100, 700, 1536, 3000, 3072])
def test_a_shard_that_is_cut_off_is_named(webdataset, cut):
    path = webdataset / "00001.tar"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"00001\.tar is not a whole zip or uncompressed tar file"):
        open_webdataset(webdataset, CONFIG)


def test_damaged_and_odd_parquet_files_are_named(webdataset, caplog):
    (webdataset / "00001.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"00001\.parquet is not a valid Parquet file"):
        open_webdataset(webdataset, CONFIG)
    shutil.copy(webdataset / "00000.parquet", webdataset / "00001.parquet")
    write_rows(webdataset / "00001.parquet", {"a": ["x"]}, key=["a"])
    write_shard(webdataset / "00001.tar", {"a": sample_of(1)})
    assert len(open_webdataset(webdataset, CONFIG).items) == 13
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ["a"], "labels": [["x"]]}), webdataset / "00001.parquet")
    assert len(open_webdataset(webdataset, CONFIG).items) == 12
    assert "00001.parquet has no column 'key', so it is left out" in caplog.text


@pytest.mark.skipif(not CASE.is_dir(), reason="needs the inputs in ../shared/cases")
def test_the_output_of_img2dataset():
    raw = open_webdataset(CASE, CONFIG)
    assert len(raw.items) == raw.num_rows == 60
    assert (raw.items[30].id, raw.items[30].labels) == ("000010000", ("boat", "tree"))
    assert all(map(raw.image, raw.items))

import json

import pytest

from dagnn_core.data.layouts.hub_files import find_files, schema_names
from dagnn_core.errors import InputError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def splits_of(folder):
    return {str(path.relative_to(folder)): split for path, split in find_files(folder).items()}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("training.parquet", "validation.parquet", "testing.parquet"),
        ("train.parquet", "dev.parquet", "eval.parquet"),
        ("TRAIN.PARQUET", "Valid.parquet", "Evaluation.parquet"),
        ("my-data-train.parquet", "my-data-val.parquet", "my-data-test.parquet"),
        ("my_train_file.parquet", "my_validation_file.parquet", "my.test.file.parquet"),
        ("train1.parquet", "validation 1.parquet", "test1.parquet"),
        (
            "data/train-00000-of-00002.parquet",
            "data/dev-00000-of-00001.parquet",
            "data/test-0-of-1.parquet",
        ),
        ("train/0000.parquet", "validation/0000.parquet", "test/0000.parquet"),
        ("train/a.parquet", "validation/b.parquet", "test/c.parquet"),
        ("x/Train/part-0.parquet", "x/val_2/part-0.parquet", "x/the-test-set/part-0.parquet"),
        ("train/en/0.parquet", "valid/en/0.parquet", "test/en/0.parquet"),
        ("my-test-data/train.parquet", "my-test-data/val.parquet", "my-test-data/test.parquet"),
    ],
)
def test_splits_are_those_that_the_library_datasets_finds(tmp_path, train, val, test):
    touch(tmp_path, train, val, test, ".cache/holdout.parquet", "__x/other.parquet", "._train.parquet", "README.md")
    assert splits_of(tmp_path) == {train: "train", val: "val", test: "test"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["test.parquet"], "all files are of one split (test)"),
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], "one split (train)"),
        (["validation/0.parquet", "validation/1.parquet"], "no file names a split"),
        (["data/validation-0.parquet", "data/dev-1.parquet"], "one split (val)"),
        (["holdout-00000-of-00001.parquet"], "no file names a split"),
        (["0000.parquet", "0001.parquet"], "no file names a split"),
        (["part.0.parquet", "part.1.parquet"], "no file names a split"),
        (["data1.parquet", "data2.parquet"], "no file names a split"),
        (["00000-of-00002.parquet", "00001-of-00002.parquet"], "no file names a split"),
        (["a-00000-of-00002-0123456789abcdef.parquet", "a-00001-of-00002-fedcba9876543210.parquet"], "no file names"),
        (
            [f"part-0000{n}-3f2b1c7a-4d5e-9a2b-8c1d-{n}1234567890a-c00{n}.snappy.parquet" for n in range(2)],
            "no file names a split",
        ),
        (["year=2020/0.parquet", "year=2021/0.parquet"], "no file names a split"),
    ],
)
def test_where_files_are_of_one_split_all_are_drawn_and_that_is_said(tmp_path, names, said, caplog):
    caplog.set_level("INFO")
    touch(tmp_path, *names)
    assert splits_of(tmp_path) == dict.fromkeys(names, "")
    assert said in caplog.text
    assert "drawn by val_fraction and test_fraction" in caplog.text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train.parquet", "holdout.parquet"], r"holdout\.parquet names no split that is known, though other files do"),
        (["train.parquet", "test.parquet", "restval.parquet"], r"restval\.parquet names no split that is known"),
        (["data/unsupervised-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"], "unsupervised.*no split"),
        (["public.parquet", "holdout.parquet"], r"holdout\.parquet, public\.parquet have different names, but none"),
        (["public/0.parquet", "private/0.parquet"], r"private/0\.parquet, public/0\.parquet have different names"),
        (["trainset.parquet", "testset.parquet"], "have different names, but none names a split that is known"),
        (["train-test.parquet", "val.parquet"], r"names several splits: test \(train-test\.parquet\) and train \("),
        (["test/train.parquet", "val/0.parquet"], r"names several splits: test \(test\) and train \(train\.parquet\)"),
        (
            ["train.parquet", "dev.parquet"],
            r"has train and val but no test, .*; rename the files of another split",
        ),
        (["dev.parquet", "test.parquet"], "has test and val but no train"),
        (["README.md", "metadata.csv"], r"has no \.parquet file.*split\.to_parquet.*for CSV.* use the layout folder"),
    ],
)
def test_splits_that_are_not_known_are_refused_and_never_drawn_again(tmp_path, names, message):
    touch(tmp_path, *names)
    with pytest.raises(InputError, match=message):
        find_files(tmp_path)


def save_to_disk(folder, *splits, state=None):
    """What the library leaves, with empty Arrow files, two a split."""
    for split in splits:
        files = [f"data-0000{number}-of-00002.arrow" for number in range(2)]
        touch(folder, *(f"{split}/{name}" for name in (*files, "cache-12ab.arrow")))
        kept = {"_data_files": [{"filename": name} for name in files], "_split": None} if state is None else state
        (folder / split / "state.json").write_text(json.dumps(kept))
        (folder / split / "dataset_info.json").write_text("{}")
    if "." not in splits:
        (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))


@pytest.mark.parametrize("state", [None, {}])
def test_saved_splits_are_those_of_their_folders(tmp_path, state):
    save_to_disk(tmp_path, "train", "validation", "test", state=state)
    found = splits_of(tmp_path)
    assert len(found) == 6
    assert all(name.split("/")[0][:3] == split[:3] for name, split in found.items())


def test_one_saved_split_is_drawn(tmp_path):
    save_to_disk(tmp_path, ".")
    assert splits_of(tmp_path) == {"data-00000-of-00002.arrow": "", "data-00001-of-00002.arrow": ""}


def test_the_cache_of_the_library_has_splits_in_the_names_of_files(tmp_path):
    touch(tmp_path, "my_data-train.arrow", "my_data-test.arrow", "cache-0f.arrow")
    assert splits_of(tmp_path) == {"my_data-train.arrow": "train", "my_data-test.arrow": "test"}


def test_parquet_comes_before_arrow(tmp_path):
    touch(tmp_path, "train.parquet", "test.parquet", "old/data.arrow")
    assert set(splits_of(tmp_path)) == {"train.parquet", "test.parquet"}


def test_what_is_saved_and_cannot_be_read_is_named(tmp_path):
    save_to_disk(tmp_path, "train", "test")
    (tmp_path / "test" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(InputError, match=r"data-00001-of-00002\.arrow does not exist, though state\.json lists it"):
        find_files(tmp_path)
    (tmp_path / "test" / "state.json").write_text('{"_indices_files": [{"filename": "indices.arrow"}]}')
    with pytest.raises(InputError, match=r"rows are chosen by indices, which are not read; .*to_parquet"):
        find_files(tmp_path)
    (tmp_path / "test" / "state.json").write_text("{")
    with pytest.raises(InputError, match=r"state\.json is not valid JSON; copy it again, or .*to_parquet"):
        find_files(tmp_path)
    (tmp_path / "test" / "state.json").write_text('{"_data_files": [{"filename": "../../secret.arrow"}]}')
    with pytest.raises(InputError, match=r"secret\.arrow does not exist, though state\.json lists it"):
        find_files(tmp_path)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "extra"]}')
    with pytest.raises(InputError, match=r"has no folder 'extra', though dataset_dict\.json lists it"):
        find_files(tmp_path)


@pytest.mark.parametrize(
    "feature",
    [
        {"names": ["x", "y"], "_type": "ClassLabel"},
        [{"names": ["x", "y"]}],
        {"feature": {"names": ["x", "y"]}, "length": 2, "_type": "Sequence"},
    ],
)
def test_names_of_labels_in_every_form(feature):
    assert schema_names(feature) == ("x", "y")


@pytest.mark.parametrize("feature", [None, 3, [], {}, {"names": 3}, {"feature": {"dtype": "int64"}}, {"feature": {}}])
def test_no_names_are_none(feature):
    assert schema_names(feature) == ()

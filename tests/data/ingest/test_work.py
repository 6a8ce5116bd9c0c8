import os
from dataclasses import replace

import pytest

from dagnn_core.data.formats.archives import open_images
from dagnn_core.data.ingest.work import images_digest, rows_digest
from dagnn_core.data.raw import RawData, RawItem
from dagnn_core.errors import BackendError, InputError
from dagnn_core.work import work_folder


def raw_data(folder):
    for name in "ab":
        path = folder / f"{name}.png"
        path.exists() or path.write_bytes(name.encode())
    images = open_images(folder)
    return RawData(
        source="table.csv",
        num_rows=2,
        items=[RawItem(row, name, f"text {name}", ("boat",), f"{name}.png", "") for row, name in enumerate("ab", 1)],
        rejections=[],
        image=lambda item: images.read(item.image_path),
        image_state=lambda item: images.state(item.image_path),
    )


def change_image(folder):
    """Another image of the same size and time of modification."""
    path = folder / "a.png"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"A")
    os.utime(path, ns=times)


def test_equal_images_have_an_equal_digest(tmp_path):
    assert images_digest(raw_data(tmp_path), {"pillow": "1"}) == images_digest(raw_data(tmp_path), {"pillow": "1"})


@pytest.mark.parametrize(
    "change",
    [
        change_image,
        lambda folder: (folder / "b.png").unlink(),
        lambda folder: (folder / "b.png").write_bytes(b"longer"),
    ],
)
def test_a_changed_image_changes_the_digest(tmp_path, change):
    raw = raw_data(tmp_path)
    before = images_digest(raw, {})
    change(tmp_path)
    assert images_digest(raw, {}) != before


@pytest.mark.parametrize("field", [{"row": 3}, {"id": "c"}, {"image_path": "b.png"}, {"has_image": False}])
def test_changed_rows_change_the_digest(tmp_path, field):
    raw = raw_data(tmp_path)
    changed = replace(raw, items=[raw.items[0]._replace(**field), raw.items[1]])
    assert images_digest(changed, {}) != images_digest(raw, {})


def test_other_packages_and_other_sources_change_the_digest(tmp_path):
    raw = raw_data(tmp_path)
    digests = {images_digest(raw, {"pillow": version}) for version in "12"}
    digests.add(images_digest(replace(raw, image=None, image_state=None), {"pillow": "1"}))
    assert len(digests) == 3


def test_parts_and_rows_are_told_apart():
    assert (
        len({rows_digest(["ab"]), rows_digest(["a", "b"]), rows_digest(["a"], ["b"]), rows_digest([("a", "b")])}) == 4
    )


def test_the_folder_stays_after_an_error_and_goes_after_success(tmp_path):
    folder = tmp_path / "work" / "f"
    with pytest.raises(ZeroDivisionError), work_folder(folder, busy="an import is running"):
        (folder / "block").touch()
        raise ZeroDivisionError
    assert [path.name for path in folder.parent.iterdir()] == ["f"]
    with work_folder(folder, busy="an import is running"):
        assert (folder / "block").is_file()
    assert list(folder.parent.iterdir()) == []
    with pytest.raises(ZeroDivisionError), work_folder(folder, busy="an import is running"):
        raise ZeroDivisionError
    assert list(folder.parent.iterdir()) == []  # nothing was done


def test_one_process_at_a_time_and_the_other_is_named(tmp_path):
    message = rf"an import is running \(process {os.getpid()} on .*\), .*; wait for it, or"
    with work_folder(tmp_path / "f", busy="an import is running"):
        with pytest.raises(BackendError, match=message), work_folder(tmp_path / "f", busy="an import is running"):
            pass
        assert (tmp_path / "f").is_dir()
        with work_folder(tmp_path / "other", busy="an import is running"):
            pass


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path):
    (tmp_path / "f.lock").write_text("process 1234567 on an older machine")
    with work_folder(tmp_path / "f", busy="an import is running"):
        assert (tmp_path / "f.lock").read_text().startswith(f"process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(InputError, match=r"file.* cannot be a folder.*name another folder with --work"):
            work_folder(folder, busy="an import is running").__enter__()

import unicodedata
import zipfile

import pytest

from dagnn_core.data.formats.archives import leaves_folder, open_images
from dagnn_core.data.formats.spellings import spellings


def test_the_spelling_of_the_table_comes_first():
    assert list(spellings("a/b.jpg")) == ["a/b.jpg"]
    assert list(spellings("a\\é.jpg")) == ["a\\é.jpg", "a/é.jpg", "a/e\u0301.jpg"]


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("sub/a.jpg", "sub\\a.jpg"),
        ("sub/a.jpg", " sub/a.jpg "),
        ("sub/é-Übung.jpg", "NFD"),
        ("sub/한국.jpg", "NFD"),
        ("NFD", "sub/é-Übung.jpg"),
        ("NFD", "sub\\é-Übung.jpg"),
        ("a\\b.jpg", "a\\b.jpg"),
    ],
)
def test_images_are_found_however_the_table_spells_them(tmp_path, kind, stored, asked):
    stored, asked = (
        unicodedata.normalize("NFD", other) if name == "NFD" else name
        for name, other in ((stored, asked.replace("\\", "/")), (asked, stored))
    )
    if kind == "folder":
        (tmp_path / "images" / stored).parent.mkdir(parents=True)
        (tmp_path / "images" / stored).write_bytes(b"it")
    else:
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            archive.writestr(stored, b"it")
    images = open_images(tmp_path / "images")
    assert images.read(asked) == b"it"
    assert images.state(asked) is not None
    assert images.read("sub/other.jpg") is None


def test_two_files_that_differ_in_their_spelling_alone_are_two(tmp_path):
    for name, content in (("é.jpg", b"composed"), ("e\u0301.jpg", b"decomposed")):
        (tmp_path / name).write_bytes(content)
    images = open_images(tmp_path)
    assert [images.read("é.jpg"), images.read("e\u0301.jpg")] == [b"composed", b"decomposed"]


@pytest.mark.parametrize(
    "path", ["..\\x.jpg", "a\\..\\..\\x.jpg", "\\x.jpg", "C:\\x.jpg", "C:x.jpg", "\\\\host\\a.jpg"]
)
def test_paths_of_windows_that_lead_out_are_known(path):
    assert leaves_folder(path)


@pytest.mark.parametrize("path", ["a\\x.jpg", ".\\x.jpg", "a\\..\\x.jpg", "1:30.jpg"])
def test_other_paths_of_windows_stay_inside(path):
    assert not leaves_folder(path)

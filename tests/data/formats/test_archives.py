import hashlib
import os
import tarfile
import zipfile

import pytest

from dagnn_core.data.formats import archives
from dagnn_core.data.formats.archives import FileState, ImageError, leaves_folder, open_images
from dagnn_core.data.formats.links import LinkOutsideError
from dagnn_core.data.images import map_in_order
from dagnn_core.errors import InputError


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    (root / "a.png").write_bytes(b"A")
    (root / "deep" / "b.png").write_bytes(b"B" * 1000)
    return root


@pytest.fixture
def tar(folder, tmp_path):
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(folder, ".")
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def pack_zip(folder, path, method=zipfile.ZIP_DEFLATED, prefix=""):
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, f"{prefix}{file.relative_to(folder)}")
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.mkdir("empty")
    return path


@pytest.fixture
def stored_zip(folder, tmp_path):
    return pack_zip(folder, tmp_path / "stored.zip", zipfile.ZIP_STORED)


@pytest.fixture
def deflated_zip(folder, tmp_path):
    return pack_zip(folder, tmp_path / "deflated.zip", prefix="./")


@pytest.mark.parametrize("kind", ["folder", "tar", "stored_zip", "deflated_zip"])
def test_a_image_is_read_by_path_or_absent(kind, request):
    images = open_images(request.getfixturevalue(kind))
    assert images.read("a.png") == b"A"
    assert images.read("./deep/b.png") == b"B" * 1000
    for absent in ("c.png", "deep", "", "a.png/x", "x\0y", "x" * 5000, "link.png"):
        assert images.read(absent) is None, absent


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_the_state_changes_with_the_image_though_size_and_time_stay(kind, request, folder):
    path = request.getfixturevalue(kind)
    file = path / "a.png" if kind == "folder" else path
    before = open_images(path).state("a.png")
    assert open_images(path).state("a.png") == before
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_bytes(file.read_bytes().replace(b"A", b"Z"))
    os.utime(file, ns=times)
    assert open_images(path).state("a.png") != before


def test_an_absent_image_has_no_state(folder):
    for absent in ("c.png", "a.png/x", "x\0y", "x" * 5000):
        assert open_images(folder).state(absent) is None


def test_a_compressed_or_truncated_tar_is_refused(tar, tmp_path):
    compressed = tmp_path / "images.tar.gz"
    with tarfile.open(compressed, "w:gz") as archive:
        archive.add(tar, "x")
    with pytest.raises(InputError, match=r"images\.tar\.gz is not a whole zip or uncompressed tar file.*decompress it"):
        open_images(compressed)
    tar.write_bytes(tar.read_bytes()[:2600])
    with pytest.raises(InputError, match=r"images\.tar is not a whole zip or uncompressed tar file"):
        open_images(tar)


def test_missing_images_are_named(tmp_path):
    with pytest.raises(InputError, match="none does not exist, expected a folder, an uncompressed tar or a zip"):
        open_images(tmp_path / "none")


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
@pytest.mark.parametrize("prefix", ["", "train2017/"])
def test_an_archive_takes_the_place_of_the_folder_that_it_holds(folder, tmp_path, suffix, prefix):
    """With or without the folder itself, as both ways of packing it make it."""
    if suffix == ".zip":
        pack_zip(folder, tmp_path / "train2017.zip", prefix=prefix)
    else:
        with tarfile.open(tmp_path / "train2017.tar", "w") as archive:
            archive.add(folder, prefix or ".")
    images = open_images(tmp_path / "train2017")
    assert images.read("a.png") == b"A"
    assert images.read("deep/b.png") == b"B" * 1000


def test_links_must_not_lead_out_of_the_folder(folder, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"S")
    (tmp_path / "link").symlink_to(folder)
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "up").symlink_to(tmp_path)
    (folder / "in.png").symlink_to("deep/b.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.png")
    for root in (folder, tmp_path / "link"):
        images = open_images(root)
        assert images.read("in.png") == b"B" * 1000
        for path in ("../secret.png", "loop.png", "gone.png", "pipe.png"):
            assert images.read(path) is None, path
        for path in ("out.png", "up/secret.png"):
            with pytest.raises(
                LinkOutsideError, match=rf"{path} is a link that leads out of .*images, to .*secret\.png"
            ):
                images.read(path)


def test_links_may_lead_anywhere_in_the_raw_data(folder, tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "b0").write_bytes(b"0")
    (folder / "out.png").symlink_to("../blobs/b0")
    assert open_images(folder, tmp_path).read("out.png") == b"0"
    assert open_images(folder, tmp_path).state("out.png") == FileState.of(tmp_path / "blobs" / "b0")


STORED = {
    "DVC": lambda content: f"files/md5/{hashlib.md5(content).hexdigest()[:2]}/{hashlib.md5(content).hexdigest()[2:]}",
    "git-annex": lambda content: f"annex/SHA256E-s{len(content)}--{hashlib.sha256(content).hexdigest()}.png",
    "git-annex, without ending": lambda content: f"annex/MD5-s{len(content)}--{hashlib.md5(content).hexdigest()}",
    "the hub, in LFS": lambda content: f"blobs/{hashlib.sha256(content).hexdigest()}",
    "the hub, in git": lambda content: (
        f"blobs/{hashlib.sha1(b'blob %d' % len(content) + bytes(1) + content).hexdigest()}"
    ),
}


@pytest.mark.parametrize("store", STORED)
def test_links_to_what_a_store_keeps_under_its_digest_are_followed(folder, tmp_path, store):
    kept = tmp_path / "elsewhere" / STORED[store]
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"content")
    (folder / "kept.png").symlink_to(kept)
    assert open_images(folder).read("kept.png") == b"content"
    kept.write_bytes(b"other..")  # such a name alone does not make a store
    with pytest.raises(LinkOutsideError, match=r"kept\.png is a link that leads out"):
        open_images(folder).read("kept.png")


@pytest.mark.parametrize("kind", ["folder", "tar", "stored_zip", "deflated_zip"])
def test_large_files_are_faults_and_no_allocation(kind, request, monkeypatch):
    monkeypatch.setattr(archives, "MAX_IMAGE_BYTES", 999)
    images = open_images(request.getfixturevalue(kind))
    assert images.read("a.png") == b"A"
    with pytest.raises(ImageError, match=r"^1000 bytes, expected at most 999$"):
        images.read("deep/b.png")


def test_a_zip_bomb_is_a_fault(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(16 << 20))
    with pytest.raises(ImageError, match=r"16777216 bytes packed into \d+, expected at most 200 times as many"):
        open_images(path).read("bomb.png")


def test_a_zip_that_lies_about_sizes_or_checksums_is_a_fault(folder, tmp_path):
    path = pack_zip(folder, tmp_path / "images.zip", zipfile.ZIP_STORED)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"B" * 1000, b"B" * 999 + b"C"))
    with pytest.raises(ImageError, match=r"damaged here \(size or checksum\)"):
        open_images(path).read("deep/b.png")
    path.write_bytes(content.replace(b"PK\3\4", b"XX\3\4", 2).replace(b"XX\3\4", b"PK\3\4", 1))
    with pytest.raises(ImageError, match="the zip file is damaged here"):
        open_images(path).read("deep/b.png")
    pack_zip(folder, path)
    content = bytearray(path.read_bytes())
    start = content.index(b"b.png") + len(b"b.png")
    content[start : start + 4] = b"\xff" * 4
    path.write_bytes(bytes(content))
    with pytest.raises(ImageError, match=r"damaged here \(Error -3"):
        open_images(path).read("deep/b.png")


def test_truncated_encrypted_and_oddly_packed_zips_are_refused(folder, tmp_path):
    path = pack_zip(folder, tmp_path / "images.zip")
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    with pytest.raises(InputError, match=r"images\.zip is not a whole zip or uncompressed tar file"):
        open_images(path)
    directory = content.index(b"PK\1\2")
    path.write_bytes(content[: directory + 8] + b"\1" + content[directory + 9 :])
    with pytest.raises(InputError, match=r"images\.zip: 'a\.png' is encrypted or packed by another method"):
        open_images(path)
    pack_zip(folder, path, zipfile.ZIP_LZMA)
    with pytest.raises(InputError, match=r"another method than `deflate`, which is not read; pack the images again"):
        open_images(path)


def zip_of(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name.encode())
    return open_images(path)


@pytest.mark.parametrize("name", ["sub/a.png", "sub\\a.png", ".\\sub/a.png", "images\\sub\\a.png"])
def test_backslashes_are_slashes(tmp_path, name):
    images = zip_of(tmp_path / "images.zip", [name, "b\\"])
    assert images.read("sub/a.png") == images.read("sub\\a.png") == images.read("./sub/x/../a.png") == name.encode()
    assert images.read("..\\sub\\a.png") is None
    assert images.read("a.png") is None


COMPOSED, DECOMPOSED = "\u00c9t\u00e9 \uac00.png", "E\u0301te\u0301 \u1100\u1161.png"


@pytest.mark.parametrize("prefix", ["", "images/", "images\\"])
@pytest.mark.parametrize("name", [COMPOSED, DECOMPOSED])
def test_composed_and_decomposed_names_are_the_same(tmp_path, name, prefix):
    images = zip_of(tmp_path / "images.zip", [prefix + name])
    assert images.read(COMPOSED) == images.read(DECOMPOSED) == (prefix + name).encode()
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        (tmp_path / "x").write_bytes(b"T")
        archive.add(tmp_path / "x", name)
    tar = open_images(tmp_path / "images.tar")
    assert tar.read(COMPOSED) == tar.read(DECOMPOSED) == b"T"


def test_a_name_that_is_there_exactly_comes_first(tmp_path):
    names = [COMPOSED, DECOMPOSED, "a\\b.png", "a/b.png"]
    images = zip_of(tmp_path / "images.zip", names)
    assert [images.read(name) for name in names] == [name.encode() for name in names]


def undeclared_utf8(path):
    """Make `e__` in a zip the two characters of a decomposed letter, without the flag that says that it is UTF-8."""
    path.write_bytes(path.read_bytes().replace(b"e__.png", "e\u0301.png".encode()))


def test_a_zip_of_macos_has_names_of_utf8_that_it_does_not_declare(tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("e__.png", b"A")
        archive.writestr("__MACOSX/._e__.png", b"B")
    undeclared_utf8(path)
    images = open_images(path)
    assert images.read("\u00e9.png") == images.read("e\u0301.png") == b"A"
    assert images.read("__MACOSX/._\u00e9.png") is None


def test_letters_of_the_first_pcs_stay(tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("e__.png", b"A")
    path.write_bytes(path.read_bytes().replace(b"e__.png", "\u00fc__.png".encode("cp437")))
    assert open_images(path).read("\u00fc__.png") == b"A"


def test_threads_read_a_zip_at_the_same_time(tmp_path):
    path = tmp_path / "images.zip"
    contents = {f"{number}.png": bytes([number]) * (1000 + number) for number in range(200)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    assert list(map_in_order(open_images(path).read, contents)) == list(contents.values())


@pytest.mark.parametrize("path", ["../a.png", "..", "x/../../a.png", "/etc/passwd"])
def test_paths_that_leave_the_folder(path):
    assert leaves_folder(path)


@pytest.mark.parametrize("path", ["a.png", "x/../a.png", "..a.png", "", "./x//a.png"])
def test_paths_that_stay_in_the_folder(path):
    assert not leaves_folder(path)

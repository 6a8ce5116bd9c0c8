import hashlib
import io
import os
import tarfile
import threading
import zipfile
from itertools import count

import numpy as np
import pytest
from PIL import Image

from dagnn_core.data.formats import archives
from dagnn_core.data.formats.archives import FileState, ImageError, leaves_folder, open_images
from dagnn_core.data.formats.links import LinkOutsideError
from dagnn_core.data.images import READ_AHEAD, decoding_fault, map_in_order, refuse_huge_images
from dagnn_core.errors import InputError


def encode(kind="PNG", size=(9, 7)):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


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


MD5, SHA256 = hashlib.md5(b"content").hexdigest(), hashlib.sha256(b"content").hexdigest()
STORED = {
    "DVC": f"files/md5/{MD5[:2]}/{MD5[2:]}",
    "git-annex": f"annex/SHA256E-s7--{SHA256}.png",
    "git-annex, without ending": f"annex/MD5-s7--{MD5}",
    "the hub, in LFS": f"blobs/{SHA256}",
    "the hub, in git": f"blobs/{hashlib.sha1(b'blob 7' + bytes(1) + b'content').hexdigest()}",
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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_whole_images_decode_and_truncated_ones_do_not(kind):
    encoded = encode(kind)
    assert decoding_fault(encoded) == ""
    assert decoding_fault(encoded[: len(encoded) // 2]) != ""


@pytest.mark.parametrize("encoded", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_image_says_so(encoded):
    assert decoding_fault(encoded).startswith("not an image in one of the formats JPEG, PNG")


@pytest.mark.parametrize("pixels", [40, 20])
def test_images_above_the_limit_of_pixels_are_faults(monkeypatch, pixels):
    """Pillow warns up to twice its limit and raises beyond."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
    with refuse_huge_images():
        assert decoding_fault(encode()).startswith("DecompressionBomb")


def test_map_in_order_keeps_the_order_and_bounds_what_is_in_flight():
    taken = count()
    release = threading.Event()

    def slow_first(item):
        if item == 0:
            release.wait(5)
        return item * 2

    def items():
        for item in range(4 * READ_AHEAD):
            if next(taken) >= READ_AHEAD:  # nobody has asked for a result yet, so the window must not be exceeded
                assert release.is_set()
            yield item

    results = map_in_order(slow_first, items())
    threading.Timer(0.2, release.set).start()
    assert list(results) == [item * 2 for item in range(4 * READ_AHEAD)]


def test_map_in_order_raises_what_a_thread_raises():
    with pytest.raises(ZeroDivisionError):
        list(map_in_order(lambda item: 1 / item, [1, 0]))

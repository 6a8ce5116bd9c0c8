import io
import os
import tarfile
import threading
from itertools import count

import numpy as np
import pytest
from PIL import Image

from dagnn_core.data.pictures import (
    READ_AHEAD,
    decoding_fault,
    leaves_folder,
    map_in_order,
    open_pictures,
    refuse_huge_pictures,
)
from dagnn_core.errors import InputError


def encode(kind="PNG", size=(9, 7)):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    (root / "deep").mkdir(parents=True)
    (root / "a.png").write_bytes(b"A")
    (root / "deep" / "b.png").write_bytes(b"B" * 1000)
    return root


@pytest.fixture
def tar(folder, tmp_path):
    path = tmp_path / "pictures.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(folder, ".")
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_picture_is_read_by_path_or_absent(kind, request):
    pictures = open_pictures(request.getfixturevalue(kind))
    assert pictures.read("a.png") == b"A"
    assert pictures.read("./deep/b.png") == b"B" * 1000
    for absent in ("c.png", "deep", "", "a.png/x", "x\0y", "x" * 5000, "link.png"):
        assert pictures.read(absent) is None, absent


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_the_state_changes_with_the_picture_though_size_and_time_stay(kind, request, folder):
    path = request.getfixturevalue(kind)
    file = path / "a.png" if kind == "folder" else path
    before = open_pictures(path).state("a.png")
    assert open_pictures(path).state("a.png") == before
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_bytes(file.read_bytes().replace(b"A", b"Z"))
    os.utime(file, ns=times)
    assert open_pictures(path).state("a.png") != before


def test_an_absent_picture_has_no_state(folder):
    for absent in ("c.png", "a.png/x", "x\0y", "x" * 5000):
        assert open_pictures(folder).state(absent) is None


def test_a_compressed_or_truncated_tar_is_refused(tar, tmp_path):
    compressed = tmp_path / "pictures.tar.gz"
    with tarfile.open(compressed, "w:gz") as archive:
        archive.add(tar, "x")
    with pytest.raises(InputError, match=r"pictures\.tar\.gz is not a whole, uncompressed tar file.*decompress it"):
        open_pictures(compressed)
    tar.write_bytes(tar.read_bytes()[:2600])
    with pytest.raises(InputError, match=r"pictures\.tar is not a whole, uncompressed tar file"):
        open_pictures(tar)


def test_missing_pictures_are_named(tmp_path):
    with pytest.raises(InputError, match="none does not exist, expected a folder or an uncompressed tar"):
        open_pictures(tmp_path / "none")


@pytest.mark.parametrize("path", ["../a.png", "..", "x/../../a.png", "/etc/passwd"])
def test_paths_that_leave_the_folder(path):
    assert leaves_folder(path)


@pytest.mark.parametrize("path", ["a.png", "x/../a.png", "..a.png", "", "./x//a.png"])
def test_paths_that_stay_in_the_folder(path):
    assert not leaves_folder(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_whole_pictures_decode_and_truncated_ones_do_not(kind):
    encoded = encode(kind)
    assert decoding_fault(encoded) == ""
    assert decoding_fault(encoded[: len(encoded) // 2]) != ""


@pytest.mark.parametrize("encoded", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_picture_says_so(encoded):
    assert decoding_fault(encoded).startswith("not a picture in one of the formats JPEG, PNG")


@pytest.mark.parametrize("pixels", [40, 20])
def test_pictures_above_the_limit_of_pixels_are_faults(monkeypatch, pixels):
    """Pillow warns up to twice its limit and raises beyond."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
    with refuse_huge_pictures():
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

"""One way of decoding: every mode to its right colours, broken metadata passed over, pixels in flight bounded."""

import io
import struct
import threading
import time
import warnings
from itertools import count

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dagnn_core.data import images
from dagnn_core.data.images import (
    MAX_ASPECT,
    READ_AHEAD,
    PixelBudget,
    decode,
    decoded,
    decoding_fault,
    map_in_order,
    read_header,
    trim,
)
from dagnn_core.data_check.traits import _trait
from dagnn_core.errors import InputError
from dagnn_core.features.encoders.descriptors import describe
from dagnn_core.features.encoders.vgg import crop
from dagnn_core.reports.page.thumbnail import thumbnail
from tests.fixtures.locations import SHARED


def encoded(image, file_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def noise(size=(9, 7)):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))


@pytest.mark.parametrize(("size", "shown"), [((300, 200), (300, 200)), ((1600, 1200), (400, 300))])
def test_a_large_jpeg_is_decoded_at_a_fraction(size, shown):
    assert decode(encoded(Image.new("RGB", size, "red"), "JPEG"), 300).size == shown
    assert decode(encoded(Image.new("RGB", size, "red")), 300).size == size


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    image = decode(encoded(Image.new("RGB", (20, 10), "white").convert(mode), "TIFF"), 10)
    assert image.mode == "RGB"
    assert (np.asarray(image) == 255).all()


RAMP = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
GREYS = {
    "16 bits, PNG": (RAMP.astype(np.uint16) * 257, "PNG"),
    "16 bits, TIFF": (RAMP.astype(np.uint16) * 257, "TIFF"),
    "32 bits with 8 used, TIFF": (RAMP.astype(np.int32), "TIFF"),
    "32 bits with 16 used, TIFF": (RAMP.astype(np.int32) * 257, "TIFF"),
    "32 bits with all used, TIFF": (RAMP.astype(np.int32) * 1000 - 60_000, "TIFF"),
    "floats to 1, TIFF": (RAMP.astype(np.float32) / 255, "TIFF"),
    "floats to 255, TIFF": (RAMP.astype(np.float32), "TIFF"),
    "floats below 0, TIFF": (RAMP.astype(np.float32) - 100, "TIFF"),
}


@pytest.mark.parametrize(("values", "file_format"), GREYS.values(), ids=GREYS)
def test_greys_of_many_bits_are_scaled(values, file_format):
    greys = np.asarray(decode(encoded(Image.fromarray(values), file_format)))
    np.testing.assert_allclose(greys, np.repeat(RAMP[..., None], 3, axis=2), atol=1)
    small = np.asarray(Image.open(io.BytesIO(thumbnail(encoded(Image.fromarray(values), file_format)))))
    assert small.min() < 40 and small.max() > 215


def test_floats_that_are_no_numbers_are_black_and_infinite_ones_bounded():
    values = np.array([[np.nan, 0.0], [1.0, np.inf]], np.float32)
    assert np.asarray(decode(encoded(Image.fromarray(values), "TIFF")))[..., 0].tolist() == [[0, 0], [255, 255]]
    nothing = np.full((2, 2), np.nan, np.float32)
    assert not np.asarray(decode(encoded(Image.fromarray(nothing), "TIFF"))).any()


def tiff_of(content, bits, **more):
    """A TIFF of one row of four greys, with further tags `tNUMBER` of one long each."""
    tags = {256: (3, 4), 257: (3, 1), 258: (3, bits), 259: (3, 1), 262: (3, 1), 273: (4, 8), 277: (3, 1)}
    tags |= {279: (4, len(content))} | {int(name[1:]): (4, value) for name, value in more.items()}
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(content)) + content + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def test_12_bits_are_not_shown_as_16():
    packed = bytes([0x00, 0x0F, 0xFF, 0x80, 0x08, 0x00])  # 0, 4095, 2048, 2048
    assert np.asarray(decode(tiff_of(packed, 12)))[0, :, 0].tolist() == [0, 255, 127, 127]


TRANSPARENT = {
    "RGBA": encoded(Image.new("RGBA", (4, 4), (9, 9, 9, 0))),
    "LA": encoded(Image.new("LA", (4, 4), (9, 0))),
    "palette with a colour": encoded(Image.new("P", (4, 4), 0), transparency=0),
    "palette with opacities": encoded(Image.new("P", (4, 4), 0), transparency=b"\0\x80\xff"),
    "GIF": encoded(Image.new("P", (4, 4), 0), "GIF", transparency=0),
    "grey": encoded(Image.new("L", (4, 4), 9), transparency=9),
    "RGB": encoded(Image.new("RGB", (4, 4), (9, 9, 9)), transparency=(9, 9, 9)),
    "16 bits": encoded(Image.fromarray(np.full((4, 4), 900, np.uint16)), transparency=900),
    "WEBP": encoded(Image.new("RGBA", (4, 4), (9, 9, 9, 0)), "WEBP", lossless=True, exact=True),
}


@pytest.mark.parametrize("image", TRANSPARENT.values(), ids=TRANSPARENT)
def test_what_is_transparent_is_white_everywhere(image):
    assert (np.asarray(decode(image)) == 255).all()
    assert np.asarray(Image.open(io.BytesIO(thumbnail(image)))).min() > 250
    trait = _trait(image)
    assert trait is not None and trait[1] is not None
    assert trait[1].brightness == 255


def with_exif(orientation=6, resolution=72, damage=None):
    """A JPEG, blue above and red below, whose EXIF says how to turn it; stored so by a camera held upright."""
    halves = Image.new("RGB", (40, 20), "red")
    halves.paste("blue", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x011A] = resolution
    content = exif.tobytes()
    return encoded(halves, "JPEG", exif=damage(content) if damage else content, quality=95)


def wrong_type(content):
    """The resolution becomes a text, as in files of some editors."""
    entry = content.index(struct.pack("<H", 0x011A)) if b"II" in content else content.index(struct.pack(">H", 0x011A))
    order = "<" if b"II" in content[:12] else ">"
    return content[:entry] + struct.pack(f"{order}HHI4s", 0x011A, 2, 3, b"72\0\0") + content[entry + 12 :]


EXIF = {
    "sound": (with_exif(), True),
    "a text instead of a fraction": (with_exif(damage=wrong_type), True),
    "cut off": (with_exif(damage=lambda content: content[:20]), None),
    "noise": (with_exif(damage=lambda content: b"Exif\0\0" + bytes(range(200))), False),
    "an orientation that is none": (with_exif(orientation=77), False),
}


@pytest.mark.parametrize(("image", "is_turned"), EXIF.values(), ids=EXIF)
def test_malformed_exif_costs_the_orientation_at_most(image, is_turned):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as the commands do
        assert decoding_fault(image) == ""
        whole = decode(image)
        assert whole.size == ((20, 40) if is_turned else (40, 20)) or is_turned is None
        if is_turned:
            above, below = np.asarray(whole)[[5, 35], 10].astype(int)
            assert above[2] - above[0] > 200 and below[0] - below[2] > 200
        assert Image.open(io.BytesIO(thumbnail(image))).size == whole.size
        assert _trait(image)[1] is not None
        assert np.isfinite(describe(image)).all()
        assert crop(image).shape == (3, 224, 224)


def test_metadata_of_png_that_is_no_exif_is_passed_over():
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n  4\nzz")
    info.add_text("XML:com.adobe.xmp", 'tiff:Orientation="6"')
    image = encoded(Image.new("RGB", (8, 4), "red"), pnginfo=info)
    assert decode(image).size in ((8, 4), (4, 8))


@pytest.mark.parametrize("offset", [3, 100, 900, 2**32 - 1])
def test_a_tiff_whose_exif_folder_is_noise_decodes(offset):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = decode(tiff_of(bytes([0, 50, 100, 200]), 8, t34665=offset))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 50, 100, 200]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_whole_images_decode_and_truncated_ones_do_not(kind):
    image = encoded(noise(), kind)
    assert decoding_fault(image) == ""
    assert read_header(image)[1:] == (7, 9)
    assert decoding_fault(image[: len(image) // 2]) != ""


def test_an_image_of_several_shots_is_its_first():
    shots = encoded(Image.new("RGB", (8, 8), "red"), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert np.asarray(decode(shots, 4))[0, 0, 0] > 250
    frames = encoded(Image.new("RGB", (8, 8), "red"), "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert np.asarray(decode(frames))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("content", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_image_says_so(content):
    assert decoding_fault(content).startswith("not an image in one of the formats JPEG, PNG")
    for read in (decode, read_header, thumbnail):
        with pytest.raises(InputError, match=r"cannot be decoded \(not an image in one of the formats"):
            read(content)


@pytest.mark.parametrize("side", [35, 60])  # where Pillow only warns, and where it refuses by itself
def test_images_above_the_limit_are_refused(monkeypatch, side):
    image = encoded(Image.new("RGB", (side, side)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(InputError, match=r"cannot be decoded \(.*(pixels are more than 1000|exceeds limit)"):
            decode(image, 10)
        assert decoding_fault(image) != ""


@pytest.mark.parametrize("size", [(1, 900), (900, 1), (1, 20_000), (20_000, 1), (1, 1), (3, 3)])
def test_lines_of_pixels_do_not_grow_to_gigabytes(size):
    image = Image.new("RGB", size, "red")
    assert max(trim(image).size) <= MAX_ASPECT * min(size)
    pixels = crop(encoded(image))
    assert pixels.shape == (3, 224, 224) and (pixels[0] == 255).all()
    assert np.isfinite(describe(encoded(image))).all()
    assert max(Image.open(io.BytesIO(thumbnail(encoded(image)))).size) <= 240


def test_an_image_that_is_not_too_long_is_not_trimmed():
    image = Image.new("RGB", (64, 2))
    assert trim(image) is image
    assert trim(Image.new("RGB", (70, 2))).size == (64, 2)


def in_flight_at_most(monkeypatch, pixels, sides, threads=4):
    """The most pixels that were decoded at once, of squares of these sides."""
    monkeypatch.setattr(images, "PIXELS_IN_FLIGHT", pixels)
    monkeypatch.setattr(images, "_PIXELS_PER_PERMIT", 100)
    monkeypatch.setattr(images, "_budget", PixelBudget())
    lock, now, most = threading.Lock(), [0], [0]

    def work(image):
        with decoded(image) as whole:
            with lock:
                now[0] += whole.width * whole.height
                most[0] = max(most[0], now[0])
            time.sleep(0.01)
            with lock:
                now[0] -= whole.width * whole.height

    todo = [encoded(Image.new("RGB", (side, side))) for side in sides]
    workers = [threading.Thread(target=lambda: [work(image) for image in todo]) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert not any(worker.is_alive() for worker in workers)
    return most[0]


def test_the_pixels_that_threads_decode_at_once_are_bounded(monkeypatch):
    assert in_flight_at_most(monkeypatch, 1000, [20] * 6) == 800  # two of 400
    assert in_flight_at_most(monkeypatch, 1000, [40, 10, 40, 20]) <= 1600 + 100  # a larger one is alone


def test_a_damaged_image_gives_its_pixels_back(monkeypatch):
    monkeypatch.setattr(images, "PIXELS_IN_FLIGHT", 1000)
    monkeypatch.setattr(images, "_PIXELS_PER_PERMIT", 100)
    monkeypatch.setattr(images, "_budget", PixelBudget())
    broken = encoded(noise((30, 30)))[:900]
    for _ in range(5):
        assert decoding_fault(broken)
    assert decoding_fault(encoded(noise((30, 30)))) == ""


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


CASES = SHARED / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the inputs in ../shared/cases")
@pytest.mark.parametrize("case", ["04-malformed-exif", "05-odd-modes"])
def test_every_image_of_public_data_decodes_and_none_is_plain_white(case):
    files = sorted((CASES / case / "images").iterdir())
    assert files
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in files:
            image = file.read_bytes()
            assert decoding_fault(image) == "", file.name
            assert np.asarray(Image.open(io.BytesIO(thumbnail(image)))).mean() < 254, file.name

import io

import numpy as np
import pytest
from PIL import Image

from dagnn_core.errors import InputError
from dagnn_core.features.encoders.descriptors import (
    CHROMA_BINS,
    DIM,
    LIGHTNESS_BINS,
    NEIGHBOURS,
    NUM_PATTERNS,
    PATTERN_THRESHOLD,
    SIZE,
    colour_histograms,
    describe,
    gradient_histograms,
    pattern_histograms,
    stretch,
    to_lab,
)


def encoded(image, file_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def scene(width=160, height=120):
    """A smooth colourful image with an edge."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    planes = [255 * x, 255 * y, np.where(x + y > 1, 220, 40)]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def noise(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def plain(colour):
    return np.full((SIZE, SIZE, 3), colour, dtype=np.uint8)


@pytest.mark.parametrize(
    ("rgb", "lab"),  # published CIELAB values of the sRGB primaries under D65
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0, 0)),
    ],
)
def test_cielab_of_known_colours(rgb, lab):
    np.testing.assert_allclose(to_lab(plain(rgb))[:, 0, 0], lab, atol=0.03)


def test_a_red_image_is_in_the_red_bins():
    histograms = colour_histograms(to_lab(plain((255, 0, 0)))).reshape(5, LIGHTNESS_BINS, CHROMA_BINS, CHROMA_BINS)
    np.testing.assert_allclose(histograms.sum(axis=(1, 2, 3)), 1, rtol=1e-5)
    np.testing.assert_allclose(histograms[:, 1:3, 3:, 3:].sum(axis=(1, 2, 3)), 1, rtol=1e-5)  # mid, red, yellow
    # linear sharing keeps the mean position: L* 53.24 of 100, a* 80.09 and b* 67.20 behind the square root
    position = (np.arange(5) * histograms[0].sum(axis=(0, 2))).sum() / (CHROMA_BINS - 1)
    assert position == pytest.approx(0.5 + np.sqrt(0.8009) / 2, abs=1e-3)
    position = (np.arange(5) * histograms[0].sum(axis=(0, 1))).sum() / (CHROMA_BINS - 1)
    assert position == pytest.approx(0.5 + np.sqrt(0.6720) / 2, abs=1e-3)
    position = (np.arange(4) * histograms[0].sum(axis=(1, 2))).sum() / (LIGHTNESS_BINS - 1)
    assert position == pytest.approx(0.5324, abs=1e-3)


def test_quarters_tell_where_a_colour_is():
    rgb = plain((0, 0, 255))
    rgb[SIZE // 2 :] = (0, 255, 0)
    blue, green = (colour_histograms(to_lab(plain(colour)))[0] for colour in ((0, 0, 255), (0, 255, 0)))
    expected = [(blue + green) / 2, blue, blue, green, green]  # whole; upper left and right; lower left and right
    np.testing.assert_allclose(colour_histograms(to_lab(rgb)), expected, atol=1e-5)


def test_orientation_of_edges():
    ramp = np.tile(np.linspace(0, 100, SIZE, dtype=np.float32), (SIZE, 1))
    for lightness, orientation in ((ramp, 0), (ramp.T, 2), (ramp[:, ::-1], 4), (ramp.T[::-1], 6)):
        histograms = gradient_histograms(lightness).sum(axis=0)
        assert histograms[orientation] == pytest.approx(1, abs=1e-5), orientation
    diagonal = gradient_histograms(ramp + ramp.T)  # lighter to the lower right, but for the border
    np.testing.assert_allclose(diagonal.reshape(8, 8, 8)[1:-1, 1:-1, 1], 1 / 64, rtol=0.05)


def test_gradients_are_counted_in_their_cell():
    lightness = np.zeros((SIZE, SIZE), dtype=np.float32)
    lightness[:, 30:] = 50  # columns 29 and 30 see the step: cells 2 of 12 pixels each
    by_column = gradient_histograms(lightness).reshape(8, 8, 8).sum(axis=(0, 2))
    np.testing.assert_allclose(by_column, np.eye(8)[2], atol=1e-6)


def test_a_plain_image_has_no_gradients_and_one_pattern():
    for colour in ((0, 0, 0), (255, 255, 255), (90, 140, 30)):
        lightness = to_lab(plain(colour))[0]
        assert not gradient_histograms(lightness).any()
        np.testing.assert_array_equal(pattern_histograms(lightness), np.eye(NUM_PATTERNS)[[0] * 5])
        descriptor = describe(encoded(Image.fromarray(plain(colour))))
        assert np.isfinite(descriptor).all()
        assert descriptor.any()


def test_patterns_equal_counting_pixel_by_pixel():
    lightness = to_lab(noise())[0]
    padded = np.pad(lightness, 1, mode="edge")
    uniform = []
    for code in range(256):
        bits = [code >> bit & 1 for bit in range(8)]
        if sum(bits[bit] != bits[bit - 1] for bit in range(8)) <= 2:
            uniform.append(code)
    assert len(uniform) == NUM_PATTERNS - 1
    counts = np.zeros((2, 2, NUM_PATTERNS))
    for y in range(SIZE):
        for x in range(SIZE):
            neighbours = [padded[y + row, x + column] for row, column in NEIGHBOURS]
            code = sum((value > lightness[y, x] + PATTERN_THRESHOLD) << bit for bit, value in enumerate(neighbours))
            pattern = uniform.index(code) if code in uniform else NUM_PATTERNS - 1
            counts[y * 2 // SIZE, x * 2 // SIZE, pattern] += 1
    expected = np.concatenate([counts.sum(axis=(0, 1))[None], counts.reshape(4, NUM_PATTERNS)])
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(pattern_histograms(lightness), expected, rtol=1e-5)


def test_patterns_and_gradients_do_not_depend_on_the_light():
    lightness = to_lab(noise())[0] / 2
    np.testing.assert_array_equal(pattern_histograms(lightness), pattern_histograms(lightness + np.float32(32)))
    np.testing.assert_allclose(gradient_histograms(lightness), gradient_histograms(lightness * 2), rtol=1e-3)


def test_blocks_have_unit_length():
    descriptor = describe(encoded(Image.fromarray(noise())))
    assert descriptor.shape == (DIM,)
    assert descriptor.dtype == np.float32
    # five colour histograms, one of all gradients, five of patterns
    assert np.square(descriptor).sum() == pytest.approx(11, rel=1e-4)


IMAGES = {
    "jpeg": encoded(scene(), "JPEG"),
    "png": encoded(scene()),
    "webp": encoded(scene(), "WEBP"),
    "gif": encoded(scene(), "GIF"),
    "bmp": encoded(scene(), "BMP"),
    "tiff": encoded(scene(), "TIFF"),
    "grey": encoded(scene().convert("L")),
    "grey and alpha": encoded(scene().convert("LA")),
    "black and white": encoded(scene().convert("1")),
    "palette": encoded(scene().convert("P")),
    "palette with a transparent colour": encoded(scene().convert("P"), transparency=3),
    "alpha": encoded(scene().convert("RGBA")),
    "cmyk": encoded(scene().convert("CMYK"), "JPEG"),
    "16 bits": encoded(Image.fromarray(np.linspace(0, 65535, 4096).reshape(64, 64).astype(np.uint16))),
    "one pixel": encoded(Image.new("RGB", (1, 1), "red")),
    "one column": encoded(Image.new("RGB", (1, 500), "red")),
}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_every_kind_of_image_is_described(image):
    descriptor = describe(image)
    assert descriptor.shape == (DIM,)
    assert np.isfinite(descriptor).all()
    assert descriptor.any()


def test_equal_pixels_give_equal_descriptors_in_every_lossless_format():
    expected = describe(IMAGES["png"])
    for name in ("bmp", "tiff", "alpha"):
        np.testing.assert_array_equal(describe(IMAGES[name]), expected, err_msg=name)


def test_transparent_parts_are_white():
    transparent = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert (stretch(encoded(transparent)) == 255).all()
    palette = Image.new("P", (20, 20), 0)
    palette.putpalette([255, 0, 0])
    assert (stretch(encoded(palette, transparency=0)) == 255).all()
    assert (stretch(encoded(palette)) == (255, 0, 0)).all()


def test_a_rotated_photo_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was turned, show it rotated by 90 degrees clockwise
    turned = stretch(encoded(scene(), exif=exif.tobytes()))
    np.testing.assert_array_equal(turned, stretch(encoded(scene().transpose(Image.Transpose.ROTATE_270))))


def test_16_bit_greys_equal_8_bit_greys():
    grey = np.arange(SIZE * SIZE).reshape(SIZE, SIZE) % 256
    deep = Image.fromarray((grey * 257).astype(np.uint16))
    np.testing.assert_array_equal(stretch(encoded(deep))[..., 0], grey)


def test_a_large_photo_looks_like_its_small_copy():
    small, large = (stretch(encoded(scene(width, width * 3 // 4), "JPEG", quality=95)) for width in (160, 1600))
    assert np.abs(small.astype(int) - large).mean() < 2


@pytest.mark.parametrize(
    "image",
    [b"", b"no image", IMAGES["jpeg"][:600], IMAGES["png"][:100], b"%!PS-Adobe-3.0 EPSF-3.0\n"],
    ids=["empty", "text", "half a JPEG", "half a PNG", "PostScript"],
)
def test_what_cannot_be_decoded_is_refused(image):
    with pytest.raises(InputError, match=r"cannot be decoded \(.+\), expected one of JPEG, PNG.*replace it"):
        describe(image)

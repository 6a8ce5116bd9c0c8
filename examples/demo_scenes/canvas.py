"""Colours, light, and a pen that draws in a thing's own coordinates."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from examples.demo_scenes.scene import Time

Colour = tuple[int, int, int]
Point = tuple[float, float]

SUPERSAMPLING = 3


class Palette(NamedTuple):
    """Colours of the sky from top to horizon, and the factors by which the light multiplies every other colour."""

    zenith: Colour
    middle: Colour
    horizon: Colour
    ambient: tuple[float, float, float]


PALETTES: dict[Time, tuple[Palette, ...]] = {
    "day": (
        Palette((62, 126, 206), (140, 190, 232), (222, 238, 246), (1.0, 1.0, 1.0)),
        Palette((28, 100, 190), (96, 168, 226), (196, 228, 242), (1.03, 1.0, 0.96)),
        Palette((126, 166, 214), (204, 214, 226), (252, 234, 210), (1.03, 0.97, 0.9)),
        Palette((136, 152, 170), (184, 194, 204), (224, 228, 228), (0.86, 0.89, 0.92)),
        Palette((84, 160, 190), (164, 212, 216), (240, 240, 216), (1.0, 0.99, 0.92)),
    ),
    "sunset": (
        Palette((66, 62, 112), (216, 108, 92), (255, 192, 106), (0.74, 0.55, 0.5)),
        Palette((84, 82, 152), (226, 134, 162), (255, 208, 170), (0.78, 0.62, 0.66)),
        Palette((48, 30, 72), (168, 52, 74), (252, 144, 72), (0.62, 0.43, 0.44)),
        Palette((106, 120, 160), (236, 180, 120), (255, 226, 150), (0.88, 0.7, 0.54)),
        Palette((52, 44, 104), (142, 74, 140), (252, 152, 128), (0.62, 0.49, 0.6)),
    ),
    "night": (
        Palette((8, 14, 42), (22, 40, 88), (62, 88, 134), (0.54, 0.6, 0.78)),
        Palette((5, 18, 34), (14, 48, 72), (46, 96, 112), (0.52, 0.65, 0.74)),
        Palette((14, 8, 40), (46, 30, 88), (98, 72, 132), (0.6, 0.55, 0.78)),
        Palette((4, 6, 18), (13, 20, 42), (38, 48, 80), (0.55, 0.59, 0.74)),
    ),
}


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The first colour with a share (0 to 1) of the second."""
    return (
        round(first[0] + (second[0] - first[0]) * share),
        round(first[1] + (second[1] - first[1]) * share),
        round(first[2] + (second[2] - first[2]) * share),
    )


def vary(colour: Colour, rng: np.random.Generator, amount: float = 14) -> Colour:
    """A colour near this one."""
    red, green, blue = (min(255, max(0, round(c + d))) for c, d in zip(colour, rng.normal(0, amount, 3), strict=True))
    return red, green, blue


class Light(NamedTuple):
    """How colours look at this time of day, near and far."""

    time: Time
    palette: Palette
    side: int
    """-1 when the light comes from the left, 1 from the right."""

    def shade(self, colour: Colour, distance: float = 0.0) -> Colour:
        """The colour in this light, taking on the horizon's colour with the distance (0 to 1)."""
        white = 0.32 * (min(colour) / 255) ** 4  # snow and sails stay bright after sunset
        factors = (factor + max(0.0, 1 - factor) * white for factor in self.palette.ambient)
        red, green, blue = (min(255, round(c * f)) for c, f in zip(colour, factors, strict=True))
        return mix((red, green, blue), self.palette.horizon, distance)

    @property
    def lamps(self) -> bool:
        """Whether windows and headlights are lit."""
        return self.time != "day"


class Canvas:
    """An image being painted, larger than it will be stored; drawing calls take canvas pixels."""

    def __init__(self, width: int, height: int, light: Light) -> None:
        self.width = width * SUPERSAMPLING
        self.height = height * SUPERSAMPLING
        self.light = light
        self.replace(Image.new("RGB", (self.width, self.height)))

    def replace(self, image: Image.Image) -> None:
        """Draw on another image from now on."""
        self.image = image
        self.draw = ImageDraw.Draw(image, "RGBA")

    def fill(self, points: Sequence[Point], top: Colour, bottom: Colour) -> None:
        """Fill a polygon with a vertical gradient."""
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(points, fill=255)
        self.stain(mask, top, bottom)

    def stain(self, mask: Image.Image, top: Colour, bottom: Colour) -> None:
        """Paint a vertical gradient, from the mask's upper to its lower edge, through a mask of the canvas's size."""
        box = mask.getbbox()
        if box is not None:
            self.image.paste(vertical_gradient((top, bottom), box[2] - box[0], box[3] - box[1]), box, mask.crop(box))

    def silhouette(self, heights: Sequence[float], base: float, top: Colour, bottom: Colour) -> None:
        """Fill from evenly spaced heights (y in pixels, left to right) down to `base`."""
        xs = np.linspace(0, self.width, len(heights))
        points = [(0.0, base), *zip(xs.tolist(), heights, strict=True), (float(self.width), base)]
        self.fill(points, top, bottom)


def vertical_gradient(stops: Sequence[Colour], width: int, height: int) -> Image.Image:
    """An image with the colours spread evenly from top to bottom."""
    rows = np.linspace(0, len(stops) - 1, height)
    channels = [np.interp(rows, np.arange(len(stops)), [stop[i] for stop in stops]) for i in range(3)]
    column = np.stack(channels, axis=1).round().astype(np.uint8)[:, None]
    return Image.fromarray(column).resize((width, height), Image.Resampling.NEAREST)


class Pen:
    """Draws a thing in its own coordinates: the foot at (0, 0), y upward, `unit` pixels long."""

    def __init__(
        self,
        canvas: Canvas,
        foot: Point,
        unit: float,
        *,
        distance: float = 0.0,
        mirrored: bool = False,
        reflected: bool = False,
    ) -> None:
        self._draw = canvas.draw
        self._light = canvas.light
        self._foot = foot
        self._distance = distance
        self._across = -unit if mirrored else unit
        self._along = unit if reflected else -unit
        self._alpha = 0.35 if reflected else 1.0
        self.lamps = canvas.light.lamps

    def _ink(self, colour: Colour, alpha: float, lit: bool) -> tuple[int, int, int, int]:
        shown = colour if lit else self._light.shade(colour, self._distance)
        return (*shown, round(255 * alpha * self._alpha))

    def _at(self, point: Point) -> Point:
        return self._foot[0] + point[0] * self._across, self._foot[1] + point[1] * self._along

    def polygon(self, points: Sequence[Point], colour: Colour, *, alpha: float = 1, lit: bool = False) -> None:
        """Fill a polygon; `lit` colours shine by themselves."""
        self._draw.polygon([self._at(point) for point in points], fill=self._ink(colour, alpha, lit))

    def box(self, low: Point, high: Point, colour: Colour, *, alpha: float = 1, lit: bool = False) -> None:
        """Fill the rectangle between two corners."""
        self.polygon([low, (high[0], low[1]), high, (low[0], high[1])], colour, alpha=alpha, lit=lit)

    def oval(self, centre: Point, radii: Point, colour: Colour, *, alpha: float = 1, lit: bool = False) -> None:
        """Fill an ellipse."""
        x, y = self._at(centre)
        a, b = abs(radii[0] * self._across), abs(radii[1] * self._along)
        self._draw.ellipse((x - a, y - b, x + a, y + b), fill=self._ink(colour, alpha, lit))

    def line(self, points: Sequence[Point], width: float, colour: Colour, *, alpha: float = 1) -> None:
        """Draw connected lines; the width is in units too."""
        pixels = max(1, round(width * abs(self._along)))
        self._draw.line([self._at(point) for point in points], self._ink(colour, alpha, False), pixels, "curve")

"""Sky, mountains, skyline, water and ground: what a scene stands in front of, or on."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from examples.demo_scenes.canvas import (
    SUPERSAMPLING,
    Canvas,
    Colour,
    Light,
    Point,
    mix,
    vary,
    vertical_gradient,
)
from examples.demo_scenes.scene import Scene, Thing

FloatArray = npt.NDArray[np.float64]

_RAINBOW: tuple[Colour, ...] = (
    (150, 80, 200),
    (70, 90, 230),
    (60, 170, 230),
    (80, 200, 90),
    (250, 230, 70),
    (250, 150, 50),
    (235, 60, 60),
)
_WALLS: tuple[Colour, ...] = (
    (150, 156, 170),
    (178, 168, 158),
    (120, 132, 154),
    (188, 150, 128),
    (200, 200, 204),
)
_WINDOW: Colour = (255, 214, 130)


def curve(rng: np.random.Generator, count: int, waves: tuple[float, ...]) -> FloatArray:
    """A smooth random line of `count` heights between about -1 and 1; `waves` are its numbers of periods."""
    x = np.linspace(0, 2 * np.pi, count)
    parts = [np.sin(x * wave * rng.uniform(0.8, 1.2) + rng.uniform(0, 6.3)) / (i + 1) for i, wave in enumerate(waves)]
    line: FloatArray = np.sum(parts, axis=0) / 1.5
    return line


def sky(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Gradient of the time of day, with the glow of sun or moon; the setting sun itself may be seen."""
    palette, width, height = canvas.light.palette, canvas.width, canvas.height
    end = round(scene.horizon * height) + 1
    small_size = (width // SUPERSAMPLING, end // SUPERSAMPLING + 1)
    field = np.asarray(vertical_gradient(palette[:3], *small_size), dtype=np.float32)
    if scene.time == "night":
        glows = [(moon.x, moon.y, 0.22, (60, 66, 84)) for moon in scene.of("moon")]
    elif scene.time == "sunset":
        sun = (0.5 + canvas.light.side * rng.uniform(0.05, 0.38), scene.horizon - rng.uniform(0.02, 0.16))
        glows = [(*sun, 0.3, (56, 46, 16)), (*sun, 0.1, (50, 44, 30))]
    else:
        glows = [(0.5 + canvas.light.side * rng.uniform(0.3, 0.6), rng.uniform(-0.1, 0.2), 0.4, (46, 42, 30))]
    rows, columns = np.mgrid[: small_size[1], : small_size[0]].astype(np.float32) / (height / SUPERSAMPLING)
    for x, y, radius, colour in glows:
        squared = (columns - x * width / height) ** 2 + (rows - y) ** 2
        field = field + np.exp(-squared / radius**2)[..., None] * np.array(colour, dtype=np.float32)
    small = Image.fromarray(field.clip(0, 255).astype(np.uint8))
    canvas.image.paste(small.resize((width, end), Image.Resampling.BICUBIC), (0, 0))
    if scene.time == "sunset" and rng.random() < 0.75:
        x, y, radius = sun[0] * width, sun[1] * height, rng.uniform(0.045, 0.085) * height
        canvas.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 250, 226))


def stars(canvas: Canvas, thing: Thing) -> None:
    """Bright points, some with rays."""
    rng = np.random.default_rng(thing.seed)
    for x, y, brightness in rng.random((int(rng.integers(45, 90)), 3)):
        centre, top = x * canvas.width, y**1.2 * thing.y * canvas.height
        radius = (0.0035 + 0.0055 * brightness**4) * canvas.height
        ink = (255, 250, 226 + round(29 * x), round(150 + 105 * brightness))
        canvas.draw.ellipse((centre - radius, top - radius, centre + radius, top + radius), fill=ink)
        if brightness > 0.88:
            for across, along in ((3.2, 0.3), (0.3, 3.2)):
                box = (
                    centre - radius * across,
                    top - radius * along,
                    centre + radius * across,
                    top + radius * along,
                )
                canvas.draw.ellipse(box, fill=(255, 250, 230, 190))


def moon(canvas: Canvas, thing: Thing) -> None:
    """A full disc with maria, or a crescent."""
    rng = np.random.default_rng(thing.seed)
    x, y, radius = thing.x * canvas.width, thing.y * canvas.height, thing.size / 2 * canvas.height
    mask = Image.new("L", canvas.image.size)
    draw = ImageDraw.Draw(mask)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    if thing.variant == "crescent":
        cut_x, cut_y = x + radius * 0.55 * rng.choice([-1, 1]), y - radius * rng.uniform(0.1, 0.35)
        draw.ellipse((cut_x - radius, cut_y - radius, cut_x + radius, cut_y + radius), fill=0)
    canvas.stain(mask, (255, 252, 232), (244, 232, 196))
    if thing.variant == "full":
        for angle, share in rng.random((5, 2)):
            a, b = x + radius * 0.55 * np.cos(angle * 6.3), y + radius * 0.55 * np.sin(angle * 6.3)
            spot = radius * (0.1 + 0.16 * share)
            canvas.draw.ellipse((a - spot, b - spot, a + spot, b + spot), fill=(214, 202, 176, 120))


def cloud(canvas: Canvas, thing: Thing) -> None:
    """Puffs on a flat base, lit from above by day; long streaks lit from below at sunset."""
    rng = np.random.default_rng(thing.seed)
    x, y, size = thing.x * canvas.width, thing.y * canvas.height, thing.size * canvas.height
    half = int(size * 1.9)
    mask = Image.new("L", (2 * half, int(size * 1.6)))
    draw = ImageDraw.Draw(mask)
    streaky = canvas.light.time == "sunset" and rng.random() < 0.6
    for offset, lift, share in rng.random((16, 3)):
        a = half + (offset - 0.5) * size * 2.2
        radius = size * (0.14 + 0.3 * share) * (1 - 1.1 * abs(offset - 0.5))
        b = size * 0.95 - radius - lift * size * 0.35 * (1 - 2 * abs(offset - 0.5))
        across, along = (radius * 2.6, radius * 0.46) if streaky else (radius * 1.25, radius)
        draw.ellipse((a - across, b - along, a + across, b + along), fill=255)
    if not streaky:
        draw.ellipse((half - size * 0.75, size * 0.5, half + size * 0.75, size * 0.95), fill=255)
        draw.rounded_rectangle((half - size, size * 0.76, half + size, size * 0.95), size * 0.09, fill=255)
    mask = mask.filter(ImageFilter.BoxBlur(SUPERSAMPLING * 0.8)).point([v * 235 // 255 for v in range(256)])
    horizon = canvas.light.palette.horizon
    top, bottom = {
        "day": ((255, 255, 255), mix(canvas.light.palette.middle, (236, 238, 242), 0.55)),
        "sunset": (mix(horizon, (96, 58, 104), 0.7), mix(horizon, (255, 236, 210), 0.35)),
        "night": ((70, 80, 110), (40, 46, 72)),
    }[canvas.light.time]
    box = mask.getbbox() or (0, 0, 1, 1)
    gradient = vertical_gradient((top, bottom), box[2] - box[0], box[3] - box[1])
    canvas.image.paste(gradient, (int(x) - half + box[0], int(y - size * 0.6) + box[1]), mask.crop(box))


def rainbow(canvas: Canvas, thing: Thing) -> None:
    """Seven translucent arcs, violet inside, fading toward the ground."""
    rng = np.random.default_rng(thing.seed)
    outer = thing.size * canvas.height
    x, y = canvas.width * (0.5 + rng.choice([-1, 1]) * rng.uniform(0.05, 0.4)), thing.y * canvas.height * 1.05
    band = outer * 0.026
    for i, colour in enumerate(_RAINBOW):
        radius = outer - band * (len(_RAINBOW) - i)
        box = (x - radius, y - radius, x + radius, y + radius)
        canvas.draw.arc(box, 180, 360, fill=(*colour, 120), width=round(band) + 1)


def mountains(canvas: Canvas, scene: Scene, thing: Thing) -> None:
    """Two ranges of faceted peaks, the farther one paler; with the variant `caps` of snow the peaks are white."""
    rng = np.random.default_rng(thing.seed)
    rock = vary(((104, 104, 124), (116, 104, 100), (92, 112, 124))[rng.integers(3)], rng)
    base = scene.horizon * canvas.height + 2
    snowy = scene.has("snow", "caps")
    haze = 0.5 if canvas.light.time == "night" else 1.0
    for distance, scale, count in ((0.55 * haze, 0.85, 4), (0.25 * haze, 1.0, 3)):
        positions = (np.arange(count) + rng.uniform(-0.25, 1.25, count)) / count
        heights = thing.size * scale * rng.uniform(0.55, 1.0, count)
        heights[rng.integers(count)] = thing.size * scale
        for position, height in sorted(zip(positions, heights, strict=True), key=lambda peak: peak[1]):
            apex = (position * canvas.width, base - height * canvas.height)
            _peak(canvas, apex, base, rock=rock, distance=distance, snowy=snowy, rng=rng)


def _peak(
    canvas: Canvas,
    apex: Point,
    base: float,
    *,
    rock: Colour,
    distance: float,
    snowy: bool,
    rng: np.random.Generator,
) -> None:
    """One peak: a lit and a shaded face that meet in a jagged ridge, each with its own snow."""
    height = base - apex[1]
    steps = np.linspace(0, 1, 7)
    jitter = rng.normal(0, 0.035, (3, 7)) * steps * (1.2 - steps)
    flanks = [apex[0] + height * sign * rng.uniform(1.0, 1.5) * (steps + jitter[i]) for i, sign in enumerate((-1, 1))]
    ridge = apex[0] + height * (rng.uniform(-0.25, 0.25) * steps + 2.5 * jitter[2])
    down = apex[1] + height * steps
    lit, dark = (1, 0) if canvas.light.side > 0 else (0, 1)
    snow_line = rng.uniform(0.42, 0.62)
    for face, tone in ((lit, 1.15), (dark, 0.72)):
        colour = tuple(min(255, round(c * tone)) for c in rock)
        shown = canvas.light.shade((colour[0], colour[1], colour[2]), distance)
        outline = [*zip(flanks[face], down, strict=True), *zip(ridge[::-1], down[::-1], strict=True)]
        canvas.draw.polygon([(float(a), float(b)) for a, b in outline], fill=shown)
        if snowy:
            white = canvas.light.shade((250, 252, 255) if face == lit else (186, 200, 224), distance * 0.3)
            across = np.linspace(0, 1, 6)
            depth = snow_line * (1 + np.where(np.arange(6) % 2, -0.32, 0.32) * rng.uniform(0.5, 1, 6))
            edge = [
                (
                    float(np.interp(d, steps, flanks[face]) * (1 - a) + np.interp(d, steps, ridge) * a),
                    apex[1] + height * d,
                )
                for a, d in zip(across, depth, strict=True)
            ]
            left = [
                (float(np.interp(d, steps, flanks[face])), apex[1] + height * d) for d in (0.1, 0.2) if d < depth[0]
            ]
            right = [(float(np.interp(d, steps, ridge)), apex[1] + height * d) for d in (0.2, 0.1) if d < depth[-1]]
            canvas.draw.polygon([apex, *left, *edge, *right], fill=white)


def hills(canvas: Canvas, scene: Scene, colour: Colour, rng: np.random.Generator) -> None:
    """Rolling hills in front of the mountains, fading into the distance."""
    base = (scene.horizon + 0.03) * canvas.height
    for distance, rise in ((0.6, 0.07), (0.4, 0.035)):
        heights = base - canvas.height * (0.03 + rise * (0.9 + 0.6 * curve(rng, 60, (1.5, 3, 7))))
        shown = canvas.light.shade(vary(colour, rng, 6), distance)
        canvas.silhouette(heights.tolist(), base, shown, mix(shown, canvas.light.palette.horizon, 0.25))


def treeline(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Two rows of distant conifers: the edge of a forest."""
    for distance, rise in ((0.55, 0.13), (0.34, 0.09)):
        base = scene.horizon * canvas.height + canvas.height * (0.16 - rise) * 0.5
        count = 46
        xs = (np.arange(count) + rng.uniform(-0.4, 0.4, count)) / (count - 1) * canvas.width
        shown = canvas.light.shade(vary((48, 92, 66), rng, 8), distance)
        canvas.draw.rectangle((0, base - canvas.height * rise * 0.3, canvas.width, base), fill=shown)
        for x, share in zip(xs.tolist(), rng.uniform(0.55, 1.0, count).tolist(), strict=True):
            height, half = canvas.height * rise * share, canvas.height * 0.024
            canvas.draw.polygon([(x - half, base), (x, base - height), (x + half, base)], fill=shown)


def skyline(canvas: Canvas, thing: Thing) -> None:
    """Two rows of tall buildings with windows, lit after sunset."""
    rng = np.random.default_rng(thing.seed)
    base = thing.y * canvas.height + 2
    for distance, scale, count in ((0.5, 1.0, 11), (0.12, 0.72, 9)):
        edges = np.cumsum(rng.uniform(0.6, 1.5, count))
        lefts = np.concatenate([[0], edges[:-1]]) / edges[-1] * canvas.width
        for left, right in zip(lefts, edges / edges[-1] * canvas.width, strict=True):
            if rng.random() < 0.85:
                top = base - thing.size * scale * rng.uniform(0.35, 1.0) * canvas.height
                side = max(float(right) - rng.uniform(0, 8), float(left) + 3)
                _tower(canvas, (float(left) + 1, top), (side, base), distance, rng)


def _tower(canvas: Canvas, low: Point, high: Point, distance: float, rng: np.random.Generator) -> None:
    """One building with roof and windows."""
    (left, top), (right, base), light = low, high, canvas.light
    wall = vary(_WALLS[rng.integers(len(_WALLS))], rng)
    shown = light.shade(wall, distance)
    canvas.draw.rectangle((left, top, right, base), fill=shown)
    edge = left + (right - left) * (0.72 if light.side < 0 else 0.28)
    shadow = (edge, top, right, base) if light.side < 0 else (left, top, edge, base)
    canvas.draw.rectangle(shadow, fill=light.shade(mix(wall, (20, 20, 40), 0.35), distance))
    middle = (left + right) / 2
    roof = rng.random()
    if roof < 0.25:
        canvas.draw.line((middle, top, middle, top - (right - left) * 0.6), fill=shown, width=3)
    elif roof < 0.5:
        canvas.draw.polygon([(left, top), (right, top), (middle, top - (right - left) * 0.4)], fill=shown)
    elif roof < 0.7:
        inset = min(5.0, (right - left) / 4)
        canvas.draw.rectangle((left + inset, top - 8, right - inset, top), fill=shown)
    step = rng.uniform(11, 15)
    ys = np.arange(top + 7, base - 5, step)
    xs = np.arange(left + 5, right - 6, step * 0.8)
    glass = light.shade(mix(wall, (40, 60, 90), 0.6), distance)
    lit = rng.random((len(ys), len(xs))) < (0.45 if light.time == "night" else 0.25 if light.lamps else 0)
    for y, row in zip(ys.tolist(), lit, strict=True):
        for x, on in zip(xs.tolist(), row, strict=True):
            ink = mix(_WINDOW, light.palette.horizon, distance * 0.7) if on else glass
            canvas.draw.rectangle((x, y, x + step * 0.42, y + step * 0.5), fill=ink)


def water(canvas: Canvas, scene: Scene, thing: Thing) -> None:
    """Mirror what stands above the horizon, tint it, break it into ripples, and add glints."""
    rng = np.random.default_rng(thing.seed)
    width, light = canvas.width, canvas.light
    top, bottom = round(scene.horizon * canvas.height), round(min(1.0, scene.shore + 0.05) * canvas.height)
    depth = bottom - top
    mirror = canvas.image.crop((0, max(0, top - round(depth * 1.2)), width, top)).transpose(
        Image.Transpose.FLIP_TOP_BOTTOM
    )
    small = np.asarray(mirror.resize((width // 2, depth), Image.Resampling.BILINEAR))
    rows = np.arange(depth)
    sway = (np.sin(rows**0.6 * 4 + rng.uniform(0, 6)) + rng.normal(0, 0.5, depth)) * (0.8 + 5 * rows / depth)
    columns = (np.arange(width // 2) + sway.round().astype(int)[:, None]).clip(0, width // 2 - 1)
    mirror = Image.fromarray(small[rows[:, None], columns]).resize((width, depth), Image.Resampling.BILINEAR)
    deep = ((24, 92, 132), (30, 110, 128), (44, 84, 116))[rng.integers(3)]
    if light.time == "night":
        deep = mix(deep, (10, 16, 40), 0.5)
    tint = vertical_gradient((light.shade(deep, 0.45), light.shade(deep, 0.0)), width, depth)
    canvas.image.paste(Image.blend(mirror, tint, 0.5), (0, top))
    glint = mix(light.palette.horizon, (255, 255, 255), 0.35)
    for x, y, share in rng.random((70, 3)):
        near = y**1.4
        a, b = x * width, top + near * depth
        half, thick = (0.01 + 0.05 * share * (0.3 + near)) * width, 1 + 1.6 * near
        canvas.draw.ellipse((a - half, b - thick, a + half, b + thick), fill=(*glint, round(50 + 50 * share)))


def ground(canvas: Canvas, scene: Scene, colour: Colour, rng: np.random.Generator) -> None:
    """The near ground, from the shore (or the horizon) to the lower edge, with tufts and a fringe of foam."""
    if scene.shore >= 1:
        return
    width, height, light = canvas.width, canvas.height, canvas.light
    level = scene.setting == "city"
    swing = 0.0 if level else 0.022 if scene.shore > scene.horizon else 0.012
    line = (scene.shore + swing * curve(rng, 60, (0.7, 2, 4))) * height
    if scene.of("beach"):
        for lift, alpha in ((0.022, 90), (0.009, 200)):
            xs = np.linspace(0, width, 60)
            points = [
                (0.0, float(height)),
                *zip(xs, line - lift * height, strict=True),
                (float(width), float(height)),
            ]
            canvas.draw.polygon([(float(a), float(b)) for a, b in points], fill=(*light.shade((250, 252, 255)), alpha))
    far = 0.35 if scene.shore == scene.horizon else 0.05
    canvas.silhouette(line.tolist(), height, light.shade(colour, far), light.shade(mix(colour, (20, 30, 20), 0.2)))
    if level:
        _promenade(canvas, line[0], rng)
        return
    blade = light.shade(mix(colour, (20, 40, 30), 0.3))
    bright = light.shade(mix(colour, (255, 250, 200), 0.25))
    for x, y, share in rng.random((90, 3)):
        near = y**0.7
        a, b = x * width, (scene.shore + 0.04 + (0.96 - scene.shore) * near) * height
        length = (0.006 + 0.02 * near) * height
        ink = (*(blade if share < 0.6 else bright), 90)
        canvas.draw.line((a, b, a + (share - 0.5) * length, b - length), fill=ink, width=2)


def _promenade(canvas: Canvas, top: float, rng: np.random.Generator) -> None:
    """Paving of a city's waterfront or square, with lamp posts."""
    light, width, height = canvas.light, canvas.width, canvas.height
    seam, post = light.shade((112, 112, 118), 0.1), light.shade((50, 56, 66))
    vanishing = (width * 0.5, top - 0.35 * height)
    for x in np.linspace(-1.2, 2.2, 23) * width:
        share = (top - vanishing[1]) / (height - vanishing[1])
        canvas.draw.line((vanishing[0] + (x - vanishing[0]) * share, top, x, height), fill=seam)
    for y in top + (height - top) * np.linspace(0, 1, 6)[1:-1] ** 1.6:
        canvas.draw.line((0, y, width, y), fill=seam)
    canvas.draw.line((0, top, width, top), fill=light.shade((196, 192, 186)), width=4)
    start, tall = rng.uniform(0.02, 0.2), 0.17 * height
    for x in (start + np.arange(0, 1, 0.27)) * width:
        foot, lamp = top + 0.02 * height, top + 0.02 * height - tall
        canvas.draw.line((x, foot, x, lamp), fill=post, width=3)
        if light.lamps:
            canvas.draw.ellipse((x - 16, lamp - 16, x + 16, lamp + 16), fill=(*_WINDOW, 60))
        canvas.draw.ellipse((x - 5, lamp - 5, x + 5, lamp + 5), fill=_WINDOW if light.lamps else post)


def snowfall(canvas: Canvas, thing: Thing) -> None:
    """Flakes all over the image, near ones large and soft."""
    rng = np.random.default_rng(thing.seed)
    for x, y, share in rng.random((110, 3)):
        a, b, radius = x * canvas.width, y * canvas.height, (0.004 + 0.008 * share**3) * canvas.height
        canvas.draw.ellipse(
            (a - radius, b - radius, a + radius, b + radius), fill=(250, 252, 255, round(210 - 90 * share))
        )


def with_grain(image: Image.Image, light: Light, rng: np.random.Generator) -> Image.Image:
    """The finished image with a light vignette and the grain of film."""
    pixels = np.asarray(image, dtype=np.float32)
    rows, columns = np.mgrid[-1 : 1 : pixels.shape[0] * 1j, -1 : 1 : pixels.shape[1] * 1j]
    vignette = 1 - 0.1 * (rows**2 + columns**2).astype(np.float32) ** 1.5 / 2.8
    grain = rng.standard_normal(pixels.shape[:2], dtype=np.float32) * (1.6 if light.time == "night" else 1.1)
    return Image.fromarray((pixels * vignette[..., None] + grain[..., None]).clip(0, 255).astype(np.uint8))

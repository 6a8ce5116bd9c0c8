"""Whatever stands, drives, swims or flies in a scene; shapes are in a thing's own units, the foot at (0, 0)."""

import numpy as np

from examples.demo_scenes.animals import animal, bird, stand
from examples.demo_scenes.canvas import Canvas, Colour, Pen, mix, vary
from examples.demo_scenes.scene import Scene, Thing, road_at

__all__ = ["STANDING", "bird", "boat", "bridge", "lighthouse", "road"]

_BRIGHT: tuple[Colour, ...] = (
    (206, 62, 54),
    (46, 104, 178),
    (238, 184, 62),
    (240, 240, 236),
    (62, 142, 106),
    (148, 84, 160),
    (232, 128, 60),
    (70, 74, 86),
)
_LEAVES: tuple[Colour, ...] = ((72, 128, 62), (96, 146, 60), (52, 108, 66), (196, 134, 48), (180, 88, 48))
_NEEDLES: tuple[Colour, ...] = ((38, 88, 68), (50, 100, 62), (44, 84, 84))
_PLASTER: tuple[Colour, ...] = (
    (240, 230, 208),
    (236, 206, 166),
    (224, 172, 150),
    (206, 218, 224),
    (176, 70, 60),
)
_ROOFS: tuple[Colour, ...] = ((168, 74, 56), (122, 62, 56), (88, 92, 104), (150, 104, 72))
_BARK: Colour = (104, 78, 58)
_SNOW: Colour = (246, 250, 255)
_LAMP: Colour = (255, 218, 130)
_STEEL: Colour = (58, 62, 72)
_GLASS: Colour = (70, 98, 126)


def _shadow(pen: Pen, half: float) -> None:
    pen.oval((0, 0), (half, half * 0.16), (20, 26, 30), alpha=0.28)


def tree(canvas: Canvas, scene: Scene, thing: Thing) -> None:
    """A conifer, a broadleaf tree, a poplar or a palm; white on the weather side in winter."""
    rng = np.random.default_rng(thing.seed)
    pen = stand(canvas, scene, thing, rng)
    _shadow(pen, 0.24)
    if thing.variant == "conifer":
        _conifer(pen, rng, winter=scene.has("snow", "ground"))
    elif thing.variant == "palm":
        _palm(pen, rng)
    else:
        _leafy(pen, rng, slender=thing.variant == "poplar", winter=scene.has("snow", "ground"))


def _conifer(pen: Pen, rng: np.random.Generator, *, winter: bool) -> None:
    colour = vary(_NEEDLES[rng.integers(len(_NEEDLES))], rng, 8)
    pen.box((-0.03, 0), (0.03, 0.2), _BARK)
    tiers = 5
    width = rng.uniform(0.2, 0.28)
    for i in range(tiers):
        low, top = 0.12 + 0.17 * i, 0.12 + 0.17 * i + 0.3 - 0.02 * i
        top = min(top, 1.0)
        half = width * (1 - i / tiers) + 0.03
        tone = mix(colour, (200, 220, 150), 0.06 * i)
        jag = [(half * t, low + (0.03 if k % 2 else 0.0)) for k, t in enumerate(np.linspace(-1, 1, 7))]
        pen.polygon([*jag, (0, top)], tone)
        pen.polygon([(0, top), (0.25 * half, low + 0.02), (half, low)], mix(tone, (10, 20, 40), 0.25))
        if winter:
            middle = low + (top - low) * 0.45
            pen.polygon(
                [(-half * 0.55, middle), (-half * 0.2, middle - 0.03), (0.1 * half, middle + 0.02), (0, top)],
                _SNOW,
            )


def _leafy(pen: Pen, rng: np.random.Generator, *, slender: bool, winter: bool) -> None:
    colour = vary(_LEAVES[rng.integers(len(_LEAVES))], rng, 10)
    bark = (214, 210, 202) if slender and rng.random() < 0.5 else _BARK
    half, middle, rise = (0.11, 0.58, 0.4) if slender else (0.27, 0.66, 0.27)
    thick = 0.022 if slender else 0.04
    pen.polygon([(-thick * 1.5, 0), (thick * 1.5, 0), (thick * 0.7, middle), (-thick * 0.7, middle)], bark)
    if winter:
        for lean in rng.uniform(-1, 1, 9):
            start = rng.uniform(0.3, 0.6)
            end = (lean * half * 1.1, start + rng.uniform(0.2, 0.38))
            pen.line([(0, start), (end[0] * 0.5, start + 0.12), end], 0.022, mix(bark, (70, 60, 60), 0.4))
            pen.line([(end[0] * 0.5, start + 0.14), (end[0], end[1] + 0.015)], 0.014, _SNOW)
        return
    blobs = np.stack([rng.uniform(-0.72, 0.72, 12), rng.permutation(np.linspace(-0.85, 0.8, 12))], axis=1)
    blobs[:, 0] *= np.sqrt(1 - blobs[:, 1] ** 2)
    for tone, lift, scale in (((16, 30, 40), -0.05, 1.0), (colour, 0.0, 0.95), ((236, 240, 150), 0.06, 0.6)):
        shown = mix(colour, tone, 0.3)
        for x, y in blobs:
            centre = (x * half * scale - lift * 0.7, middle + y * rise * scale + lift)
            pen.oval(
                centre,
                (half * (0.68 if slender else 0.5) * scale, half * (0.75 if slender else 0.46) * scale),
                shown,
            )


def _palm(pen: Pen, rng: np.random.Generator) -> None:
    lean = rng.uniform(0.1, 0.3)
    spine = [(lean * t**2, 0.8 * t) for t in np.linspace(0, 1, 7)]
    pen.line(spine, 0.05, (138, 106, 74))
    crown = spine[-1]
    green = vary((64, 130, 66), rng, 10)
    for i, angle in enumerate(np.linspace(-0.5, 3.64, 9) + rng.uniform(-0.1, 0.1, 9)):
        reach = rng.uniform(0.26, 0.36)
        along = [
            (
                crown[0] + reach * t * np.cos(angle),
                crown[1] + reach * (t * np.sin(angle) * 0.7 - 0.75 * t**2 + 0.25 * t),
            )
            for t in np.linspace(0, 1, 6)
        ]
        upper = [(x, y + 0.05 * np.sin(np.pi * t)) for (x, y), t in zip(along, np.linspace(0, 1, 6), strict=True)]
        pen.polygon([*along, *upper[::-1]], mix(green, (20, 50, 40), 0.12 * (i % 3)))
    for x in (-0.03, 0.03):
        pen.oval((crown[0] + x, crown[1] - 0.03), (0.03, 0.03), (110, 76, 46))


def house(canvas: Canvas, scene: Scene, thing: Thing) -> None:
    """A gabled house seen from a corner, with chimney, door and windows."""
    rng = np.random.default_rng(thing.seed)
    pen = stand(canvas, scene, thing, rng)
    wall, roof = (
        vary(_PLASTER[rng.integers(len(_PLASTER))], rng, 8),
        vary(_ROOFS[rng.integers(len(_ROOFS))], rng, 10),
    )
    snowy = scene.has("snow", "ground")
    cover = _SNOW if snowy else roof
    eaves, long = rng.uniform(0.42, 0.55), rng.uniform(0.5, 0.75)
    _shadow(pen, 0.75)
    pen.box((0.1, 0.7), (0.22, 1.0), mix(roof, (60, 40, 40), 0.4))
    pen.polygon([(-0.45, 0), (0.0, 0), (0.0, eaves), (-0.225, 0.92), (-0.45, eaves)], wall)
    pen.box((0.0, 0), (long, eaves), mix(wall, (40, 40, 70), 0.24))
    pen.polygon([(-0.225, 0.95), (long - 0.17, 0.95), (long + 0.06, eaves - 0.05), (0.03, eaves - 0.05)], cover)
    edge = mix(cover, (30, 20, 30), 0.3)
    pen.polygon([(-0.225, 0.97), (-0.225, 0.89), (-0.47, eaves - 0.06), (-0.5, eaves - 0.03)], edge)
    pen.polygon([(-0.225, 0.97), (-0.225, 0.89), (0.03, eaves - 0.06), (0.06, eaves - 0.03)], edge)
    pane, lit = (_LAMP, True) if pen.lamps else ((96, 128, 152), False)
    pen.box((-0.3, 0), (-0.16, 0.28), mix(roof, (40, 30, 30), 0.35))
    pen.box((-0.28, eaves), (-0.17, eaves + 0.14), pane, lit=lit)
    for left in np.linspace(0.1, long - 0.22, 2 if long < 0.62 else 3):
        pen.box((left - 0.02, 0.14), (left + 0.13, 0.36), (250, 250, 250))
        pen.box((left, 0.16), (left + 0.11, 0.34), pane, lit=lit)


def car(canvas: Canvas, scene: Scene, thing: Thing) -> None:
    """From the side on a street; from behind or from the front on a winding road."""
    rng = np.random.default_rng(thing.seed)
    body = vary(_BRIGHT[rng.integers(len(_BRIGHT))], rng, 10)
    dark = mix(body, (10, 10, 20), 0.3)
    if thing.variant in ("rear", "front"):
        pen = Pen(canvas, (thing.x * canvas.width, thing.y * canvas.height), thing.size * canvas.width)
        pen.oval((0, 0.02), (0.5, 0.08), (10, 12, 16), alpha=0.4)
        for x in (-0.4, 0.24):
            pen.box((x, 0), (x + 0.16, 0.2), (24, 24, 28))
        pen.polygon([(-0.46, 0.1), (0.46, 0.1), (0.46, 0.42), (0.4, 0.5), (-0.4, 0.5), (-0.46, 0.42)], body)
        pen.polygon([(-0.38, 0.46), (0.38, 0.46), (0.27, 0.8), (-0.27, 0.8)], body)
        pen.polygon([(-0.31, 0.5), (0.31, 0.5), (0.23, 0.75), (-0.23, 0.75)], _GLASS)
        pen.box((-0.46, 0.1), (0.46, 0.18), dark)
        lamp: Colour = (236, 40, 34) if thing.variant == "rear" else (255, 246, 200)
        for x in (-0.36, 0.36):
            pen.oval((x, 0.34), (0.09, 0.07), lamp, lit=pen.lamps)
            if pen.lamps:
                pen.oval((x, 0.34), (0.2, 0.17), lamp, alpha=0.3, lit=True)
        return
    pen = stand(canvas, scene, thing, rng)
    pen.oval((0, 0.02), (1.2, 0.1), (10, 12, 16), alpha=0.4)
    roof = rng.uniform(-0.75, -0.5)
    pen.polygon([(roof, 0.55), (roof + 0.18, 0.98), (0.32, 0.98), (0.66, 0.55)], body)
    pen.polygon([(roof + 0.12, 0.56), (roof + 0.25, 0.9), (-0.06, 0.9), (-0.06, 0.56)], _GLASS)
    pen.polygon([(0.02, 0.56), (0.02, 0.9), (0.28, 0.9), (0.52, 0.56)], _GLASS)
    pen.polygon([(-1.1, 0.2), (-1.08, 0.52), (-0.9, 0.6), (0.66, 0.6), (1.05, 0.5), (1.12, 0.2)], body)
    pen.box((-1.1, 0.18), (1.12, 0.27), dark)
    for x in (-0.66, 0.66):
        pen.oval((x, 0.2), (0.23, 0.23), (26, 26, 30))
        pen.oval((x, 0.2), (0.11, 0.11), (190, 192, 198))
    pen.oval((1.06, 0.42), (0.07, 0.07), (255, 246, 200), lit=pen.lamps)
    pen.oval((-1.06, 0.44), (0.05, 0.07), (226, 40, 34), lit=pen.lamps)
    if pen.lamps:
        pen.polygon([(1.08, 0.44), (2.3, 0.62), (2.3, 0.0)], (255, 246, 200), alpha=0.3, lit=True)


def person(canvas: Canvas, scene: Scene, thing: Thing) -> None:
    """Somebody standing or walking, in bright clothes."""
    rng = np.random.default_rng(thing.seed)
    pen = stand(canvas, scene, thing, rng)
    coat, legs = _BRIGHT[rng.integers(len(_BRIGHT))], _BRIGHT[rng.integers(len(_BRIGHT))]
    skin: Colour = ((240, 200, 168), (206, 152, 112), (128, 86, 62))[rng.integers(3)]
    hair: Colour = ((58, 40, 30), (30, 28, 30), (190, 146, 84), (150, 150, 152))[rng.integers(4)]
    _shadow(pen, 0.2)
    stride = rng.uniform(0.02, 0.09)
    legs = mix(legs, (30, 34, 50), 0.5)
    skirt = rng.random() < 0.35
    limb = skin if skirt else legs
    for side in (-1, 1):
        pen.polygon([(side * 0.09, 0.52), (0, 0.52), (side * stride, 0), (side * (stride + 0.06), 0)], limb)
        pen.oval((side * (stride + 0.04), 0.015), (0.055, 0.025), (50, 42, 40))
    pen.polygon([(-0.09, 0.5), (0.09, 0.5), (0.12, 0.8), (0.06, 0.84), (-0.06, 0.84), (-0.12, 0.8)], coat)
    if skirt:
        pen.polygon([(-0.09, 0.56), (0.09, 0.56), (0.17, 0.26), (-0.17, 0.26)], coat)
    swing = rng.uniform(0.05, 0.14)
    sleeve = mix(coat, (10, 10, 30), 0.2)
    pen.line([(-0.11, 0.79), (-0.12 - swing, 0.48)], 0.065, sleeve)
    raised = rng.random() < 0.3
    pen.line([(0.11, 0.79), (0.24, 0.94) if raised else (0.12 + swing, 0.48)], 0.065, sleeve)
    pen.oval((0, 0.92), (0.075, 0.085), skin)
    pen.oval((-0.01, 0.96), (0.08, 0.055), hair)
    if raised and rng.random() < 0.6:
        pen.line([(0.24, 0.86), (0.24, 1.2)], 0.02, _STEEL)
        shade = _BRIGHT[rng.integers(len(_BRIGHT))]
        pen.polygon([(0.24 + 0.34 * np.cos(a), 1.1 + 0.24 * np.sin(a)) for a in np.linspace(0, np.pi, 9)], shade)


def flower(canvas: Canvas, scene: Scene, thing: Thing) -> None:
    """A wide patch of one kind: blossoms on stems, the nearest ones largest."""
    rng = np.random.default_rng(thing.seed)
    kinds: dict[str, tuple[Colour, Colour]] = {
        "poppy": ((222, 52, 40), (40, 24, 30)),
        "daisy": ((252, 252, 250), (244, 196, 50)),
        "tulip": (_BRIGHT[rng.choice([0, 2, 5, 6])], (250, 220, 120)),
        "lavender": ((140, 104, 200), (180, 150, 226)),
        "sunflower": ((250, 196, 40), (104, 64, 32)),
    }
    petal, heart = kinds[thing.variant]
    spots = rng.random((26, 3))
    top = max(scene.shore + 0.02, thing.y - 0.22)
    for x, y, share in spots[np.argsort(spots[:, 1])]:
        foot = ((thing.x + (x - 0.5) * 0.95) * canvas.width, (top + y * (1.0 - top)) * canvas.height)
        pen = Pen(canvas, foot, thing.size * canvas.height * (0.6 + 0.4 * y) * (0.8 + 0.4 * share))
        lean = (share - 0.5) * 0.3
        pen.line([(0, 0), (lean, 0.8)], 0.05, (70, 120, 56))
        pen.polygon([(0, 0.1), (0.2, 0.42), (0.04, 0.3)], (84, 138, 64))
        _blossom(pen, thing.variant, lean, petal, heart)


def _blossom(pen: Pen, kind: str, x: float, petal: Colour, heart: Colour) -> None:
    if kind == "lavender":
        for i in range(5):
            pen.oval((x + 0.02 * (-1) ** i, 0.56 + 0.1 * i), (0.09 - 0.011 * i, 0.07), petal if i % 2 else heart)
    elif kind == "tulip":
        cup = [
            (x - 0.15, 0.98),
            (x - 0.14, 0.76),
            (x, 0.68),
            (x + 0.14, 0.76),
            (x + 0.15, 0.98),
            (x + 0.07, 0.88),
        ]
        pen.polygon([*cup, (x, 1.0), (x - 0.07, 0.88)], petal)
    else:
        radius = 0.11 if kind == "poppy" else 0.09
        for angle in np.arange(5) * 1.2566:
            pen.oval((x + 0.12 * np.cos(angle), 0.84 + 0.12 * np.sin(angle)), (radius, radius), petal)
        pen.oval((x, 0.84), (0.08, 0.08), heart)


def boat(canvas: Canvas, thing: Thing) -> None:
    """A sailing, motor or rowing boat and its image in the water."""
    foot, unit = (thing.x * canvas.width, thing.y * canvas.height), thing.size * canvas.height
    for reflected in (True, False):
        rng = np.random.default_rng(thing.seed)
        pen = Pen(canvas, foot, unit, mirrored=rng.random() < 0.5, reflected=reflected)
        hull = vary(_BRIGHT[rng.integers(len(_BRIGHT))], rng, 10)
        if thing.variant == "sail":
            sail = (250, 248, 240) if rng.random() < 0.65 else _BRIGHT[rng.integers(len(_BRIGHT))]
            pen.line([(0, 0.1), (0, 0.98)], 0.02, (92, 72, 56))
            pen.polygon([(0.03, 0.2), (0.03, 0.95), (0.36, 0.22)], sail)
            pen.polygon([(-0.03, 0.22), (-0.03, 0.86), (-0.28, 0.22)], mix(sail, (120, 130, 160), 0.2))
            pen.polygon([(-0.36, 0.15), (0.42, 0.15), (0.3, 0), (-0.26, 0)], hull)
            pen.box((-0.36, 0.13), (0.41, 0.16), mix(hull, (250, 250, 250), 0.6))
        elif thing.variant == "motor":
            pen.polygon([(-0.45, 0.2), (0.2, 0.18), (0.52, 0.28), (0.38, 0), (-0.4, 0)], hull)
            pen.box((-0.28, 0.19), (0.12, 0.38), (244, 244, 240))
            for x in (-0.24, -0.11, 0.02):
                pen.box((x, 0.26), (x + 0.08, 0.34), _LAMP if pen.lamps else _GLASS, lit=pen.lamps)
            pen.line([(-0.2, 0.38), (-0.2, 0.62)], 0.02, _STEEL)
            pen.polygon([(-0.2, 0.62), (-0.2, 0.52), (-0.36, 0.57)], _BRIGHT[rng.integers(len(_BRIGHT))])
        else:
            pen.polygon([(-0.4, 0.17), (-0.2, 0.12), (0.2, 0.12), (0.42, 0.18), (0.3, 0), (-0.28, 0)], hull)
            pen.polygon([(-0.08, 0.1), (0.08, 0.1), (0.06, 0.3), (-0.06, 0.3)], _BRIGHT[rng.integers(len(_BRIGHT))])
            pen.oval((0, 0.36), (0.06, 0.065), (226, 180, 146))
            pen.line([(-0.02, 0.22), (0.3, 0.04)], 0.025, (128, 96, 66))


def lighthouse(canvas: Canvas, thing: Thing) -> None:
    """A striped tower on a rock; it shines after sunset."""
    rng = np.random.default_rng(thing.seed)
    foot = thing.x * canvas.width, thing.y * canvas.height
    pen = Pen(canvas, foot, thing.size * canvas.height, mirrored=thing.x > 0.5, distance=0.06)
    rock = vary((112, 106, 98), rng, 8)
    outer = [(-2.0, -0.14), (-2.0, 0.16), (-0.8, 0.1), (-0.3, 0.04), (0.2, 0.03), (0.6, -0.02), (1.1, -0.14)]
    pen.polygon(outer, rock)
    pen.polygon(
        [(-2.0, 0.16), (-2.0, 0.09), (-0.8, 0.03), (0.1, 0.0), (0.2, 0.03), (-0.3, 0.05), (-0.8, 0.11)],
        (96, 130, 76),
    )
    stripe = ((206, 52, 46), (46, 92, 150), (60, 62, 70))[rng.integers(3)]
    if pen.lamps:
        pen.polygon([(0, 0.87), (2.6, 1.12), (2.6, 0.78)], (255, 244, 190), alpha=0.25, lit=True)
        pen.polygon([(0, 0.87), (-2.6, 1.06), (-2.6, 0.8)], (255, 244, 190), alpha=0.18, lit=True)
    for i in range(5):
        low, high = 0.02 + 0.152 * i, 0.02 + 0.152 * (i + 1)
        a, b = 0.13 - 0.055 * low, 0.13 - 0.055 * high
        tone: Colour = (248, 246, 240) if i % 2 else stripe
        pen.polygon([(-a, low), (a, low), (b, high), (-b, high)], tone)
        pen.polygon([(a * 0.35, low), (a, low), (b, high), (b * 0.35, high)], mix(tone, (20, 20, 50), 0.25))
    pen.box((-0.12, 0.77), (0.12, 0.8), _STEEL)
    pen.box((-0.06, 0.8), (0.06, 0.92), (255, 240, 170), lit=pen.lamps)
    pen.polygon([(-0.09, 0.92), (0.09, 0.92), (0, 1.02)], stripe)


def bridge(canvas: Canvas, scene: Scene, thing: Thing) -> None:
    """Stone arches or a suspension bridge from side to side of the water, with lamps after sunset."""
    for reflected in (True, False):
        rng = np.random.default_rng(thing.seed)
        level = scene.horizon + (scene.shore - scene.horizon) * rng.uniform(0.25, 0.5)
        pen = Pen(canvas, (0, level * canvas.height), canvas.width, distance=0.08, reflected=reflected)
        deck = thing.size * canvas.height / canvas.width
        if thing.variant == "suspension":
            _suspension(pen, deck, rng)
        else:
            _arches(pen, deck, rng)
        for x in np.arange(0.04, 1, 0.08) if pen.lamps else ():
            pen.oval((x, deck + 0.012), (0.007, 0.007), _LAMP, lit=True)
            pen.oval((x, deck + 0.012), (0.017, 0.017), _LAMP, alpha=0.25, lit=True)


def _suspension(pen: Pen, deck: float, rng: np.random.Generator) -> None:
    steel = ((186, 66, 52), (120, 130, 140), (76, 110, 120))[rng.integers(3)]
    left, right = rng.uniform(0.18, 0.3), rng.uniform(0.7, 0.82)
    rise = rng.uniform(0.13, 0.18)
    t = np.linspace(0, 1, 13)
    for start, end, sag in (
        (left - 0.36, left, t**2),
        (left, right, (2 * t - 1) ** 2),
        (right, right + 0.36, (1 - t) ** 2),
    ):
        cable = [(start + (end - start) * a, deck + 0.012 + rise * s) for a, s in zip(t, sag, strict=True)]
        pen.line(cable, 0.009, steel)
        for x, y in cable:
            pen.line([(x, deck), (x, y)], 0.004, steel)
    for x in (left, right):
        pen.box((x - 0.012, 0), (x + 0.012, deck + 0.012 + rise), steel)
    pen.box((0, deck * 0.8), (1, deck), mix(steel, (30, 30, 40), 0.3))


def _arches(pen: Pen, deck: float, rng: np.random.Generator) -> None:
    stone = vary(((172, 160, 144), (150, 146, 148), (176, 128, 104))[rng.integers(3)], rng, 8)
    count, pillar = int(rng.integers(3, 6)), 0.03
    span = (1 + pillar) / count - pillar
    for i in range(count):
        left = i * (span + pillar)
        arch = [(left + span * (0.5 - 0.5 * np.cos(a)), deck * 0.72 * np.sin(a)) for a in np.linspace(0, np.pi, 15)]
        pen.polygon([*arch, (left + span, deck), (left, deck)], stone)
        pen.box((left + span, -0.004), (left + span + pillar, deck), mix(stone, (40, 40, 60), 0.2))
    pen.box((0, deck * 0.92), (1, deck * 1.08), mix(stone, (250, 245, 235), 0.3))


def road(canvas: Canvas, scene: Scene, thing: Thing) -> None:
    """A road that winds to the horizon, or a street across the foreground."""
    light, width, height = canvas.light, canvas.width, canvas.height
    asphalt = light.shade((104, 104, 112))
    paint = light.shade((250, 244, 220))
    if thing.variant == "street":
        canvas.draw.rectangle((0, 0.855 * height, width, 0.87 * height), fill=light.shade((190, 186, 180)))
        canvas.draw.rectangle((0, 0.87 * height, width, 0.965 * height), fill=asphalt)
        for x in np.arange(-0.05, 1, 0.125) * width:
            canvas.draw.rectangle((x, 0.913 * height, x + 0.06 * width, 0.921 * height), fill=paint)
        return
    ys = np.linspace(scene.horizon + 0.015, 1.02, 34)
    edges = [road_at(thing, scene.horizon, float(y)) for y in ys]
    for share, ink in ((1.12, light.shade((176, 164, 132))), (1.0, asphalt)):
        left = [((centre - half * share) * width, y * height) for (centre, half), y in zip(edges, ys, strict=True)]
        right = [((centre + half * share) * width, y * height) for (centre, half), y in zip(edges, ys, strict=True)]
        canvas.draw.polygon([*left, *right[::-1]], fill=ink)
    for i in range(6, 33, 3):
        dash = [
            (edges[k][0] + side * edges[k][1] * 0.045, ys[k]) for k, side in ((i, -1), (i, 1), (i + 1, 1), (i + 1, -1))
        ]
        canvas.draw.polygon([(x * width, float(y) * height) for x, y in dash], fill=paint)


STANDING = {"animal": animal, "car": car, "flower": flower, "house": house, "person": person, "tree": tree}

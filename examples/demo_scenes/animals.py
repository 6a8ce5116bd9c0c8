"""Animals on the ground and birds in the air."""

from typing import NamedTuple

import numpy as np

from examples.demo_scenes.canvas import Canvas, Colour, Pen, mix, vary
from examples.demo_scenes.scene import Scene, Thing


class _Build(NamedTuple):
    """Proportions of a four-legged animal: units of its height at the shoulder and head."""

    coats: tuple[Colour, ...]
    body: tuple[float, float]  # half-length and half-height
    belly: float  # height above the ground
    head: tuple[float, float]  # centre
    skull: tuple[float, float]  # half-length and half-height
    neck: float
    leg: float
    tail: tuple[float, float]  # from the rump


_BUILDS = {
    "sheep": _Build(
        ((244, 240, 230), (226, 220, 206)),
        (0.5, 0.3),
        0.3,
        (0.6, 0.78),
        (0.17, 0.13),
        0.2,
        0.075,
        (-0.08, -0.1),
    ),
    "cow": _Build(
        ((236, 230, 222), (138, 84, 52), (70, 62, 60)),
        (0.62, 0.27),
        0.36,
        (0.82, 0.8),
        (0.2, 0.13),
        0.22,
        0.1,
        (-0.08, -0.36),
    ),
    "horse": _Build(
        ((128, 78, 48), (104, 76, 60), (206, 190, 168)),
        (0.48, 0.2),
        0.42,
        (0.72, 0.92),
        (0.19, 0.085),
        0.2,
        0.075,
        (-0.16, -0.3),
    ),
    "dog": _Build(
        ((176, 124, 70), (104, 92, 86), (222, 206, 180)),
        (0.5, 0.2),
        0.36,
        (0.62, 0.84),
        (0.24, 0.15),
        0.2,
        0.1,
        (-0.22, 0.28),
    ),
    "deer": _Build(
        ((164, 108, 64), (144, 96, 66)),
        (0.38, 0.16),
        0.42,
        (0.52, 0.86),
        (0.13, 0.075),
        0.13,
        0.05,
        (-0.07, 0.05),
    ),
}


def stand(canvas: Canvas, scene: Scene, thing: Thing, rng: np.random.Generator) -> Pen:
    """A pen for something on the ground, hazier the nearer it is to the horizon."""
    depth = (thing.y - scene.horizon) / (1 - scene.horizon)
    foot = thing.x * canvas.width, thing.y * canvas.height
    distance = max(0.0, 0.32 * (1 - 1.6 * depth))
    return Pen(canvas, foot, thing.size * canvas.height, distance=distance, mirrored=rng.random() < 0.5)


def animal(canvas: Canvas, scene: Scene, thing: Thing) -> None:
    """A sheep, cow, horse, dog or deer, seen from the side."""
    rng = np.random.default_rng(thing.seed)
    build = _BUILDS[thing.variant]
    coat = vary(build.coats[rng.integers(len(build.coats))], rng, 8)
    unit = thing.size * canvas.height * (0.72 if thing.variant == "dog" else 1.0)
    pen = stand(canvas, scene, thing._replace(size=unit / canvas.height), rng)
    pen.oval((0, 0), (build.body[0] * 1.1, 0.07), (20, 26, 30), alpha=0.28)
    (half, thick), middle = build.body, build.belly + build.body[1]
    dark = mix(coat, (20, 16, 24), 0.35)
    face = (60, 52, 50) if thing.variant == "sheep" else coat
    for x, tone in ((-0.72, dark), (0.62, dark), (-0.6, face), (0.74, face)):
        left = x * half - build.leg / 2
        pen.box((left, 0), (left + build.leg, middle), tone)
    if thing.variant == "sheep":
        for angle in np.linspace(0, 2 * np.pi, 10)[:-1]:
            pen.oval((half * 0.72 * np.cos(angle), middle + thick * 0.6 * np.sin(angle)), (0.2, 0.18), coat)
    else:
        shape = [(np.sign(c) * abs(c) ** 0.6, np.sign(s) * abs(s) ** 0.75) for c, s in _circle(20)]
        pen.polygon([(half * x, middle + thick * y * (1 - 0.12 * x)) for x, y in shape], coat)
    pen.oval((0, middle), (half * 0.7, thick * 0.8), coat)
    tip = (-half + build.tail[0], middle + thick * 0.4 + build.tail[1])
    pen.line([(-half * 0.92, middle + thick * 0.5), tip], 0.07, dark if thing.variant != "sheep" else coat)
    shoulder, nape = (
        (half * 0.75, middle + thick * 0.1),
        (build.head[0] - build.skull[0] * 0.3, build.head[1]),
    )
    pen.line([shoulder, nape], build.neck, coat)
    pen.oval(build.head, build.skull, face)
    _markings(pen, thing.variant, build, coat, rng)


def _markings(pen: Pen, kind: str, build: _Build, coat: Colour, rng: np.random.Generator) -> None:
    """Whatever tells the kinds apart: ears, horns, antlers, mane, spots."""
    (x, y), (length, height) = build.head, build.skull
    dark = mix(coat, (20, 16, 24), 0.6)
    middle = build.belly + build.body[1]
    if kind == "cow":
        for a, b in rng.uniform(-0.7, 0.7, (3, 2)):
            pen.oval(
                (a * build.body[0], middle + b * build.body[1] * 0.7),
                (0.16, 0.11),
                mix(coat, (60, 40, 36), 0.8),
            )
        pen.oval((x + length * 0.7, y - 0.02), (0.08, 0.09), (226, 176, 160))
        pen.line([(x - 0.1, y + 0.08), (x - 0.04, y + 0.24)], 0.05, (236, 226, 200))
    elif kind == "horse":
        crest = [
            (build.body[0] * 0.55, middle + 0.16),
            (x - length * 0.9, y + 0.06),
            (x - length * 0.3, y + 0.14),
        ]
        pen.line(crest, 0.1, dark)
    elif kind == "deer":
        for lean in (-0.1, 0.06):
            base, tip = (x - 0.04, y + 0.05), (x - 0.04 + lean, y + 0.3)
            pen.line([base, tip], 0.035, (120, 92, 66))
            pen.line([(x - 0.04 + lean * 0.5, y + 0.17), (x + 0.06 + lean, y + 0.24)], 0.03, (120, 92, 66))
    ear = (x - length * 0.6, y + height * (0.5 if kind in ("dog", "sheep") else 1.0))
    pen.oval(ear, (0.05, 0.11 if kind == "dog" else 0.06), dark)


def _circle(count: int) -> list[tuple[float, float]]:
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return list(zip(np.cos(angles).tolist(), np.sin(angles).tolist(), strict=True))


def bird(canvas: Canvas, thing: Thing) -> None:
    """A bird on the wing: two bent wings and a body."""
    rng = np.random.default_rng(thing.seed)
    foot = thing.x * canvas.width, thing.y * canvas.height
    pen = Pen(canvas, foot, thing.size * canvas.height * 1.5, mirrored=rng.random() < 0.5)
    colour: Colour = (44, 46, 58) if rng.random() < 0.75 else (250, 250, 250)
    lift, droop = rng.uniform(0.12, 0.4), rng.uniform(-0.1, 0.16)
    for side in (-1, 1):
        wing = [
            (0, 0.06),
            (0.32 * side, lift + 0.07),
            (0.78 * side, droop + 0.1),
            (0.34 * side, lift - 0.08),
            (0, -0.09),
        ]
        pen.polygon(wing, colour)
    pen.polygon([(-0.26, 0.0), (0.0, 0.1), (0.24, 0.04), (0.34, 0.0), (0.22, -0.05), (0, -0.1)], colour)

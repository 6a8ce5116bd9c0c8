"""Paint a scene, from the back to the front."""

import numpy as np
from PIL import Image

from examples.demo_scenes import backdrop, things
from examples.demo_scenes.canvas import PALETTES, Canvas, Colour, Light, mix, vary
from examples.demo_scenes.scene import Scene

_GROUNDS: dict[str, Colour] = {
    "coast": (96, 128, 84),
    "lake": (104, 146, 74),
    "mountain": (112, 142, 82),
    "city": (142, 142, 146),
    "village": (116, 158, 78),
    "meadow": (126, 170, 72),
    "forest": (88, 124, 70),
}
_SAND: Colour = (232, 208, 156)
_SNOW: Colour = (238, 244, 252)


_IN_THE_SKY = (
    ("star", backdrop.stars),
    ("moon", backdrop.moon),
    ("rainbow", backdrop.rainbow),
    ("cloud", backdrop.cloud),
)


def paint(scene: Scene, width: int, height: int) -> Image.Image:
    """Paint the scene at this size in pixels."""
    rng = np.random.default_rng(scene.seed)
    palettes = PALETTES[scene.time]
    light = Light(scene.time, palettes[rng.integers(len(palettes))], int(rng.choice([-1, 1])))
    canvas = Canvas(width, height, light)
    soil = vary(_GROUNDS[scene.setting], rng, 9)
    if scene.time == "night":
        soil = mix(soil, (14, 20, 34), 0.66)
    if scene.has("snow", "ground"):
        soil = _SNOW
    _paint_far(canvas, scene, soil)
    _paint_near(canvas, scene, _SAND if scene.of("beach") else soil)
    small = canvas.image.resize((width, height), Image.Resampling.LANCZOS)
    return backdrop.with_grain(small, light, np.random.default_rng([scene.seed, 1]))


def _paint_far(canvas: Canvas, scene: Scene, soil: Colour) -> None:
    """Everything that water can mirror."""
    backdrop.sky(canvas, scene, np.random.default_rng([scene.seed, 2]))
    for label, draw in _IN_THE_SKY:
        for thing in scene.of(label):
            draw(canvas, thing)
    for thing in scene.of("mountain"):
        backdrop.mountains(canvas, scene, thing)
    if scene.setting not in ("coast", "city"):
        backdrop.hills(canvas, scene, soil, np.random.default_rng([scene.seed, 3]))
    if scene.setting == "forest":
        backdrop.treeline(canvas, scene, np.random.default_rng([scene.seed, 4]))
    for thing in scene.of("building"):
        backdrop.skyline(canvas, thing)
    for thing in scene.of("lighthouse"):
        things.lighthouse(canvas, thing)


def _paint_near(canvas: Canvas, scene: Scene, soil: Colour) -> None:
    """Water, ground, and what is on them; birds and snowflakes come last."""
    for thing in scene.of("water"):
        backdrop.water(canvas, scene, thing)
    for thing in scene.of("bridge"):
        things.bridge(canvas, scene, thing)
    for thing in sorted(scene.of("boat"), key=lambda thing: thing.y):
        things.boat(canvas, thing)
    backdrop.ground(canvas, scene, soil, np.random.default_rng([scene.seed, 5]))
    for thing in scene.of("road"):
        things.road(canvas, scene, thing)
    standing = [thing for thing in scene.things if thing.label in things.STANDING]
    for thing in sorted(standing, key=lambda thing: thing.y):
        things.STANDING[thing.label](canvas, scene, thing)
    for thing in scene.of("bird"):
        things.bird(canvas, thing)
    for thing in scene.of("snow"):
        if thing.variant == "ground":
            backdrop.snowfall(canvas, thing)

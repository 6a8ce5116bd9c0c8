"""The built-in demo data set: rendered scenes, a text about each, and correlated labels; it needs no download."""

import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from examples.demo_scenes.painter import paint
from examples.demo_scenes.scene import LABELS, Scene, draw_scene
from examples.demo_scenes.sentence import write_sentence
from examples.demo_scenes.spec import DemoSpec

__all__ = ["LABELS", "DemoItem", "DemoSpec", "PlannedScene", "plan_scene", "render_scene", "render_scenes"]

_JPEG_QUALITY = 88


class DemoItem(NamedTuple):
    """One rendered item."""

    id: str
    text: str
    labels: tuple[str, ...]
    image: bytes
    """The image as a JPEG file."""


class PlannedScene(NamedTuple):
    """An item before its image is painted."""

    id: str
    scene: Scene
    text: str


def plan_scene(spec: DemoSpec, index: int) -> PlannedScene:
    """Draw what item `index` shows and says, from the seed and the index alone."""
    rng = np.random.default_rng([spec.seed, index])
    scene = draw_scene(rng)
    return PlannedScene(f"scene-{index:05d}", scene, write_sentence(scene, spec, rng))


def render_scene(spec: DemoSpec, index: int) -> DemoItem:
    """Render item `index`; the same spec and index give the same bytes."""
    planned = plan_scene(spec, index)
    file = io.BytesIO()
    paint(planned.scene, spec.width, spec.height).save(file, "JPEG", quality=_JPEG_QUALITY)
    return DemoItem(planned.id, planned.text, planned.scene.labels, file.getvalue())


def render_scenes(spec: DemoSpec) -> Iterator[DemoItem]:
    """Render all items in order."""
    return (render_scene(spec, index) for index in range(spec.num_scenes))

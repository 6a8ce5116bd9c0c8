"""Layout `demo`: the built-in demo data set as raw data."""

from pathlib import Path

from components.params import load_spec
from dagnn_core.data.raw import RawData, RawItem
from examples.demo_scenes import DemoSpec, plan_scene, render_scene

SHARD_BYTES = 2 << 20  # seconds of rendering, which is slow


def open_demo(source: Path, options: None = None, *, keep_incomplete: bool = False) -> RawData:
    """Plan the scenes of the demo; each image is painted when asked for.

    Args:
        source: YAML file with the keys of `DemoSpec`.
        options: none: the layout has no section of its own.
        keep_incomplete: no scene is incomplete.

    Raises:
        InputError: the file is missing, or a key in it is wrong.
    """
    spec = load_spec(source, DemoSpec)
    scenes = [plan_scene(spec, index) for index in range(spec.num_scenes)]
    items = [
        RawItem(row, planned.id, planned.text, planned.scene.labels, f"{planned.id}.jpg", "")
        for row, planned in enumerate(scenes, start=1)
    ]
    return RawData(
        source="demo",
        num_rows=spec.num_scenes,
        items=items,
        rejections=[],
        image=lambda item: render_scene(spec, item.row - 1).image,
        image_state=lambda item: spec,
        trusted_images=True,
        shard_bytes=SHARD_BYTES,
    )

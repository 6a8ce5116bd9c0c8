"""Layout `demo`: the built-in demo data set as raw data."""

from dagnn_core.data.raw import RawData, RawItem
from examples.demo_scenes import DemoSpec, plan_scene, render_scene

SHARD_BYTES = 2 << 20  # seconds of rendering, which is slow


def open_demo(spec: DemoSpec) -> RawData:
    """Plan the scenes of the demo; each picture is painted when asked for."""
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
        picture=lambda item: render_scene(spec, item.row - 1).image,
        picture_state=lambda item: spec,
        trusted_pictures=True,
        shard_bytes=SHARD_BYTES,
    )

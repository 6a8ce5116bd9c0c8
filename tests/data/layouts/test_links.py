"""Raw data whose files are all links, as DVC, git-annex and the hub make them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from dagnn_core.config.dataset import DatasetConfig, Mirflickr25kConfig
from dagnn_core.data.formats.links import LinkOutsideError
from dagnn_core.data.layouts import open_layout

CONFIGS = {
    "coco": DatasetConfig(layout="coco"),
    "huggingface": DatasetConfig(layout="huggingface"),
    "mirflickr25k": DatasetConfig(layout="mirflickr25k", mirflickr25k=Mirflickr25kConfig(min_tag_count=5)),
    "nuswide": DatasetConfig(layout="nuswide"),
}


def link_all(source: Path, store: Path, name: Callable[[bytes], str]) -> None:
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    store.mkdir()
    for path in files:
        kept = store / name(path.read_bytes())
        path.rename(kept)
        path.symlink_to(kept)


@pytest.mark.parametrize("layout", CONFIGS)
@pytest.mark.parametrize("place", ["inside", "stored", "outside"])
def test_a_layout_whose_files_are_links(
    request: pytest.FixtureRequest, tmp_path: Path, layout: str, place: str
) -> None:
    source = request.getfixturevalue(layout)
    raw = open_layout(source, CONFIGS[layout])
    assert raw.image is not None
    images = [raw.image(item) for item in raw.items]
    assert all(images)
    store = source / ".store" if place == "inside" else tmp_path / "elsewhere"
    link_all(source, store, lambda content: ("" if place == "stored" else "b") + hashlib.sha256(content).hexdigest())
    linked = open_layout(source, CONFIGS[layout])
    assert linked.items == raw.items and linked.image is not None
    if place == "outside" and layout != "huggingface":  # there the images are in the tables, which the user names
        with pytest.raises(LinkOutsideError, match=r"is a link that leads out of .*; put the file itself in its place"):
            linked.image(linked.items[0])
        return
    assert [linked.image(item) for item in linked.items] == images

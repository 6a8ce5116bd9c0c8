"""Layouts of raw data: one module opens each, found by the name in `dataset.layout`."""

from pathlib import Path

from dagnn_core.config.dataset import LAYOUTS, DatasetConfig
from dagnn_core.data.raw import RawData
from dagnn_core.registry import find


def open_layout(source: Path, config: DatasetConfig) -> RawData:
    """Open raw data as its layout says.

    Args:
        source: the raw data.
        config: the layout, and its options.

    Raises:
        InputError: there is no such layout, or a file, column or label of the data is wrong.
    """
    opener = find(LAYOUTS, config.layout, "dataset.layout")
    options = getattr(config, config.layout, None)
    raw: RawData = opener(source, options, keep_incomplete=config.incomplete == "keep")
    return raw

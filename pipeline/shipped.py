"""The configurations that come with this program: `configs/` of the checkout, or a folder of the installed package."""

from pathlib import Path

CONFIGS = Path("configs")
"""Folder with the user's own, in the current folder; they come before those of the same name that are shipped."""

_PACKAGE = Path(__file__).parent


def find_configs(kind: str = "") -> dict[str, Path]:
    """The configurations by name.

    Args:
        kind: empty, for those that `dagnn params use` takes; `clusters`, for targets.
    """
    shipped = next(folder for folder in (_PACKAGE / CONFIGS, _PACKAGE.parent / CONFIGS) if folder.is_dir())
    folders = (shipped / kind, CONFIGS / kind)
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.yaml"))}

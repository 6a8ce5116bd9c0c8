"""Put values into the text of a `params.yaml`, whose comments and order stay."""

import difflib
import io
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from dagnn_core.config.space import Value

_WIDTH = 1 << 20  # no line is broken


def with_values(text: str, values: Mapping[str, Mapping[str, Value]]) -> str:
    """The text with other values.

    Args:
        text: a valid `params.yaml`.
        values: section -> key -> value; what is missing is added.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = _WIDTH
    content = yaml.load(text) or yaml.map()
    for name, keys in values.items():
        if not content.get(name):
            content[name] = yaml.map()
        section = content[name]
        # behind the preset, or else before the last key: the comment of the last key has the space between sections
        place = list(section).index("preset") + 1 if "preset" in section else max(len(section) - 1, 0)
        for key, value in keys.items():
            if key in section:
                section[key] = value
            else:
                section.insert(place, key, value)
                place += 1
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def diff(before: str, after: str, path: Path) -> str:
    """What changes from one text of a file to the other, as `patch` and `git apply` take it; empty: nothing."""
    old, new = (text.splitlines(keepends=True) for text in (before, after))
    return "".join(difflib.unified_diff(old, new, f"a/{path}", f"b/{path}"))

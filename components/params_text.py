"""Put values into the text of a `params.yaml`, whose comments and order stay."""

import difflib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.tokens import CommentToken

from dagnn_core.config.space import Value

_WIDTH = 1 << 20  # no line is broken


def with_values(text: str, values: Mapping[str, Mapping[str, Value]]) -> str:
    """The text with other values.

    Args:
        text: a valid `params.yaml`, with the ends of lines that its file has.
        values: section -> key -> value; what is missing is added.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = _WIDTH
    content = yaml.load(text.replace("\r\n", "\n")) or yaml.map()
    for name, keys in values.items():
        if not content.get(name):
            content[name] = yaml.map()
        section = content[name]
        # behind the preset, or else before the last key: the comment of the last key has the space between sections
        place = list(section).index("preset") + 1 if "preset" in section else max(len(section) - 1, 0)
        last = next(reversed(section), None)
        for key, value in keys.items():
            if key in section:
                section[key] = value
            else:
                section.insert(place, key, value)
                place += 1
        _move_space(section, last)
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue().replace("\n", "\r\n" if "\r\n" in text else "\n")


def _move_space(section: Any, last: Any) -> None:
    """Have what stands between sections stay behind the last key, if there is a new one: it is a part of a comment."""
    comment = section.ca.items.get(last)
    new = next(reversed(section), None)
    if new == last or not comment or not comment[2]:
        return
    own, _, space = comment[2].value.partition("\n")
    comment[2].value = f"{own}\n"
    section.ca.items[new] = [None, None, CommentToken(f"\n{space}", comment[2].start_mark, None), None]


def diff(before: str, after: str, path: Path) -> str:
    """What changes from one text of a file to the other; empty: nothing.

    `git apply` and `patch -p1` take it in the current folder, or for a file that does not lie in it, in `/`.
    """
    whole = Path(os.path.abspath(path))  # noqa: PTH100  # without `..`, and links stay
    name = str(whole.relative_to(Path.cwd() if whole.is_relative_to(Path.cwd()) else "/"))
    if " " in name:
        name += "\t"  # where it ends
    old, new = (io.StringIO(text).readlines() for text in (before, after))
    lines = difflib.unified_diff(old, new, f"a/{name}", f"b/{name}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)

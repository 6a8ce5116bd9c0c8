"""Damage to files as disks, copies and people do it, drawn by a seed: bits, lengths, bytes, places, values."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damage = Callable[[Path, random.Random], None]

EXTREME_JSON = (
    *("1e999", "-1e999", "NaN", "-Infinity", "9" * 5000, "-1", "0", "1e308", "0.5", "true", "null", '""', '"\\ud800"'),
    *("[]", "{}", '{"": null}', "[" * 2000 + "]" * 2000, '{"a":' * 2000 + "1" + "}" * 2000, f'"{"x" * 5000}"'),
)
"""Texts of JSON values that no reader expects."""


def flip_bit(path: Path, draw: random.Random) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    if content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    _replace(path, bytes(content))


def truncate(path: Path, draw: random.Random) -> None:
    """Cut the end off; of some files nothing is left."""
    content = path.read_bytes()
    _replace(path, content[: draw.choice([0, draw.randrange(len(content) or 1)])])


def insert_bytes(path: Path, draw: random.Random) -> None:
    """Put a few bytes somewhere."""
    content = path.read_bytes()
    at = draw.randrange(len(content) + 1)
    _replace(path, content[:at] + draw.randbytes(draw.randint(1, 9)) + content[at:])


def zero_block(path: Path, draw: random.Random) -> None:
    """Fill a part with zeros, as after a loss of power; the size stays."""
    content = path.read_bytes()
    at = draw.randrange(len(content) or 1)
    end = min(len(content), at + draw.randint(1, 4096))
    _replace(path, content[:at] + bytes(end - at) + content[end:])


def garbage(path: Path, draw: random.Random) -> None:
    """Put bytes of chance in place of the content; the size stays."""
    _replace(path, draw.randbytes(path.stat().st_size))


DAMAGES: dict[str, Damage] = {
    "flip_bit": flip_bit,
    "truncate": truncate,
    "insert_bytes": insert_bytes,
    "zero_block": zero_block,
    "garbage": garbage,
}
"""Damage to one file, by name."""


def swap(first: Path, second: Path) -> None:
    """Let two files change places."""
    content = first.read_bytes()
    _replace(first, second.read_bytes())
    _replace(second, content)


def spoil_json(path: Path, draw: random.Random) -> None:
    """Put an extreme value in place of one that lies anywhere in a JSON file, or remove it; what is left parses."""
    value = json.loads(path.read_text(encoding="utf-8"))
    places = list(_places(value))
    if not places:
        _replace(path, draw.choice(EXTREME_JSON).encode())
        return
    container, key = draw.choice(places)
    if draw.random() < 0.2:
        del container[key]
        _replace(path, json.dumps(value).encode())
        return
    mark = f"mark{draw.getrandbits(64)}"
    container[key] = mark
    _replace(path, json.dumps(value).replace(f'"{mark}"', draw.choice(EXTREME_JSON)).encode())


def damage(path: Path, draw: random.Random) -> str:
    """Damage a file in a way that is drawn, and return which it was."""
    name = draw.choice(list(DAMAGES))
    DAMAGES[name](path, draw)
    return name


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key or index) within a JSON value."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        container = waiting.pop()
        keys = (
            container if isinstance(container, dict) else range(len(container)) if isinstance(container, list) else ()
        )
        for key in keys:
            found.append((container, key))
            waiting.append(container[key])
    return found


def _replace(path: Path, content: bytes) -> None:
    """Write a file that others may share by a hard link, or that is read-only, without touching theirs."""
    mode = path.stat().st_mode
    path.unlink()
    path.write_bytes(content)
    path.chmod(mode)

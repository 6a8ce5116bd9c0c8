"""Templates of pages, with the style that all pages share."""

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

STYLE = Path(__file__).with_name("style.css")


@cache  # compiling takes longer than filling in
def read_template(path: Path) -> Template:
    """Read a template of HTML or Markdown, which may include others in its folder; what it is given is escaped.

    `style` is the style sheet. The filters: `decimals` writes three decimals, `percent` a share, `thousands` groups
    digits, `size` a number of bytes; `plain` takes the meaning from Markdown's special characters.
    """
    environment = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "decimals": "{:.3f}".format,
        "percent": "{:.1%}".format,
        "thousands": "{:,}".format,
        "size": _size,
        "plain": lambda text: re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", " ".join(text.split())),
    }
    environment.globals["zip"] = zip
    environment.globals["style"] = Markup(STYLE.read_text(encoding="utf-8").rstrip())  # noqa: S704 - our own file
    return environment.from_string(path.read_text(encoding="utf-8"))


def _size(num_bytes: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"

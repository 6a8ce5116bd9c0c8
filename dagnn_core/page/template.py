"""Templates of pages, with the style that all pages share."""

from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

STYLE = Path(__file__).with_name("style.css")


def read_template(path: Path) -> Template:
    """Read a template; what it is given is escaped, except in Markdown (`.md.j2`), which escapes by the filter `md`.

    `style` is the style sheet; the filter `figure` writes three decimals.
    """
    environment = Environment(
        autoescape=not path.name.endswith(".md.j2"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = lambda value: f"{value:.3f}"
    environment.globals["style"] = Markup(STYLE.read_text(encoding="utf-8").rstrip())  # noqa: S704 - our own file
    return environment.from_string(path.read_text(encoding="utf-8"))

"""Curves are well-formed SVG in the page's colours, the same text every time, and do not clash with each other."""

import re
from xml.etree import ElementTree

from dagnn_core.reports.evaluation.curves import FADED, SERIES, Curve, draw_curves

CURVES = [Curve("one", [0, 1, 2], [0.2, 0.5, 0.4]), Curve("a < b & c", [0, 1, 2], [0.1, 0.2, 0.9])]


def draw(name: str = "figure") -> str:
    return draw_curves(CURVES, name=name, x_label="epoch", y_label="MAP", mark=1)


def test_svg_is_well_formed_and_follows_the_theme() -> None:
    svg = draw()
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and root.get("aria-label") == "figure"
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"one", "a < b & c", "epoch", "MAP"} <= set(texts)
    assert {"var(--series-1)", "var(--series-2)", "var(--faded)", "var(--line)"} <= set(
        re.findall(r"var\([^)]*\)", svg)
    )
    assert not any(color in svg for color in (FADED, *SERIES))
    assert set(re.findall("#[0-9a-f]{6}", svg)) <= {"#000000"}, "colours that do not follow the theme"


def test_equal_curves_are_equal_text_and_figures_of_a_page_do_not_share_clip_paths() -> None:
    assert draw() == draw()
    clips = [set(re.findall(r'<clipPath id="([^"]+)"', draw(name))) for name in ("one", "two")]
    assert clips[0] and clips[1] and not clips[0] & clips[1]

"""The page about a log of queries."""

import re
from xml.etree import ElementTree

from dagnn_core.reports.query_log.page import HEIGHT, WIDTH, Series, render_page

FINDING = {
    "name": "unknown_words",
    "verdict": "failed",
    "value": 0.25,
    "limit": 0.1,
    "explanation": "share of <words>",
    "examples": ["zeppelin & co"],
}


def page(*series: Series) -> str:
    return render_page(
        "Queries", facts={"log": "a.jsonl"}, findings=[FINDING], times=["day 1", "day 2", "day 3"], series=series
    )


def test_a_series_is_drawn_to_its_scale_with_its_limit() -> None:
    (drawn,) = re.findall(r"<svg.*?</svg>", page(Series("Share", [0.0, 0.5, 1.0], 0.25, "share")), re.DOTALL)
    root = ElementTree.fromstring(drawn)
    (line,) = root.iter("polyline")
    assert line.get("points") == f"0.0,{HEIGHT:.1f} {WIDTH / 2},{HEIGHT / 2} {WIDTH:.1f},0.0"
    (limit,) = root.findall("line[@class='limit']")
    assert float(limit.get("y1", "")) == HEIGHT * 0.75
    assert [title.text for title in root.iter("title")] == ["day 1: 0.0%", "day 2: 50.0%", "day 3: 100.0%"]


def test_gaps_stay_gaps_and_nothing_is_no_chart() -> None:
    html = page(Series("Gap", [1.0, None, 3.0], None, "count"), Series("Nothing", [None] * 3, None, "share"))
    assert html.count("<svg") == 1 and "<polyline" not in html and html.count("<circle") == 2


def test_one_point_and_zeros() -> None:
    html = render_page("Q", facts={}, findings=[], times=["day"], series=[Series("Zero", [0.0], None, "milliseconds")])
    assert html.count("<circle") == 1


def test_the_page_is_self_contained_and_escapes_what_users_wrote() -> None:
    html = page(Series("Latency", [1.25, 2.0, 3.0], 500.0, "milliseconds"))
    assert "share of &lt;words&gt;" in html and "zeppelin &amp; co" in html
    assert "1.2 ms" in html and "0 to 500 ms" in html
    assert "http" not in html.replace("http-equiv", "")

"""What a page is given is escaped, in HTML and in Markdown."""

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from dagnn_core.reports.page.template import read_template


def render(tmp_path: Path, template: str, **values: object) -> str:
    path = tmp_path / "page.j2"
    path.write_text(template, encoding="utf-8")
    return read_template(path).render(**values)


def test_html_is_escaped(tmp_path: Path) -> None:
    assert render(tmp_path, "{{ text }}", text="<b>\"&'") == "&lt;b&gt;&#34;&amp;&#39;"


def test_markdown_has_no_meaning_and_no_line_breaks(tmp_path: Path) -> None:
    text = "a|b\n# [x](y) *c* `d` <script>"
    assert render(tmp_path, "{{ text | plain }}", text=text) == r"a\|b \# \[x\]\(y\) \*c\* \`d\` &lt;script&gt;"


def test_numbers(tmp_path: Path) -> None:
    template = "{{ 0.12345 | decimals }} {{ 0.12345 | percent }} {{ 1234567 | thousands }}"
    assert render(tmp_path, template) == "0.123 12.3% 1,234,567"


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (2048, "2 KiB"), (5 << 20, "5 MiB"), (3 << 30, "3.0 GiB")]
)
def test_sizes(tmp_path: Path, size: int, text: str) -> None:
    assert render(tmp_path, "{{ size | size }}", size=size) == text


def test_what_is_not_given_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="missing"):
        render(tmp_path, "{{ missing }}")

"""The model card: what it says, that it escapes what it is given, and how it is shortened."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dagnn_core.artifacts import Artifact
from dagnn_core.reports.comparison.champion import BesideChampion
from dagnn_core.reports.model_card.model_card import HTML, MARKDOWN, ModelCard, render_model_card, shorten
from dagnn_core.retrieval.bootstrap import Difference

LABELS = ("boat", "<b>sea</b> | tide", "night")
MAPS = ("map_i2t", "map_t2i", "map_mean")
OTHERS = [f"{kind}_{way}_at_{at}" for kind, at in (("map", 50), ("ndcg", 10), ("recall", 10)) for way in ("i2t", "t2i")]
METRICS = {f"{prefix}{name}": value for prefix, value in (("", 0.7), ("cca_", 0.6), ("chance_", 0.3)) for name in MAPS}
METRICS |= {f"{prefix}{name}": 0.5 for prefix in ("", "cca_", "chance_") for name in OTHERS}
METRICS |= {f"{name}_{end}": value for name in MAPS for end, value in (("low", 0.65), ("high", 0.75))}
DATA = {
    "layout": "folder",
    "label_names": list(LABELS),
    "num_rows": 10_010,
    "num_items": 10_000,
    "splits": {"train": 8000, "val": 500, "test": 1500},
    "modalities": {"complete": 9990, "image_only": 10, "text_only": 0},
    "label_counts": {
        split: dict(zip(LABELS, counts, strict=True))
        for split, counts in (("train", (4000, 900, 49)), ("val", (1, 2, 3)), ("test", (700, 800, 5)))
    },
    "rejected": {"no text": 10},
    "raw": {"md5": "b" * 32, "remote": "s3://bucket/dvc", "commit": ""},
}


def artifact(kind: str, content: dict[str, Any], provenance: dict[str, Any]) -> Artifact:
    return Artifact(
        path=Path(kind), kind=kind, content=content, files={}, content_digest=kind[0] * 64, provenance=provenance
    )


@pytest.fixture
def render() -> Callable[..., ModelCard]:
    def make(
        *,
        image: str = "classic",
        licence: str = "CC BY 4.0",
        metrics: dict[str, float] | None = None,
        beside: BesideChampion | None = None,
        **data: Any,
    ) -> ModelCard:
        provenance = {
            "params": {"model": {"hops": 5}, "train": {"lr": 5e-05, "seed": 103}},
            "git": {"commit": "c0ffee" * 6, "dirty": True},
            "packages": {"python": "3.11.2", "torch": "2.13.0"},
            "ancestors": {"dataset": "d" * 64, "raw": "b" * 32},
        }
        model: Any = SimpleNamespace(
            artifact=artifact("model", {"output_dim": 1024}, provenance),
            config=SimpleNamespace(kind="dagnn", preset="best"),
            label_names=LABELS,
            image_encoder=SimpleNamespace(kind=image, dim=4096),
            text_encoder=SimpleNamespace(kind="bow", dim=300),
        )
        report = artifact("report", {"num_test": 1500, "data": DATA | data}, {})
        return render_model_card("scenes", model, report, METRICS | (metrics or {}), licence=licence, beside=beside)

    return make


class Text(HTMLParser):
    """All text of a page, and its tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(markdown: str) -> Text:
    return Text(MarkdownIt("commonmark").enable("table").render(markdown))


def both(card: ModelCard) -> list[str]:
    return [" ".join(page.text.split()) for page in (rendered(card.markdown), Text(card.html))]


def test_both_say_what_it_is_for_how_good_it_is_and_where_it_comes_from(render: Callable[..., ModelCard]) -> None:
    for text in both(render()):
        for words in (
            *("Model card: scenes", "DAGNN (Qian et al., AAAI 2021), preset best", "8,000 items", "with uncommitted"),
            *("decisions about people", "0.700", "0.650 to 0.750", "0.600", "0.300", "1,500 pairs"),
            *("CC BY 4.0", "8,000 train, 500 val, 1,500 test", "10 of 10,010", "no text", "s3://bucket/dvc"),
            *("d" * 64, "m" * 64, "r" * 64, "torch 2.13.0", "5e-05", "fewer than 50 training items"),
            *("10 training items have only an image or only a text", "base64 text", 'load_model("models:/scenes/VERS'),
        ):
            assert words in text
        for absent in ("set is small", "not clearly better", "not stated", "raw data, commit", "commit ,"):
            assert absent not in text


def test_both_say_what_falls_short(render: Callable[..., ModelCard]) -> None:
    sizes = {"train": 300, "val": 500, "test": 1500}
    complete = {"complete": 10_000, "image_only": 0, "text_only": 0}
    card = render(licence="", metrics={"cca_map_mean": 0.66}, splits=sizes, modalities=complete, raw=None)
    for text in both(card):
        assert "not stated (register.data_licence in params.yaml)" in text
        assert "The data set is small: 300 training items." in text
        assert "not clearly better than a linear CCA" in text
        assert "only an image or only" not in text and "s3://" not in text


def test_both_show_the_champion_or_why_they_do_not(render: Callable[..., ModelCard]) -> None:
    beside = BesideChampion(
        champion="scenes/1",
        metrics=dict.fromkeys(MAPS, 0.6789),
        differences={"mean of both": Difference(-0.021, -0.03, -0.0123)},
        page="",
    )
    for text in both(render(beside=beside)):
        assert "champion, scenes/1" in text and "0.679" in text and "mean of both -0.021 (-0.030 to -0.012)" in text
    for text in both(render(beside=BesideChampion.impossible("scenes/1", "other test items"))):
        assert "Not compared with the champion, scenes/1: other test items." in text


def test_a_model_on_precomputed_vectors_takes_vectors(render: Callable[..., ModelCard]) -> None:
    for text in both(render(image="precomputed")):
        assert "text with a text, or image with the JSON text of a list of 4096 numbers" in text


def test_what_it_is_given_is_escaped_and_nothing_comes_from_outside(render: Callable[..., ModelCard]) -> None:
    card = render(licence="<script>alert(1)</script> [x](y)")
    pages = [rendered(card.markdown), Text(card.html)]
    for page in pages:
        assert "<b>sea</b> | tide" in page.text and "<script>alert(1)</script> [x](y)" in page.text
        assert not page.tags & {"script", "b", "img", "link", "iframe"}
    assert "a" not in pages[0].tags
    assert "http" not in card.html


def test_markdown_has_tables_of_metrics_digests_and_labels(render: Callable[..., ModelCard]) -> None:
    html = MarkdownIt("commonmark").enable("table").render(render().markdown)
    tables = re.findall(r"<table>.*?</table>", html, re.DOTALL)
    assert [table.count("<tr>") for table in tables] == [10, 5, 4]
    labels = re.findall(r"<tr>\s*<td>(.*?)</td>", tables[2])
    assert labels == ["boat", "&lt;b&gt;sea&lt;/b&gt; | tide", "night"], "the most frequent first"


def test_equal_input_gives_equal_cards(render: Callable[..., ModelCard]) -> None:
    assert render() == render()


sections = st.lists(st.text(alphabet="ab \n", max_size=60), min_size=1, max_size=8)


@given(sections, st.integers(100, 500))
def test_whole_sections_are_left_out_from_the_end(parts: list[str], limit: int) -> None:
    text = "\n## ".join(parts)
    short = shorten(text, limit)
    assert len(short) <= limit
    if len(text) <= limit:
        assert short == text
        return
    body, found, _ = short.partition("\nThe rest is in")
    assert found and MARKDOWN in short and HTML in short
    whole = ["\n## ".join(parts[:number]).rstrip() for number in range(1, len(parts))]
    assert body.rstrip() in whole or text.startswith(body), "cut within a section only where the first is too long"

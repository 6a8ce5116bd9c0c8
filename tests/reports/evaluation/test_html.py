"""The page shows the right images with the right marks, escapes what it is given, and needs nothing from outside."""

import base64
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dagnn_core.artifacts import Artifact
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.reports.evaluation.analysis import analyse
from dagnn_core.reports.evaluation.html import flat_params, render_report
from dagnn_core.reports.evaluation.measure import Evaluation, LearnedEdges
from dagnn_core.reports.page.thumbnail import THUMBNAIL_PIXELS
from dagnn_core.retrieval.directions import DIRECTIONS
from tests.fixtures.evaluation import NUM_TEST, dataset, make_dataset, make_evaluation

__all__ = ["dataset"]

CONFIG = EvaluateConfig(num_queries=5, num_retrieved=4, seed=1)
HISTORY = [
    {
        "epoch": epoch,
        **{f"loss_{name}": 1 / epoch for name in ("total", "classification", "modality_invariance", "adversarial")},
        **{f"val_map_{direction}": 0.5 + epoch / 10 for direction in (*DIRECTIONS, "mean")},
    }
    for epoch in (1, 2, 3)
]


def render(
    dataset: Dataset,
    evaluation: Evaluation,
    history: Sequence[Mapping[str, float]] = HISTORY,
    config: EvaluateConfig = CONFIG,
) -> str:
    model = Artifact(
        path=Path("model"),
        kind="model",
        content={},
        files={},
        content_digest="c0ffee" * 10,
        provenance={"git": {"commit": "abc123", "dirty": True}, "params": {"train": {"lr": 5e-05}}},
    )
    return render_report(
        evaluation,
        analyse(evaluation, dataset),
        dataset=dataset,
        history=history,
        artifacts=[dataset.artifact, model],
        config=config,
        resources={"model": "61 s, 61 GPU seconds"},
    )


def part(html: str, *ids: str) -> "Page":
    """The parts of a page that begin with these headings."""
    parts = re.split(r'(?=<h2 id=")', html)
    return Page("".join(one for one in parts if one.startswith(tuple(f'<h2 id="{name}"' for name in ids))))


class Page(HTMLParser):
    """Collects what the tests look at."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, css_class: str, tag: str) -> int:
        return sum(name == tag and css_class in attrs.get("class", "").split() for name, attrs in self.tags)


@pytest.fixture(scope="module")
def html(dataset: Dataset) -> str:
    """The page of `make_evaluation`."""
    return render(dataset, make_evaluation(dataset))


def test_every_hit_is_marked_as_its_labels_say(dataset: Dataset, html: str) -> None:
    evaluation = make_evaluation(dataset)
    page = part(html, "text-to-image", "image-to-text")
    labels = dataset.labels[evaluation.rows].astype(int)
    rng = np.random.default_rng(CONFIG.seed)
    relevant = dict.fromkeys(DIRECTIONS, 0)
    shown_own = 0
    for direction, query, gallery in (
        ("t2i", evaluation.text, evaluation.image),
        ("i2t", evaluation.image, evaluation.text),
    ):
        for number in rng.choice(np.arange(1, NUM_TEST), size=5, replace=False):  # item 0 has no label
            cosine = gallery @ query[number] / np.linalg.norm(gallery, axis=1)
            first = np.argsort(-cosine)[:4]
            relevant[direction] += int((labels[first] @ labels[number] > 0).sum())
            shown_own += int(number in first)
    assert 0 < relevant["t2i"] < 20 and 0 < relevant["i2t"] < 20 and shown_own > 0
    counts = [page.count(mark, tag) for tag in ("div", "li") for mark in ("right", "wrong")]
    assert counts == [relevant["t2i"], 20 - relevant["t2i"], relevant["i2t"], 20 - relevant["i2t"]]
    assert page.text.count("its own image") + page.text.count("its own text") == shown_own
    legend = 1  # the page explains both marks once
    assert page.text.count("✓") == sum(relevant.values()) + legend
    assert page.text.count("✗") == 40 - sum(relevant.values()) + legend


def test_the_page_needs_nothing_from_outside_and_escapes_texts(html: str) -> None:
    page = Page(html)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "b-sea"}
    assert "<b>sea</b>" in page.text and "<script>alert(" in page.text, "shown as text"
    links = [attrs[key] for _, attrs in page.tags for key in ("src", "href", "xlink:href") if key in attrs]
    own = ("#", "data:image/jpeg;base64,", "data:text/csv;charset=utf-8;base64,")
    assert links and all(link.startswith(own) for link in links)
    assert "url(http" not in html and "@import" not in html
    assert set(re.findall(r"https?://[^\"'\s<)]*", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_images_become_small_opaque_thumbnails(html: str) -> None:
    page = part(html, "text-to-image", "image-to-text")
    sources = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(sources) == 5 * 4 + 5, "the hits of the texts, and the image queries"
    colors = set()
    for source in sources:
        with Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))) as thumbnail:
            assert thumbnail.format == "JPEG" and thumbnail.size == (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS * 3 // 4)
            color = thumbnail.getpixel((5, 5))
            assert isinstance(color, tuple)
            colors.add(tuple(round(channel / 64) for channel in color))
    assert colors == {(4, 0, 0), (2, 4, 2)}, "red, and half transparent green on white"


def test_data_without_images_shows_ids_and_texts(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", images=None)
    html = render(dataset, make_evaluation(dataset))
    assert "img" not in {tag for tag, _ in Page(html).tags}
    page = part(html, "text-to-image", "image-to-text")
    assert len(re.findall(r"item-\d+: <script>", page.text)) == 5 * 4 + 5


def test_equal_input_gives_the_equal_page(dataset: Dataset, html: str) -> None:
    assert render(dataset, make_evaluation(dataset)) == html


def test_table_labels_and_origin(dataset: Dataset, html: str) -> None:
    evaluation = make_evaluation(dataset)
    page, results = Page(html), part(html, "results")
    assert results.count("best", "td") == 15, "all of the model's metrics"
    assert results.text.count(" 2.00") == 15 and results.text.count(" 1.00") == 15, "ratios to CCA"
    assert [results.text.count(title) for title in ("NDCG@10, Jaccard", "mean MAP")] == [2, 1]
    for name in ("map_i2t", "ndcg_i2t", "ndcg_jaccard_t2i_at_10"):
        assert f"{evaluation.methods[0].metrics[name]:.3f}" in page.text
    low, high = evaluation.intervals["map_i2t"]
    assert 0 < low < evaluation.methods[0].metrics["map_i2t"] < high < 1
    assert f"95 % interval {low:.3f} to {high:.3f}" in page.text
    assert "11 test pairs" in page.text and "(1 without a label left out)" in page.text
    assert part(html, "labels").count("bar", "div") == 3, "no test item has the label `never`"
    assert "abc123" in page.text and "with uncommitted changes" in page.text and "5e-05" in page.text
    assert dataset.artifact.content_digest in page.text
    assert "model used61 s, 61 GPU seconds" in page.text


def test_parameters_are_flat_and_those_of_other_layouts_are_left_out(dataset: Dataset) -> None:
    layouts = {"layout": "folder", "folder": {"table": "a.csv"}, "coco": {"parts": ["mini"]}, "seed": 103}
    read = replace(dataset.artifact, provenance={"params": {"dataset": layouts}})
    assert flat_params([read]) == {"dataset": {"layout": "folder", "folder.table": "a.csv", "seed": 103}}


def numbers(page: Page, file: str) -> list[list[str]]:
    """The rows of a chart's CSV file."""
    [uri] = {attrs["href"] for tag, attrs in page.tags if tag == "a" and attrs.get("download") == file}
    return list(csv.reader(io.StringIO(base64.b64decode(uri.partition("base64,")[2]).decode())))


def test_every_chart_has_its_numbers(dataset: Dataset) -> None:
    evaluation = make_evaluation(dataset)
    edges = np.arange(16, dtype=np.float32).reshape(4, 4) / 16
    page = Page(render(dataset, replace(evaluation, learned_edges=LearnedEdges(edges, edges.T))))
    charts = sum(tag == "svg" for tag, _ in page.tags)
    files = [attrs["download"] for tag, attrs in page.tags if tag == "a" and "download" in attrs]
    matrices = {"confusions.csv", "label_graph_before.csv", "label_graph_after.csv"}
    assert charts == 9 and matrices | {"space.csv", "labels.csv", "reliability.csv"} <= set(files)
    assert len(set(files)) == charts + len(matrices) + 1
    losses = numbers(page, "training_loss_by_epoch.csv")
    assert losses == [["epoch", "total"], ["1", "1.0"], ["2", "0.5"], ["3", str(1 / 3)]]
    rates = numbers(page, "learning_rate_by_epoch.csv")
    assert [row[1] for row in rates[1:]] == ["5e-05"] * 3
    labels = {row[0]: row for row in numbers(page, "labels.csv")}
    assert set(labels) == {"label", "boat", "<b>sea</b>", "night"}
    assert [float(cell) for cell in labels["boat"][5:]] == pytest.approx([0.25])
    before = numbers(page, "label_graph_before.csv")
    assert before[0] == ["", *dataset.label_names] and [float(cell) for cell in before[2][1:]] == edges[1].tolist()
    reliable = numbers(page, "reliability.csv")
    assert reliable[3] == ["image", str(int((dataset.labels[evaluation.rows] == 0).sum())), "0.25", "0.0"]
    assert [row[0] for row in numbers(page, "space.csv")[1:]] == [f"item-{number}" for number in range(3, 15)] * 2


def test_the_hardest_queries_and_the_most_confident_mistakes(dataset: Dataset, html: str) -> None:
    evaluation = make_evaluation(dataset)
    page = part(html, "failures")
    for direction in DIRECTIONS:
        lowest = np.sort(evaluation.average_precision[direction])[:4]
        for value in lowest:
            assert f"average precision {value:.3f}" in page.text
        first = evaluation.first[direction]
        wrong = ~first.relevant[:, :10] & (first.num_relevant > 0)[:, None]
        surest = np.sort(np.where(wrong, first.cosine[:, :10], -2).max(axis=1))[::-1][:6]
        for cosine in surest:
            assert f"cosine {cosine:.3f}" in page.text
    assert page.count("mistake", "div") == 12


@pytest.mark.slow
def test_discriminators_many_terms_and_closed_forms(dataset: Dataset) -> None:
    evaluation = make_evaluation(dataset)
    terms = {f"loss_term_{number}": 0.1 for number in range(7)}
    accuracies = {"discriminator_accuracy_image": 0.6, "discriminator_accuracy_text": 0.4, "gradient_norm": 3.0}
    page = Page(render(dataset, evaluation, [entry | terms | accuracies for entry in HISTORY]))
    for title in ("Terms of the loss, 2", "Accuracy of the discriminators", "Gradient norm, last step"):
        assert title in page.text
    assert numbers(page, "accuracy_of_the_discriminators_by_epoch.csv")[1] == ["1", "0.6", "0.4"]
    closed = [{name: value for name, value in HISTORY[0].items() if not name.startswith("loss_")}]
    assert "Training loss" not in Page(render(dataset, evaluation, closed)).text


def test_a_model_without_probabilities_and_results_without_a_mistake(dataset: Dataset) -> None:
    evaluation = make_evaluation(dataset)
    perfect = {
        direction: first._replace(relevant=np.ones_like(first.relevant))
        for direction, first in evaluation.first.items()
    }
    page = Page(render(dataset, replace(evaluation, probabilities={}, first=perfect, protocols=())))
    assert "This model gives no calibrated label probabilities" in page.text
    assert "None: every one of the first 10 results is relevant." in page.text
    assert "No wrong result is among the first 10 of any query." in page.text
    assert "Other protocols" not in page.text


def test_protocols_print_their_cutoffs(html: str) -> None:
    page = part(html, "results")
    assert re.search(r"test split\s*image → text\s*11\s*12\s*@5 0\.250\s*@12 0\.500", page.text)


@pytest.mark.slow
def test_images_that_do_not_compress_become_smaller_so_that_the_page_stays_below_5_megabytes(tmp_path: Path) -> None:
    def noise(number: int) -> bytes:
        stream = io.BytesIO()
        pixels = np.random.default_rng(number).integers(0, 256, (300, 300, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream, format="PNG")
        return stream.getvalue()

    dataset = make_dataset(tmp_path / "dataset", images=noise)
    config = EvaluateConfig(num_queries=12, num_retrieved=12)
    page = render(dataset, make_evaluation(dataset), config=config)
    assert 2_000_000 < len(page.encode()) <= 5_000_000

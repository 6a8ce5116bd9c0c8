"""The page shows the right images with the right marks, escapes what it is given, and needs nothing from outside."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dagnn_core.artifacts import Artifact, write_artifact
from dagnn_core.baselines.cca import SelectedCCA, fit_cca
from dagnn_core.config.evaluate import EvaluateConfig
from dagnn_core.data.dataset import Dataset, Item
from dagnn_core.data.ingest.writer import DatasetWriter
from dagnn_core.reports.evaluation.html import render_report
from dagnn_core.reports.evaluation.measure import Evaluation, Method, map_intervals
from dagnn_core.reports.page.thumbnail import THUMBNAIL_PIXELS
from dagnn_core.retrieval.directions import DIRECTIONS
from dagnn_core.retrieval.metrics import RECALL_STEPS, mean_scores, precision_recall, score_queries

LABELS = ("boat", "<b>sea</b>", "night", "never")
NUM_TEST = 12
CONFIG = EvaluateConfig(num_queries=5, num_retrieved=4, seed=1)
HISTORY = [
    {
        "epoch": epoch,
        **{f"loss_{name}": 1 / epoch for name in ("total", "classification", "modality_invariance", "adversarial")},
        **{f"val_map_{direction}": 0.5 + epoch / 10 for direction in (*DIRECTIONS, "mean")},
    }
    for epoch in (1, 2, 3)
]


def make_image(color: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGBA", (400, 300), color).save(stream, format="PNG")
    return stream.getvalue()


def make_dataset(path: Path, *, images: bool) -> Dataset:
    """Three training items, then the test items; labels in a fixed pattern; the first test item has none."""
    provenance = {"ancestors": {}, "params": {"dataset": {"source": "<script>"}}}
    with write_artifact(path, kind="dataset", provenance=provenance) as draft:
        with DatasetWriter(draft.path, LABELS) as writer:
            for number in range(NUM_TEST + 3):
                labels = (
                    [name for bit, name in enumerate(LABELS[:3]) if (number % 7 + 1) >> bit & 1] if number != 3 else []
                )
                image = make_image("red" if number % 2 else "#00ff0080") if images else None
                text = f"<script>alert({number})</script>"
                writer.add(Item(f"item-{number}", text, labels, image, "", "train" if number < 3 else "test"))
            writer.write_rejected([])
        draft.content = writer.content
    return Dataset.read(path)


def make_evaluation(dataset: Dataset) -> Evaluation:
    rng = np.random.default_rng(0)
    rows = np.flatnonzero(dataset.splits == "test")
    labels = dataset.labels[rows]
    image, text = (rng.normal(size=(NUM_TEST, 3)).astype(np.float32) for _ in range(2))
    own = np.arange(NUM_TEST)
    scores = {
        "i2t": score_queries(image, text, labels, labels, partners=own),
        "t2i": score_queries(text, image, labels, labels, partners=own),
    }
    metrics = mean_scores(scores["i2t"], scores["t2i"])
    precision = {
        "i2t": precision_recall(image, text, labels, labels),
        "t2i": precision_recall(text, image, labels, labels),
    }
    cca = fit_cca(image, text, regularization=1.0)
    average_precision = {direction: scores[direction].average_precision for direction in DIRECTIONS}
    half = {name: value / 2 for name, value in metrics.items()}
    return Evaluation(
        methods=(
            Method("model", "", metrics, precision),
            Method("CCA", "cca_", half, precision),
            Method("chance", "chance_", half, dict.fromkeys(DIRECTIONS, np.full(RECALL_STEPS + 1, 0.5))),
        ),
        baseline=SelectedCCA(cca, 1.0, 3, 2, 0.5),
        rows=rows,
        image=image,
        text=text,
        average_precision=average_precision,
        intervals=map_intervals(average_precision),
    )


def render(dataset: Dataset, evaluation: Evaluation) -> str:
    model = Artifact(
        path=Path("model"),
        kind="model",
        content={},
        files={},
        content_digest="c0ffee" * 10,
        provenance={"git": {"commit": "abc123", "dirty": True}, "params": {"train": {"lr": 5e-05}}},
    )
    return render_report(
        evaluation, dataset=dataset, history=HISTORY, artifacts=[dataset.artifact, model], config=CONFIG
    )


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
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("report") / "dataset", images=True)


def test_every_hit_is_marked_as_its_labels_say(dataset: Dataset) -> None:
    evaluation = make_evaluation(dataset)
    page = Page(render(dataset, evaluation))
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


def test_the_page_needs_nothing_from_outside_and_escapes_texts(dataset: Dataset) -> None:
    html = render(dataset, make_evaluation(dataset))
    page = Page(html)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "b-sea"}
    assert "<b>sea</b>" in page.text and "<script>alert(" in page.text, "shown as text"
    links = [attrs[key] for _, attrs in page.tags for key in ("src", "href", "xlink:href") if key in attrs]
    assert links and all(link.startswith(("#", "data:image/jpeg;base64,")) for link in links)
    assert "url(http" not in html and "@import" not in html
    assert set(re.findall(r"https?://[^\"'\s<)]*", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_images_become_small_opaque_thumbnails(dataset: Dataset) -> None:
    page = Page(render(dataset, make_evaluation(dataset)))
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
    dataset = make_dataset(tmp_path / "dataset", images=False)
    page = Page(render(dataset, make_evaluation(dataset)))
    assert "img" not in {tag for tag, _ in page.tags}
    assert len(re.findall(r"item-\d+: <script>", page.text)) == 5 * 4 + 5


def test_equal_input_gives_the_equal_page(dataset: Dataset) -> None:
    evaluation = make_evaluation(dataset)
    assert render(dataset, evaluation) == render(dataset, evaluation)


def test_table_labels_and_origin(dataset: Dataset) -> None:
    evaluation = make_evaluation(dataset)
    page = Page(render(dataset, evaluation))
    assert page.count("best", "td") == 15, "all of the model's metrics"
    assert page.text.count(" 2.00") == 15 and page.text.count(" 1.00") == 15, "ratios to CCA"
    assert [page.text.count(title) for title in ("NDCG@10, Jaccard", "mean MAP")] == [2, 1]
    for name in ("map_i2t", "ndcg_i2t", "ndcg_jaccard_t2i_at_10"):
        assert f"{evaluation.methods[0].metrics[name]:.3f}" in page.text
    low, high = evaluation.intervals["map_i2t"]
    assert 0 < low < evaluation.methods[0].metrics["map_i2t"] < high < 1
    assert f"95 % interval {low:.3f} to {high:.3f}" in page.text
    assert "11 test pairs" in page.text and "(1 without a label left out)" in page.text
    assert page.count("bar", "div") == 3, "no test item has the label `never`"
    assert "abc123" in page.text and "with uncommitted changes" in page.text and "5e-05" in page.text
    assert dataset.artifact.content_digest in page.text

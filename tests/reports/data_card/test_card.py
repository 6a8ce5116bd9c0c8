"""The data card is right, deterministic, self-contained and escaped, and suits data without images."""

import base64
import io
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dagnn_core.artifacts import write_artifact
from dagnn_core.data.dataset import KIND, Dataset, Item, Rejection
from dagnn_core.data.ingest.writer import DatasetWriter
from dagnn_core.reports.data_card.card import MAX_TEXT, write_card
from dagnn_core.reports.data_card.facts import MAX_BINS, NUM_SAMPLES, gather_facts
from dagnn_core.reports.data_card.matrix import draw_matrix, order_labels
from dagnn_core.reports.page.thumbnail import THUMBNAIL_PIXELS

LABELS = ("boat", '<b>"sea"</b>', "猫 $x$ | _y_")
COPIES = {
    "rule": "group",
    "near_distance": 4,
    "drawn_items": 0,
    "groups": 0,
    "items": 0,
    "largest_group": 0,
    "dropped": 0,
}
HOSTILE = "<script>alert('x')</script> \"quoted\" & 猫 | `code`\n# heading"


def encode(number: int, size: tuple[int, int] = (300, 200), kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (number % 256, 80, 160)).save(stream, format=kind)
    return stream.getvalue()


def make_items(count: int = 50, *, images: bool = True) -> list[Item]:
    return [
        Item(
            f"item-{number}",
            f"{HOSTILE} {number} {'word ' * (number % 7)}",
            [LABELS[0], *(LABELS[1:2] if number % 2 else ()), *(LABELS[2:] if number % 3 == 0 else ())],
            encode(number) if images else None,
            f"{number}.jpg" if images else "",
            ("train", "train", "train", "val", "test")[number % 5],
            has_image=images,
        )
        for number in range(count)
    ]


def write(
    out: Path,
    items: Sequence[Item],
    *,
    labels: Sequence[str] = LABELS,
    vectors: bool = False,
    rejections: Sequence[Rejection] = (),
    copies: dict[str, str | int] | None = None,
) -> Dataset:
    with write_artifact(out, kind=KIND, provenance={}) as draft:
        with DatasetWriter(draft.path, labels) as writer:
            for item in items:
                writer.add(item)
            writer.write_rejected(rejections)
            if vectors:
                writer.write_vectors("image", np.ones((1, 7), np.float16), np.zeros(len(items), np.int64))
        draft.content = writer.content | {
            "layout": "folder",
            "num_rows": len(items) + len(rejections),
            "dropped_labels": {"<rare>": 2},
            "copies": COPIES | (copies or {}),
        }
        write_card(Dataset.of(draft.so_far(KIND)))
    return Dataset.read(out, verify=True)


def files(dataset: Dataset) -> dict[str, bytes]:
    return {name: dataset.artifact.file(name).read_bytes() for name in dataset.artifact.files if "card" in name}


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(dataset: Dataset) -> Page:
    return Page(files(dataset)["card.html"].decode())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write(tmp_path_factory.mktemp("card") / "dataset", make_items(), rejections=[Rejection(3, "x", "no label")])


def test_equal_content_gives_equal_bytes(dataset: Dataset, tmp_path: Path) -> None:
    again = write(tmp_path / "again", make_items(), rejections=[Rejection(3, "x", "no label")])
    assert files(again) == files(dataset)
    assert again.artifact.content_digest == dataset.artifact.content_digest


def test_the_order_of_the_items_changes_the_digests_alone(dataset: Dataset, tmp_path: Path) -> None:
    shuffled = write(tmp_path / "shuffled", make_items()[::-1], rejections=[Rejection(3, "x", "no label")])
    one, other = files(dataset), files(shuffled)
    assert {name for name in one if one[name] != other[name]} <= {"card.html", "card.md"}

    def without_digests(page: bytes) -> str:
        return re.sub(r"[0-9a-f]{12,64}|\d+ KiB", "", page.decode())

    for name in ("card.html", "card.md"):
        assert without_digests(one[name]) == without_digests(other[name])


def test_nothing_is_loaded_from_outside_and_texts_are_escaped(dataset: Dataset) -> None:
    html = files(dataset)["card.html"].decode()
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "b"}
    assert "<script>alert('x')</script> \"quoted\" & 猫" in page.text and '<b>"sea"</b>' in page.text
    links = [attrs[key] for _, attrs in page.tags for key in ("src", "href") if key in attrs]
    assert all(link.startswith(("#", "data:image/")) for link in links)
    assert not re.search(r"https?://|url\(|@import", html)
    targets = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {link[1:] for link in links if link.startswith("#")} == targets, "every section can be jumped to"
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")


def test_markdown_shows_the_same_images_and_texts(dataset: Dataset) -> None:
    markdown = files(dataset)["card.md"].decode()
    linked = re.findall(r"\]\(([^)]+)\)", markdown)
    assert sorted(linked) == sorted(name for name in files(dataset) if name.startswith("card/"))
    assert len(linked) == NUM_SAMPLES + 1
    assert "<script>" not in markdown and "<b>" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("| ![")]
    assert len(rows) == NUM_SAMPLES and all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)
    assert r"| 猫 $x$ \| \_y\_ |" in markdown.replace(r"\$", "$")
    assert "\n\n\n" not in markdown, "no gaps"


def test_samples_are_small_images_of_training_items(dataset: Dataset) -> None:
    page = page_of(dataset)
    images = [attrs for tag, attrs in page.tags if tag == "img" and attrs["alt"].startswith("Image of item")]
    assert len(images) == NUM_SAMPLES
    train = {dataset.ids[row] for row in dataset.rows("train")}
    assert {attrs["alt"].removeprefix("Image of item ") for attrs in images} <= train
    for attrs in images:
        with Image.open(io.BytesIO(base64.b64decode(attrs["src"].split(",", 1)[1]))) as image:
            assert max(image.size) == THUMBNAIL_PIXELS


def test_counts(dataset: Dataset) -> None:
    page = page_of(dataset)
    for text in ("50", "30 train · 10 val · 10 test", "1.8 an item on average", "of 51", "no label", "<rare> (2)"):
        assert text in page.text
    assert "30 · 10 · 10" in page.text, "the label boat"
    assert "50 PNG" in page.text and "median 300" in page.text


def test_copies_across_splits(tmp_path: Path) -> None:
    items = make_items()
    items[3] = items[3]._replace(image=items[0].image)
    items[1] = items[1]._replace(text=items[2].text)
    dataset = write(tmp_path / "dataset", items)
    images, texts = gather_facts(dataset, seed=0).overlaps
    assert (images.what, images.num_items, images.within, images.across) == ("images", 50, 0, 2)
    assert images.examples == [(("item-0", "train"), ("item-3", "val"))]
    assert (texts.within, texts.across, texts.examples) == (1, 0, [])
    assert "item-0 (train) = item-3 (val)" in page_of(dataset).text
    assert r"item\-0 (train) = item\-3 (val)" in files(dataset)["card.md"].decode()


@pytest.mark.parametrize("vectors", [False, True])
def test_data_without_images(tmp_path: Path, vectors: bool) -> None:
    dataset = write(tmp_path / "dataset", make_items(images=False), vectors=vectors)
    page = page_of(dataset)
    assert [attrs["alt"] for tag, attrs in page.tags if tag == "img"] == [
        "Matrix of the conditional probabilities of 3 labels"
    ]
    assert ("7 dimensions, float16" in page.text) == vectors
    assert [name for name in files(dataset) if name.startswith("card/")] == ["card/labels.png"]
    assert "| id | text | labels |" in files(dataset)["card.md"].decode()


def test_items_without_text_and_one_label(tmp_path: Path) -> None:
    items = [
        Item(f"i{number}", "", ["only"], encode(number, (30, 20 + number)), "", split, has_text=False)
        for number, split in enumerate(["train", "train", "val", "test"])
    ]
    dataset = write(tmp_path / "dataset", items, labels=["only"])
    facts = gather_facts(dataset, seed=0)
    assert facts.text_lengths is None
    assert facts.images is not None
    assert (facts.images.smallest, facts.images.largest) == ((30, 20), (30, 23))
    assert facts.images.formats == {"PNG": 4}
    page = page_of(dataset)
    assert "no text" in page.text and "Words per text" not in page.text
    assert "card/labels.png" not in dataset.artifact.files


def test_long_texts_are_cut(tmp_path: Path) -> None:
    items = [item._replace(text="x" * 10_000) for item in make_items(10)]
    dataset = write(tmp_path / "dataset", items)
    assert "x" * (MAX_TEXT - 1) + "…" in page_of(dataset).text
    assert "x" * MAX_TEXT not in page_of(dataset).text


def test_text_lengths(tmp_path: Path) -> None:
    lengths = list(range(1, 101)) * 10 + [5000]
    items = [
        Item(str(number), "w " * length, LABELS[:1], None, "", "train", has_image=False)
        for number, length in enumerate(lengths)
    ]
    found = gather_facts(write(tmp_path / "dataset", items), seed=0).text_lengths
    assert found is not None
    assert found.by_split.keys() == {"train"}
    assert found.by_split["train"].quantiles == [1, 26, 51, 76, 96, 5000]
    assert len(found.bin_names) == len(found.bin_starts) == len(found.by_split["train"].bins) <= MAX_BINS
    assert found.bin_names[0] == "1-7" and found.bin_names[-1] == "99+"
    assert sum(found.by_split["train"].bins) == pytest.approx(1)
    assert found.by_split["train"].bins[-1] == pytest.approx(21 / 1001)


def test_labels_that_go_together_are_neighbours() -> None:
    conditional = np.full((6, 6), 0.05)
    for pair in ((0, 3), (1, 5), (2, 4)):
        conditional[pair] = conditional[pair[::-1]] = 0.9
    order = order_labels(conditional)
    assert sorted(order) == list(range(6))
    assert {frozenset(order[start : start + 2]) for start in (0, 2, 4)} == {
        frozenset(pair) for pair in ((0, 3), (1, 5), (2, 4))
    }


@pytest.mark.parametrize("num_labels", [2, 24, pytest.param(120, marks=pytest.mark.slow)])
def test_matrices_of_any_size(tmp_path: Path, num_labels: int) -> None:
    conditional = np.random.default_rng(0).random((num_labels, num_labels))
    draw_matrix(
        tmp_path / "one.png", [f"label {'long ' * (number % 9)}{number}" for number in range(num_labels)], conditional
    )
    with Image.open(tmp_path / "one.png") as image:
        assert image.size[0] < 3200 and "Software" not in image.info


@pytest.mark.parametrize(
    ("copies", "expected"),
    [
        ({}, "The data names the splits, so that copies stay where they are."),
        ({"drawn_items": 50, "rule": "keep"}, "of 50 items were drawn (dataset.copies: keep), each by itself: copies"),
        (
            {"drawn_items": 50},
            "(dataset.copies: group); none of their images is identical or near-identical to another",
        ),
        (
            {"drawn_items": 1234, "groups": 2, "items": 5, "largest_group": 3},
            "identical or near-identical to another one, in 2 groups of up to 3: each group is in one split.",
        ),
        (
            {"drawn_items": 50, "rule": "drop", "groups": 2, "items": 5, "largest_group": 3, "dropped": 3},
            "in 2 groups of up to 3: all but the first of each group were dropped (3 items).",
        ),
    ],
)
def test_the_rule_for_copies_is_on_the_card(tmp_path: Path, copies: dict[str, str | int], expected: str) -> None:
    dataset = write(tmp_path / "out", make_items(5), copies=copies)
    assert expected in dataset.artifact.file("card.html").read_text()
    assert expected in dataset.artifact.file("card.md").read_text().replace("\\", "")

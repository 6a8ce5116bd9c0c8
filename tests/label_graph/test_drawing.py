import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dagnn_core.label_graph import drawing
from dagnn_core.label_graph.cooccurrence import conditional_probabilities, count_cooccurrences
from dagnn_core.label_graph.placement import bounding_box, find_communities, place_labels


def random_labels(num_labels, density=0.3, num_items=200):
    drawn = np.random.default_rng(num_labels).random((num_items, num_labels)) < density
    return np.concatenate([drawn, np.eye(num_labels)]).astype(np.uint8)


def draw(path, labels, names, threshold=0.4):
    counts, label_counts = count_cooccurrences(labels)
    drawing.draw_label_graph(
        path,
        label_names=names,
        label_counts=label_counts,
        conditional=conditional_probabilities(counts, label_counts),
        threshold=threshold,
        listener="a",
        num_items=len(labels),
    )
    with Image.open(path) as image:
        image.load()
        return image


def test_communities_are_the_groups_of_the_edges_and_the_labels_without_one():
    conditional = np.zeros((7, 7))
    for i, j in [(0, 2), (2, 4), (4, 0), (1, 5)]:
        conditional[i, j] = 0.9
    conditional[3, 6] = 0.3
    assert find_communities(conditional, 0.4) == [[0, 2, 4], [1, 5], [3, 6]]
    assert find_communities(np.zeros((2, 2)), 0.4) == [[0, 1]]


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 1000))
def test_no_box_lies_over_another_and_communities_stay_apart(num_labels, num_communities, seed):
    rng = np.random.default_rng(seed)
    boxes = rng.uniform((30, 40), (140, 70), (num_labels, 2))
    affinity = rng.random((num_labels, num_labels)) * (rng.random((num_labels, num_labels)) < 0.2)
    member_of = rng.integers(0, num_communities, num_labels)
    communities = [np.flatnonzero(member_of == number).tolist() for number in np.unique(member_of)]
    positions = place_labels(communities, boxes, affinity + affinity.T)

    corners = [(positions - boxes / 2, positions + boxes / 2)]
    around = [bounding_box(positions[members], boxes[members]) for members in communities]
    corners.append((np.array([low for low, _ in around]), np.array([high for _, high in around])))
    for low, high in corners:
        overlap = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
        np.fill_diagonal(overlap[..., 0], -1)
        assert not (overlap > 0.02).all(axis=2).any()


def test_equal_input_gives_equal_bytes(tmp_path):
    labels, names = random_labels(5), [f"label {number}" for number in range(5)]
    draw(tmp_path / "first.png", labels, names)
    draw(tmp_path / "second.png", labels, names)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    draw(tmp_path / "third.png", labels, names, threshold=0.3)
    assert (tmp_path / "first.png").read_bytes() != (tmp_path / "third.png").read_bytes()


def test_the_page_grows_with_the_number_of_labels(tmp_path):
    widths = [
        draw(
            tmp_path / f"{size}.png", random_labels(size, density=0.05), [f"label {number}" for number in range(size)]
        ).width
        for size in (4, 30)
    ]
    assert widths[0] < widths[-1]
    assert widths[0] >= 1200
    assert widths[-1] <= 6000


@pytest.mark.parametrize(
    ("labels", "names", "threshold"),
    [
        (np.ones((3, 1)), ["only"], 0.4),
        (np.eye(3), ["no", "edge", "at all"], 0.4),
        (np.ones((3, 3)), ["always", "all", "together"], 1.0),
        (np.array([[1, 1], [1, 0], [0, 1]]), ["$price$", "a name of very many words " * 20], 0.05),
    ],
    ids=["one label", "no edge", "threshold 1", "odd names"],
)
def test_unusual_graphs_are_drawn(tmp_path, labels, names, threshold):
    image = draw(tmp_path / "graph.png", labels.astype(np.uint8), names, threshold)
    assert image.width < 4000
    assert len(image.convert("RGB").getcolors(1 << 24)) > 10


def test_of_very_many_labels_the_most_frequent_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "MAX_LABELS", 6)
    labels = np.concatenate([np.eye(9), np.eye(9)[3:]]).astype(np.uint8)
    names = ["rare", "rarer", "rarest", "a", "b", "c", "d", "e", "f"]
    draw(tmp_path / "all.png", labels, names)
    draw(tmp_path / "other.png", labels, ["x", "y", "z", *names[3:]])
    draw(tmp_path / "another.png", labels, [*names[:8], "x"])
    drawn = [(tmp_path / f"{name}.png").read_bytes() for name in ("all", "other", "another")]
    assert drawn[0] == drawn[1] != drawn[2]

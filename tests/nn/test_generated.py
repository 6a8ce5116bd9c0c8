"""Generated classifiers: new rows of the graph by their definition, trained labels as they were, rankings by p·q."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import parse_section
from dagnn_core.label_graph.cooccurrence import normalize_adjacency
from dagnn_core.nn.dagnn import DAGNN
from dagnn_core.nn.label_gnn import LabelGNN
from dagnn_core.nn.label_graphs import GraphTensors

SMALL = {"preset": "best", "embedding_dim": 8, "hops": 2}
NUM_LABELS, NUM_FURTHER, THRESHOLD = 5, 3, 0.4


def make_graph(self_loop: float = 1.0) -> GraphTensors:
    rng = np.random.default_rng(0)
    adjacency = 0.5 * self_loop * (rng.random((NUM_LABELS, NUM_LABELS)) < 0.4)
    np.fill_diagonal(adjacency, self_loop)
    arrays = rng.normal(size=(NUM_LABELS, 4)) + 0.5, adjacency, normalize_adjacency(adjacency)
    return GraphTensors(*(torch.tensor(array, dtype=torch.float32) for array in arrays), THRESHOLD)


def further_vectors() -> torch.Tensor:
    return torch.tensor(np.random.default_rng(1).normal(size=(NUM_FURTHER, 4)) + 0.5, dtype=torch.float32)


def make_network(**changes: Any) -> DAGNN:
    torch.manual_seed(0)
    config = parse_section(ModelConfig, SMALL | changes, "model")
    network = DAGNN(config, image_dim=6, text_dim=7, graph=make_graph()).eval()
    assert network.label_calibration is not None
    with torch.no_grad():
        network.label_calibration.bias.copy_(torch.linspace(-3, -1, NUM_LABELS))
    return network


@pytest.mark.parametrize("self_loop", [1.0, 1.5])
def test_a_further_label_listens_to_labels_of_like_vectors(self_loop: float) -> None:
    graph, vectors = make_graph(self_loop), further_vectors()
    config = parse_section(ModelConfig, SMALL, "model")
    classifiers = DAGNN(config, image_dim=6, text_dim=7, graph=graph).label_classifiers
    assert isinstance(classifiers, LabelGNN)
    extended = classifiers.graph.extended(vectors)
    cosines = functional.cosine_similarity(vectors[:, None], graph.embeddings[None], dim=2)
    degrees = graph.adjacency.sum(dim=1) / self_loop
    torch.testing.assert_close(extended.normalized[:NUM_LABELS, :NUM_LABELS], graph.normalized)
    assert not extended.normalized[:NUM_LABELS, NUM_LABELS:].any()
    for number, label in itertools.product(range(NUM_FURTHER), range(NUM_LABELS)):
        listens = cosines[number, label] >= THRESHOLD or cosines[number, label] == cosines[number].max()
        count = int(((cosines[number] >= THRESHOLD) | (cosines[number] == cosines[number].max())).sum())
        expected = 0.5 / ((1 + 0.5 * count) * degrees[label]) ** 0.5 if listens else 0.0
        assert extended.normalized[NUM_LABELS + number, label].item() == pytest.approx(float(expected), rel=1e-5)
        assert bool(extended.neighbours[NUM_LABELS + number, label]) == bool(listens)
        own = extended.normalized[NUM_LABELS + number, NUM_LABELS + number].item()
        assert own == pytest.approx(1 / (1 + 0.5 * count))


@pytest.mark.parametrize("changes", [{}, {"graph": "learned"}, {"graph_layer": "gat"}], ids=str)
def test_trained_labels_keep_their_classifiers_and_a_label_depends_on_its_vector_alone(changes: dict[str, Any]) -> None:
    network, vectors = make_network(**changes), further_vectors()
    gnn = network.label_classifiers
    assert isinstance(gnn, LabelGNN)
    extended = gnn._classifiers(gnn.graph.extended(vectors))
    torch.testing.assert_close(extended[:NUM_LABELS], gnn())
    generated = gnn.generate(vectors)
    torch.testing.assert_close(generated, extended[NUM_LABELS:])
    torch.testing.assert_close(gnn.generate(vectors[1:2])[0], generated[1])
    assert not torch.allclose(generated[0], generated[1])


@pytest.mark.parametrize("ranking", ["labels", "hybrid", "embedding"])
def test_generated_labels_count_as_the_others_do(ranking: str) -> None:
    network, vectors = make_network(ranking=ranking), further_vectors()
    image, text = torch.rand(4, 6), torch.rand(3, 7)
    with torch.no_grad():
        assert network.label_calibration is not None
        if network.hybrid is not None:
            network.hybrid.label_weight.fill_(2.0)
        f, g = network.image_encoder(image), network.text_encoder(text)
        further = (
            network.generated_probabilities(image, "image", vectors),
            network.generated_probabilities(text, "text", vectors),
        )
        scale, bias = network.label_calibration.log_scale.exp(), network.label_calibration.bias.mean()
        assert isinstance(network.label_classifiers, LabelGNN)
        theta = network.label_classifiers.generate(vectors)
        cosines = functional.cosine_similarity(f[:, None], theta[None], dim=2)
        torch.testing.assert_close(further[0], (scale * cosines + bias).sigmoid(), atol=1e-4, rtol=1e-4)
        own = network._probabilities(f) @ network._probabilities(g).T
        both = further[0] @ further[1].T
        cosine = functional.cosine_similarity(f[:, None], g[None], dim=2)
        expected = {
            "labels": (own + both) / (NUM_LABELS + NUM_FURTHER),
            "hybrid": (2 * (own + both) + cosine) / (1 + 2 * (NUM_LABELS + NUM_FURTHER)),
            "embedding": (both + cosine) / (1 + NUM_FURTHER),
        }[ranking]
        vectors_of = (
            network.embed_with_generated(image, "image", vectors),
            network.embed_with_generated(text, "text", vectors),
        )
        got = functional.cosine_similarity(vectors_of[0][:, None], vectors_of[1][None], dim=2)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
        alone = (
            network.embed_with_generated(image, "image", vectors, alone=True),
            network.embed_with_generated(text, "text", vectors, alone=True),
        )
        got = functional.cosine_similarity(alone[0][:, None], alone[1][None], dim=2)
        torch.testing.assert_close(got, both / NUM_FURTHER, atol=1e-5, rtol=1e-4)


def test_what_has_no_label_gnn_or_no_probabilities_generates_none() -> None:
    assert make_network().generates_classifiers
    assert not make_network(graph="none").generates_classifiers
    published = DAGNN(ModelConfig(embedding_dim=8, hops=1), image_dim=6, text_dim=7, graph=make_graph())
    assert not published.generates_classifiers

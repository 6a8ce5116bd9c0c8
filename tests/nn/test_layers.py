"""The parts of the network against their equations."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from dagnn_core.baselines.dscmr import DSCMR
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import parse_section
from dagnn_core.losses.adversarial import adversarial_loss
from dagnn_core.model.kinds import build_network
from dagnn_core.nn.dagnn import DAGNN, cosine_scores
from dagnn_core.nn.feed_forward import FeedForward
from dagnn_core.nn.gradient_reversal import reverse_gradient
from dagnn_core.nn.label_gnn import (
    GraphAttention,
    GraphConvolution,
    IndependentClassifiers,
    LabelGNN,
    LayerAggregation,
)
from dagnn_core.nn.label_graphs import FixedGraph, GraphTensors, LearnedGraph
from dagnn_core.nn.lifted import Parts, as_other_modality, lift_hybrid, lift_probabilities, lowered_probabilities


def test_gradient_reversal_is_the_identity_forward_and_changes_the_sign_backward() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reverse_gradient(x)
    assert torch.equal(y, x)
    (y * torch.tensor([3.0, 5.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [-3.0, -5.0]


def graph_of(adjacency: Tensor, embeddings: Tensor) -> FixedGraph:
    return FixedGraph(GraphTensors(embeddings, adjacency, adjacency, 0.4))


def random_graph(num_labels: int = 5, dim: int = 3) -> FixedGraph:
    adjacency = torch.rand(num_labels, num_labels).double() * (torch.rand(num_labels, num_labels) < 0.6)
    adjacency.fill_diagonal_(1)
    return graph_of(adjacency, torch.randn(num_labels, dim).double())


def label_gnn(graph: FixedGraph | LearnedGraph, **options: Any) -> LabelGNN:
    defaults: dict[str, Any] = {"dim": 4, "layer": "gcn", "hops": 2, "num_heads": 1, "aggregation": "concat"}
    return LabelGNN(graph, **(defaults | options)).double()


def array(value: Tensor) -> np.ndarray:
    return value.detach().numpy()


def test_graph_convolution_equals_its_equation() -> None:
    torch.manual_seed(0)
    graph = random_graph()()
    layer = GraphConvolution(3, 4).double()
    linear = array(graph.normalized) @ array(graph.nodes) @ array(layer.weight)
    np.testing.assert_allclose(array(layer(graph.nodes, graph)), np.where(linear > 0, linear, 0.2 * linear))


@pytest.mark.parametrize("num_heads", [1, 3])
def test_graph_attention_equals_plain_loops(num_heads: int) -> None:
    torch.manual_seed(0)
    graph = random_graph()()
    layer = GraphAttention(3, 4, num_heads).double()
    expected = np.zeros((5, 4))
    for weight, attention in zip(array(layer.weight), array(layer.attention), strict=True):
        hidden = array(graph.nodes) @ weight
        for label in range(5):
            neighbours = [other for other in range(5) if graph.neighbours[label, other]]
            scores = np.array([attention[0] @ hidden[label] + attention[1] @ hidden[other] for other in neighbours])
            shares = np.exp(np.where(scores > 0, scores, 0.2 * scores))
            expected[label] += shares / shares.sum() @ hidden[neighbours] / num_heads
    expected = np.where(expected > 0, expected, np.exp(expected) - 1)
    np.testing.assert_allclose(array(layer(graph.nodes, graph)), expected, rtol=1e-10)


@pytest.mark.parametrize("layer", ["gcn", "gat"])
def test_label_gnn_runs_its_hops_and_aggregates_them(layer: str) -> None:
    torch.manual_seed(0)
    network = label_gnn(random_graph(), layer=layer, hops=3)
    graph = network.graph()
    hops = [graph.nodes]
    for part in network.layers:
        hops.append(part(hops[-1], graph))
    torch.testing.assert_close(network(), network.aggregation(hops[1:]))


@pytest.mark.parametrize("kind", ["concat", "max", "attention", "last"])
def test_layer_aggregation_equals_its_equations(kind: Any) -> None:
    torch.manual_seed(0)
    network = LayerAggregation(kind, hops=3, dim=4).double()
    if network.query is not None:
        torch.nn.init.normal_(network.query)
    hops = [torch.randn(5, 4).double() for _ in range(3)]
    stacked = np.stack([array(hop) for hop in hops])
    if kind == "concat":
        aggregated = np.concatenate(list(stacked), axis=1)
    elif kind == "max":
        aggregated = stacked.max(axis=0)
    elif kind == "last":
        aggregated = stacked[2]
    else:
        assert network.query is not None
        weights = np.exp(stacked @ array(network.query))
        aggregated = np.einsum("lc,lcd->cd", weights / weights.sum(axis=0), stacked)
    expected = aggregated @ array(network.projection.weight).T + array(network.projection.bias)
    np.testing.assert_allclose(array(network(hops)), expected, rtol=1e-10)


@pytest.mark.parametrize("layer", ["gcn", "gat"])
def test_an_isolated_label_does_not_hear_the_others(layer: str) -> None:
    torch.manual_seed(0)
    adjacency = torch.eye(4)
    adjacency[0, 1] = 1.0
    network = label_gnn(graph_of(adjacency, torch.rand(4, 3)), layer=layer, hops=3)
    before = network()
    network.graph.label_embeddings[1] += 1
    after = network()
    changed = (before != after).any(dim=1).tolist()
    assert changed == [True, True, False, False]


def test_learned_graph_equals_plain_loops() -> None:
    torch.manual_seed(0)
    start = torch.rand(4, 6).double()
    graph = LearnedGraph(GraphTensors(start, torch.eye(4), torch.eye(4), 0.7), num_metrics=3, mix=0.3).double()
    with torch.no_grad():
        graph.label_embeddings += 0.4 * torch.randn(4, 6).double()

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    now, metrics = array(graph.label_embeddings), array(graph.metrics)
    adjacency = np.zeros((4, 4))
    for i in range(4):
        for j in range(4):
            before = cosine(array(start)[i], array(start)[j])
            after = np.mean([cosine(now[i] * metric, now[j] * metric) for metric in metrics])
            adjacency[i, j] = 0.3 * (before if before >= 0.7 else 0) + 0.7 * (after if after >= 0.7 else 0)
    assert (adjacency == 0).any() and (adjacency > 0).sum() > 4, "the threshold must matter"
    degrees = adjacency.sum(axis=1)
    state = graph()
    np.testing.assert_allclose(array(state.normalized), adjacency.T / np.sqrt(np.outer(degrees, degrees)), rtol=1e-10)
    np.testing.assert_array_equal(array(state.neighbours), adjacency.T > 0)


def test_learned_graph_learns_nodes_and_metrics() -> None:
    torch.manual_seed(0)
    graph = LearnedGraph(GraphTensors(torch.rand(4, 6), torch.eye(4), torch.eye(4), 0.1), num_metrics=2, mix=0.5)
    label_gnn(graph)().sum().backward()
    for parameter in graph.parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any()


def test_batch_norm_makes_the_input_scale_irrelevant() -> None:
    torch.manual_seed(0)
    network = FeedForward([3, 4], output=torch.nn.ReLU(), norm="batch")
    x = torch.randn(50, 3)
    torch.testing.assert_close(network(x), network(1000 * x + 7), atol=1e-3, rtol=1e-3)


def test_unit_norm_scales_vectors_to_the_root_of_their_dimension() -> None:
    network = FeedForward([3, 3], output=torch.nn.Identity(), norm="unit")
    seen = network.norm(torch.tensor([[0.0, 3.0, 4.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(seen, 3**0.5 * torch.tensor([[0.0, 0.6, 0.8], [0.0, 0.0, 0.0]]))
    x = torch.rand(5, 3)
    torch.testing.assert_close(network(x), network(100 * x))


def test_dropout_is_for_training_only() -> None:
    network = dagnn(image_dropout=0.5)
    image = torch.rand(6, 20)
    assert not torch.equal(network.image_encoder(image), network.image_encoder(image))
    network.eval()
    assert torch.equal(network.image_encoder(image), network.image_encoder(image))
    assert dagnn().image_encoder.dropout.p == 0


def test_cosine_of_lifted_probabilities_is_the_expected_number_of_shared_labels() -> None:
    torch.manual_seed(0)
    p, q = torch.rand(5, 7).double(), torch.rand(4, 7).double()
    p[0] = 1.0
    q[0] = 0.0
    image, text = lift_probabilities(p, "image"), lift_probabilities(q, "text")
    cosines = torch.nn.functional.cosine_similarity(image[:, None], text[None], dim=2)
    torch.testing.assert_close(7 * cosines, p @ q.T)


def test_cosine_of_hybrid_vectors_is_the_weighted_sum_of_its_parts() -> None:
    torch.manual_seed(0)
    image, text = (
        Parts(torch.rand(size, 7).double(), torch.rand(size, 4).double(), torch.randn(size, 3).double())
        for size in (5, 6)
    )
    image.embedding[0] = 0
    w, v = torch.tensor(0.5).double(), torch.tensor(0.25).double()
    lifted = [
        lift_hybrid(parts, modality, label_weight=w, canonical_share=v)
        for parts, modality in ((image, "image"), (text, "text"))
    ]
    for i, j in itertools.product(range(5), range(6)):
        score = w * (image.probabilities[i] @ text.probabilities[j])
        score += (1 - v) * cosine_similarity(image.embedding[i], text.embedding[j], dim=0)
        score += v * cosine_similarity(image.canonical[i], text.canonical[j], dim=0)
        torch.testing.assert_close(cosine_similarity(lifted[0][i], lifted[1][j], dim=0), score / (1 + w * 7))
    torch.testing.assert_close(lowered_probabilities(lifted[1], 7, w), text.probabilities)


def test_lifted_vectors_are_compared_within_a_modality_by_what_is_compared_across() -> None:
    p = torch.rand(3, 7)
    images, texts = lift_probabilities(p, "image").numpy(), lift_probabilities(p, "text").numpy()
    np.testing.assert_array_equal(as_other_modality(images), texts)
    np.testing.assert_array_equal(as_other_modality(texts[1]), images[1])
    np.testing.assert_allclose(as_other_modality(images) @ images.T, p.numpy() @ p.numpy().T, rtol=1e-5)


def test_hybrid_ranking_embeds_all_three_parts() -> None:
    network = dagnn(classification="cross_entropy", ranking="hybrid").eval()
    assert network.hybrid is not None
    network.hybrid.label_weight.fill_(4)
    network.hybrid.canonical_share.fill_(0.36)
    network.hybrid.get_buffer("image_projection").copy_(torch.rand(20, 6))
    network.hybrid.get_buffer("image_offset").copy_(torch.rand(6))
    image = torch.rand(4, 20)
    output = network(image, torch.rand(2, 6))
    got = network.embed_image(image)
    assert got.shape == (4, 3 + 8 + 6 + 2)
    torch.testing.assert_close(got[:, :3], 2 * network.label_calibration(output.image_scores).sigmoid())
    torch.testing.assert_close(got[:, 3:11], 0.8 * normalize(output.image_embedding, dim=1))
    torch.testing.assert_close(got[:, 11:17], 0.6 * normalize(network.hybrid.canonical(image, "image"), dim=1))
    torch.testing.assert_close(got.norm(dim=1), torch.full((4,), (1 + 4 * 3) ** 0.5))
    torch.testing.assert_close(network.label_probabilities(got), got[:, :3] / 2)
    assert not [name for name, _ in network.named_parameters() if name.startswith("hybrid")], "nothing of it is trained"


def test_ranking_by_labels_embeds_label_probabilities() -> None:
    network = dagnn(classification="cross_entropy", ranking="labels").eval()
    image, text = torch.rand(4, 20), torch.rand(2, 6)
    output = network(image, text)
    for got, scores in (
        (network.embed_image(image), output.image_scores),
        (network.embed_text(text), output.text_scores),
    ):
        assert got.shape == (len(scores), 3 + 2)
        torch.testing.assert_close(got[:, :3], network.label_calibration(scores).sigmoid())
        torch.testing.assert_close(got.norm(dim=1), torch.full((len(scores),), 3**0.5))
    plain = dagnn(classification="cross_entropy").eval()
    assert torch.equal(plain.embed_image(image), plain(image, text).image_embedding)


def graph_tensors() -> GraphTensors:
    return GraphTensors(torch.rand(3, 5), torch.eye(3), torch.eye(3), 0.4)


def dagnn(**options: Any) -> DAGNN:
    config = parse_section(ModelConfig, {"embedding_dim": 8, "hops": 2} | options, "model")
    network = build_network(config, image_dim=20, text_dim=6, graph=graph_tensors())
    assert isinstance(network, DAGNN)
    return network


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("discriminator", ["affine", "relu"])
def test_the_configuration_chooses_the_parts(norm: str, discriminator: str) -> None:
    network = dagnn(encoder_norm=norm, adversary_norm=norm, discriminator=discriminator)
    assert any(isinstance(part, torch.nn.BatchNorm1d) for part in network.modules()) == (norm == "batch")
    image, text = torch.randn(9, 20), torch.randn(7, 6)
    output = network(image, text)
    assert output.image_embedding.shape == (9, 8) and output.text_embedding.shape == (7, 8)
    assert output.image_scores.shape == (9, 3)
    assert output.translation.image.shape == (7, 20) and output.translation.text.shape == (9, 6)
    assert output.translation.modality.real_text.shape == (7, 2)
    if norm == "none":
        discriminate = network.adversary.image_discriminator
        left, right, both = (discriminate(x) for x in (image, -image, torch.zeros_like(image)))
        is_affine = torch.allclose(left + right, 2 * both, atol=1e-5)
        assert is_affine == (discriminator == "affine")


def test_parts_can_be_left_out() -> None:
    network = dagnn(discriminator="none", graph="none")
    output = network(torch.randn(4, 20), torch.randn(4, 6))
    assert output.translation is None
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {
        "image_encoder", "text_encoder", "label_classifiers",
    }  # fmt: skip
    assert isinstance(network.label_classifiers, IndependentClassifiers)
    assert output.classifiers is network.label_classifiers.weight


def test_reconstructed_features_never_reach_the_adversary() -> None:
    torch.manual_seed(0)
    network = dagnn(encoder_norm="batch", adversary_norm="batch")
    image, text = torch.randn(6, 20), torch.randn(6, 6)
    output = network(image, text, num_real_image=4, num_real_text=3)
    assert output.image_scores.shape == (6, 3)
    assert [len(logits) for logits in output.translation.modality] == [4, 3, 4, 3]
    network.image_encoder.norm.eval()  # else it ties the rows of a batch together
    image.requires_grad_()
    translation = network(image, text, num_real_image=4, num_real_text=3).translation
    sum(logits.square().sum() for logits in translation.modality).backward()
    assert (image.grad[:4] != 0).any(dim=1).all() and (image.grad[4:] == 0).all()


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_reversal_strength_scales_what_the_encoders_get(strength: float) -> None:
    torch.manual_seed(0)
    network = dagnn()
    image, text = torch.randn(6, 20), torch.randn(6, 6)

    def gradients(reversal: float) -> tuple[Tensor, Tensor]:
        network.zero_grad()
        adversarial_loss(network(image, text, reversal=reversal).translation.modality).backward()
        return (
            network.image_encoder.linears[0].weight.grad.clone(),
            network.adversary.image_discriminator.linears[0].weight.grad.clone(),
        )

    (encoder, discriminator), (full_encoder, full_discriminator) = gradients(strength), gradients(1.0)
    torch.testing.assert_close(encoder, strength * full_encoder)
    torch.testing.assert_close(discriminator, full_discriminator)


@pytest.mark.parametrize("kind", ["two_tower", "dscmr"])
def test_baselines_embed_both_modalities(kind: Any) -> None:
    network = build_network(ModelConfig(kind=kind, embedding_dim=8), image_dim=20, text_dim=6, graph=graph_tensors())
    image, text = network(torch.randn(4, 20), torch.randn(4, 6))
    assert image.shape == text.shape == (4, 8)


def test_dscmr_towers_share_their_last_layer() -> None:
    network = DSCMR(image_dim=20, text_dim=6, dim=8, num_labels=3)
    assert network.image_encoder[2] is network.text_encoder[2]


def test_scores_are_cosines() -> None:
    embedding, classifiers = torch.rand(4, 3).double(), torch.randn(5, 3).double()
    cosines = torch.nn.functional.cosine_similarity(embedding[:, None], classifiers[None], dim=2)
    norms = embedding.norm(dim=1, keepdim=True) * classifiers.norm(dim=1)
    torch.testing.assert_close(cosine_scores(embedding, classifiers), cosines * norms / (norms + 1e-6))
    assert torch.equal(cosine_scores(torch.zeros(1, 3), torch.rand(2, 3)), torch.zeros(1, 2))

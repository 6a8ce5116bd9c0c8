"""The parts of the network against their equations."""

import numpy as np
import pytest
import torch

from dagnn_core.config import ModelConfig
from dagnn_core.nn.dagnn import DAGNN, cosine_scores
from dagnn_core.nn.feed_forward import FeedForward
from dagnn_core.nn.gradient_reversal import reverse_gradient
from dagnn_core.nn.label_gnn import LabelGNN


def test_gradient_reversal_is_the_identity_forward_and_changes_the_sign_backward() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reverse_gradient(x)
    assert torch.equal(y, x)
    (y * torch.tensor([3.0, 5.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [-3.0, -5.0]


def test_label_gnn_equals_its_equations() -> None:
    torch.manual_seed(0)
    network = LabelGNN(label_dim=3, embedding_dim=4, hops=2).double()
    embeddings, adjacency = torch.rand(5, 3).double(), torch.rand(5, 5).double()
    hidden, hops = embeddings.numpy(), []
    for layer in network.layers:
        linear = adjacency.numpy() @ hidden @ layer.weight.detach().numpy()
        hidden = np.where(linear > 0, linear, 0.2 * linear)
        hops.append(hidden)
    projection = network.projection
    expected = np.concatenate(hops, axis=1) @ projection.weight.detach().numpy().T + projection.bias.detach().numpy()
    np.testing.assert_allclose(network(embeddings, adjacency).detach(), expected, rtol=1e-12)


def test_an_isolated_label_does_not_hear_the_others() -> None:
    network = LabelGNN(label_dim=3, embedding_dim=4, hops=3)
    adjacency = torch.eye(4)
    adjacency[0, 1] = 1.0
    embeddings = torch.rand(4, 3)
    before = network(embeddings, adjacency)
    embeddings[1] += 1
    after = network(embeddings, adjacency)
    changed = (before != after).any(dim=1).tolist()
    assert changed == [True, True, False, False]


def test_batch_norm_makes_the_input_scale_irrelevant() -> None:
    torch.manual_seed(0)
    network = FeedForward([3, 4], output=torch.nn.ReLU(), batch_norm=True)
    x = torch.randn(50, 3)
    torch.testing.assert_close(network(x), network(1000 * x + 7), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("discriminator", ["affine", "relu"])
def test_the_configuration_chooses_the_parts(batch_norm: bool, discriminator: str) -> None:
    config = ModelConfig(embedding_dim=8, hops=2, batch_norm=batch_norm, discriminator=discriminator)  # type: ignore[arg-type]
    network = DAGNN(config, image_dim=20, text_dim=6, label_embeddings=torch.rand(3, 5), adjacency=torch.eye(3))
    assert any(isinstance(part, torch.nn.BatchNorm1d) for part in network.modules()) == batch_norm
    image, text = torch.randn(9, 20), torch.randn(9, 6)
    output = network(image, text)
    assert output.image_embedding.shape == output.text_embedding.shape == (9, 8)
    assert output.image_scores.shape == (9, 3) and output.translated_image.shape == image.shape
    assert output.translated_text.shape == text.shape and output.modality.real_text.shape == (9, 2)
    if not batch_norm:
        left, right, both = (network.image_discriminator(x) for x in (image, -image, torch.zeros_like(image)))
        is_affine = torch.allclose(left + right, 2 * both, atol=1e-5)
        assert is_affine == (discriminator == "affine")


def test_scores_are_cosines() -> None:
    embedding, classifiers = torch.rand(4, 3).double(), torch.randn(5, 3).double()
    expected = torch.nn.functional.cosine_similarity(embedding[:, None], classifiers[None], dim=2)
    torch.testing.assert_close(cosine_scores(embedding, classifiers), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(cosine_scores(torch.zeros(1, 3), torch.rand(2, 3)), torch.zeros(1, 2))

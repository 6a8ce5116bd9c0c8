"""Each loss against its formula in plain loops, its gradient against finite differences, and its corner cases."""

import math

import pytest
import torch
from torch import Tensor

from dagnn_core.losses.adversarial import adversarial_loss, discriminator_accuracy
from dagnn_core.losses.classification import classification_loss
from dagnn_core.losses.modality_invariance import modality_invariance_loss
from dagnn_core.nn.dagnn import ModalityLogits


def random_batch(seed: int, batch: int = 6, dim: int = 5, num_labels: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image, text = (torch.rand(batch, dim, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = (torch.rand(batch, num_labels, generator=generator) < 0.4).double()
    return image, text, labels


def norm(vector: list[float]) -> float:
    return math.sqrt(sum(value * value for value in vector))


@pytest.mark.parametrize("seed", range(5))
def test_classification_equals_plain_loops(seed: int) -> None:
    image, text, labels = random_batch(seed, dim=4)
    expected = 0.0
    for scores in (image.tolist(), text.tolist()):
        for row, target in zip(scores, labels.tolist(), strict=True):
            expected += norm([a - b for a, b in zip(row, target, strict=True)]) / len(scores)
    assert classification_loss(image, text, labels).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_modality_invariance_equals_plain_loops(seed: int) -> None:
    image, text, labels = random_batch(seed)
    expected = 0.0
    rows = labels.tolist()
    for x, y in ((image, image), (image, text), (text, text)):
        for i, a in enumerate(x.tolist()):
            for j, b in enumerate(y.tolist()):
                theta = 0.5 * sum(p * q for p, q in zip(a, b, strict=True)) / max(norm(a) * norm(b), 1e-6)
                shared = sum(p * q for p, q in zip(rows[i], rows[j], strict=True))
                expected += (math.log(1 + math.exp(theta)) - shared * theta) / len(rows) ** 2
    assert modality_invariance_loss(image, text, labels).item() == pytest.approx(expected, rel=1e-12)


def logits(seed: int, batch: int = 6) -> ModalityLogits:
    generator = torch.Generator().manual_seed(seed)
    return ModalityLogits(*(torch.randn(batch, 2, generator=generator, dtype=torch.float64) for _ in range(4)))


@pytest.mark.parametrize("seed", range(5))
def test_adversarial_equals_plain_loops(seed: int) -> None:
    modality = logits(seed)
    expected = 0.0
    for values, target in zip(modality, (1, 0, 1, 0), strict=True):
        for row in values.tolist():
            expected -= math.log(math.exp(row[target]) / sum(map(math.exp, row))) / len(values)
    assert adversarial_loss(modality).item() == pytest.approx(expected, rel=1e-12)


def test_discriminator_accuracy_counts_right_answers() -> None:
    image_wins, text_wins = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    modality = ModalityLogits(
        real_image=image_wins, translated_image=image_wins, translated_text=image_wins, real_text=text_wins
    )
    assert discriminator_accuracy(modality).image.item() == 0.5
    assert discriminator_accuracy(modality).text.item() == 1.0


def test_gradients_equal_finite_differences() -> None:
    image, text, labels = random_batch(7)
    image.requires_grad_()
    text.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: modality_invariance_loss(x, y, labels), (image, text))
    scores = tuple(torch.rand(6, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x, y: classification_loss(x, y, labels), scores)
    modality = [value.requires_grad_() for value in logits(3)]
    assert torch.autograd.gradcheck(lambda *values: adversarial_loss(ModalityLogits(*values)), modality)


def test_zero_embeddings_and_perfect_scores_have_finite_gradients() -> None:
    image, text, labels = random_batch(1)
    image = torch.zeros_like(image, requires_grad=True)
    modality_invariance_loss(image, text, labels).backward()
    assert image.grad is not None and torch.isfinite(image.grad).all()
    scores = labels.clone().requires_grad_()
    classification_loss(scores, scores, labels).backward()
    assert scores.grad is not None and (scores.grad == 0).all()


def test_permuting_the_batch_changes_nothing() -> None:
    image, text, labels = random_batch(2)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    expected = modality_invariance_loss(image, text, labels).item()
    assert modality_invariance_loss(image[order], text[order], labels[order]).item() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_is_close(dtype: torch.dtype) -> None:
    image, text, labels = random_batch(4)
    expected = modality_invariance_loss(image, text, labels).item()
    got = modality_invariance_loss(image.to(dtype), text.to(dtype), labels.to(dtype)).item()
    assert got == pytest.approx(expected, rel={torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype])

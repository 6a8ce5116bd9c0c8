"""Each loss against its formula in plain loops, its gradient against finite differences, and its corner cases."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dagnn_core.baselines.dscmr import DSCMR, dscmr_objective
from dagnn_core.config.model import ModelConfig
from dagnn_core.losses.adversarial import ModalityLogits, adversarial_loss, discriminator_accuracy
from dagnn_core.losses.batch import Batch
from dagnn_core.losses.classification import classification_loss, label_cross_entropy
from dagnn_core.losses.info_nce import info_nce_loss
from dagnn_core.losses.modality_invariance import modality_invariance_loss
from dagnn_core.losses.pair_memory import PairMemory
from dagnn_core.losses.reconstruction import reconstruction_loss
from dagnn_core.losses.relevance import relevance_loss
from dagnn_core.losses.similarity import LabelSimilarity, label_similarity
from dagnn_core.losses.soft_contrastive import soft_contrastive_loss
from dagnn_core.nn.calibration import Calibration
from dagnn_core.nn.cross_modal import PairOutput
from dagnn_core.nn.dagnn import DAGNN, DAGNNOutput
from dagnn_core.nn.label_graphs import GraphTensors
from dagnn_core.nn.objective import dagnn_objective

KINDS = ("count", "binary", "jaccard")
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def random_batch(seed: int, batch: int = 6, dim: int = 5, num_labels: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image, text = (torch.rand(batch, dim, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = (torch.rand(batch, num_labels, generator=generator) < 0.4).double()
    return image, text, labels


def unpaired(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Six images and four texts of other items; one of each has no label."""
    image, _, image_labels = random_batch(seed)
    _, text, text_labels = random_batch(seed + 100, batch=4)
    image_labels[2] = 0
    text_labels[0] = 0
    return image, text, image_labels, text_labels


def contrast(
    image: Tensor, text: Tensor, image_labels: Tensor, text_labels: Tensor, similarity: LabelSimilarity = "binary"
) -> Tensor:
    return soft_contrastive_loss(
        image,
        text,
        image_labels,
        text_labels,
        temperature=0.25,
        intra_modal_weight=0.3,
        denominator_scale=1.1,
        similarity=similarity,
    )


def relevance(
    image: Tensor, text: Tensor, image_labels: Tensor, text_labels: Tensor, similarity: LabelSimilarity = "binary"
) -> Tensor:
    return relevance_loss(
        image,
        text,
        image_labels,
        text_labels,
        calibration=lambda cosine: 3 * cosine - 2,
        intra_modal_weight=0.3,
        similarity=similarity,
    )


def invariance(image: Tensor, text: Tensor, image_labels: Tensor, text_labels: Tensor) -> Tensor:
    return modality_invariance_loss(image, text, image_labels, text_labels, similarity="count")


def norm(vector: list[float]) -> float:
    return math.sqrt(sum(value * value for value in vector))


@pytest.mark.parametrize("seed", range(5))
def test_classification_equals_plain_loops(seed: int) -> None:
    image, _, labels = random_batch(seed, dim=4)
    expected = 0.0
    for row, target in zip(image.tolist(), labels.tolist(), strict=True):
        expected += norm([a - b for a, b in zip(row, target, strict=True)]) / len(labels)
    assert classification_loss(image, labels).item() == pytest.approx(expected, rel=1e-12)


def items(embedding: Tensor, labels: Tensor) -> list[tuple[list[float], list[float]]]:
    return list(zip(embedding.tolist(), labels.tolist(), strict=True))


def dot(a: list[float], b: list[float]) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True))


def alike(a: list[float], b: list[float], kind: str) -> float:
    """Label similarity by sets."""
    first, second = ({label for label, present in enumerate(row) if present} for row in (a, b))
    shared = len(first & second)
    return {"count": shared, "binary": min(shared, 1), "jaccard": shared / max(len(first | second), 1)}[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_label_similarity_equals_sets(seed: int, kind: LabelSimilarity) -> None:
    labels, others = unpaired(seed)[2:]
    expected = [[alike(a, b, kind) for b in others.tolist()] for a in labels.tolist()]
    assert label_similarity(labels, others, kind).tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_modality_invariance_equals_plain_loops(seed: int, kind: LabelSimilarity) -> None:
    image, text, image_labels, text_labels = unpaired(seed)
    expected = 0.0
    images, texts = items(image, image_labels), items(text, text_labels)
    for queries, gallery in ((images, images), (images, texts), (texts, texts)):
        for a, a_labels in queries:
            for b, b_labels in gallery:
                theta = 0.5 * dot(a, b) / max(norm(a) * norm(b), 1e-6)
                pair = math.log(1 + math.exp(theta)) - alike(a_labels, b_labels, kind) * theta
                expected += pair / len(queries) / len(gallery)
    got = modality_invariance_loss(image, text, image_labels, text_labels, similarity=kind)
    assert got.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_soft_contrastive_equals_plain_loops(seed: int, kind: LabelSimilarity) -> None:
    image, text, image_labels, text_labels = unpaired(seed)
    images, texts = items(image, image_labels), items(text, text_labels)
    expected = 0.0
    for queries, gallery, weight in (
        (images, texts, 1),
        (texts, images, 1),
        (images, images, 0.3),
        (texts, texts, 0.3),
    ):
        for number, (a, a_labels) in enumerate(queries):
            cosines = [dot(a, b) / (norm(a) * norm(b)) / 0.25 for b, _ in gallery]
            log_sum = math.log(sum(math.exp(1.1 * value) for value in cosines))
            targets = [alike(a_labels, b_labels, kind) for _, b_labels in gallery]
            if queries is gallery:
                targets[number] = 0.0
            for target, cosine in zip(targets, cosines, strict=True):
                expected -= weight * target / max(sum(targets), 1e-6) * (cosine - log_sum) / len(queries)
    got = contrast(image, text, image_labels, text_labels, similarity=kind)
    assert got.item() == pytest.approx(expected, rel=1e-12)


def test_soft_contrastive_without_positives_is_zero() -> None:
    image, text, labels = random_batch(3)
    assert contrast(image, text, torch.zeros_like(labels), torch.zeros_like(labels)).item() == 0


def test_soft_contrastive_of_identical_targets_is_smallest_where_embeddings_show_the_labels() -> None:
    labels = torch.eye(3, dtype=torch.float64).repeat(2, 1)
    right = contrast(labels, labels, labels, labels)
    wrong = contrast(labels, labels.roll(1, dims=0), labels, labels)
    assert right < wrong


@pytest.mark.parametrize("kind", ["binary", "jaccard"])
@pytest.mark.parametrize("seed", range(3))
def test_relevance_equals_plain_loops(seed: int, kind: LabelSimilarity) -> None:
    image, text, image_labels, text_labels = unpaired(seed)
    images, texts = items(image, image_labels), items(text, text_labels)
    expected = 0.0
    for queries, gallery, weight in ((images, texts, 1), (images, images, 0.3), (texts, texts, 0.3)):
        num_pairs = len(queries) * (len(gallery) - (queries is gallery))
        for number, (a, a_labels) in enumerate(queries):
            for other, (b, b_labels) in enumerate(gallery):
                if queries is gallery and number == other:
                    continue
                probability = 1 / (1 + math.exp(-(3 * dot(a, b) / (norm(a) * norm(b)) - 2)))
                target = alike(a_labels, b_labels, kind)
                entropy = -target * math.log(probability) - (1 - target) * math.log(1 - probability)
                expected += weight * entropy / num_pairs
    got = relevance(image, text, image_labels, text_labels, similarity=kind)
    assert got.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_label_cross_entropy_equals_plain_loops(seed: int) -> None:
    logits, _, labels = random_batch(seed, dim=4)
    expected = 0.0
    for row, targets in zip(logits.tolist(), labels.tolist(), strict=True):
        for logit, target in zip(row, targets, strict=True):
            probability = 1 / (1 + math.exp(-logit))
            expected -= math.log(probability if target else 1 - probability) / len(labels)
    assert label_cross_entropy(logits, labels).item() == pytest.approx(expected, rel=1e-12)


def test_calibration_turns_cosines_into_logits() -> None:
    torch.testing.assert_close(Calibration()(torch.tensor([[0.5, 1.0]])), torch.tensor([[0.0, 5.0]]))
    by_label = Calibration(3)
    with torch.no_grad():
        by_label.bias[:] = torch.tensor([0.0, 1.0, 2.0])
    torch.testing.assert_close(by_label(torch.full((2, 3), 0.1)), torch.tensor([[1.0, 2.0, 3.0]] * 2))


@pytest.mark.parametrize("seed", range(3))
def test_info_nce_equals_plain_loops(seed: int) -> None:
    image, text, _ = random_batch(seed)
    log_scale = torch.tensor(1.5, dtype=torch.float64)
    expected = 0.0
    for queries, gallery in ((image.tolist(), text.tolist()), (text.tolist(), image.tolist())):
        for own, a in enumerate(queries):
            logits = [math.exp(1.5) * dot(a, b) / (norm(a) * norm(b)) for b in gallery]
            expected -= (logits[own] - math.log(sum(map(math.exp, logits)))) / len(queries) / 2
    assert info_nce_loss(image, text, log_scale).item() == pytest.approx(expected, rel=1e-12)


def test_info_nce_with_a_memory_equals_numpy() -> None:
    image, text = (of.float() for of in random_batch(0)[:2])
    memory = PairMemory.empty(7, 5, torch.device("cpu"))
    assert info_nce_loss(image, text, torch.tensor(1.5), memory.beside(torch.arange(6))) == info_nce_loss(
        image, text, torch.tensor(1.5)
    )
    for seed, rows in ((1, [20, 21, 22, 23, 24, 2]), (2, [30, 31, 32, 33, 4, 35])):  # of 12 pairs the last 7 stay
        memory.add(*random_batch(seed)[:2], torch.tensor(rows))
    assert memory.rows.tolist() == [2, 30, 31, 32, 33, 4, 35]

    def unit(rows: Tensor) -> NDArray[np.float64]:
        array = rows.numpy()
        return np.asarray(array / np.linalg.norm(array, axis=1, keepdims=True))

    remembered = [np.concatenate([unit(random_batch(1)[of])[-1:], unit(random_batch(2)[of])]) for of in (0, 1)]
    expected = 0.0
    for queries, gallery, others in ((image, text, remembered[1]), (text, image, remembered[0])):
        for own, query in enumerate(unit(queries)):
            kept = others[memory.rows.numpy() != own]  # an item is no wrong partner of itself
            logits = np.exp(1.5) * np.concatenate([unit(gallery), kept]) @ query
            expected -= (logits[own] - np.log(np.exp(logits).sum())) / len(image) / 2
    loss = info_nce_loss(image, text, torch.tensor(1.5), memory.beside(torch.arange(6)))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


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
    pair = (image, text)
    assert torch.autograd.gradcheck(
        lambda x, y: modality_invariance_loss(x, y, labels, labels, similarity="count"), pair
    )
    assert torch.autograd.gradcheck(lambda x, y: contrast(x, y, labels, labels), pair)
    assert torch.autograd.gradcheck(lambda x, y: relevance(x, y, labels, labels), pair)
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(info_nce_loss, (*pair, scale))
    scores = torch.rand(6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: classification_loss(x, labels), scores)
    assert torch.autograd.gradcheck(lambda x: label_cross_entropy(x, labels), scores)
    modality = [value.requires_grad_() for value in logits(3)]
    assert torch.autograd.gradcheck(lambda *values: adversarial_loss(ModalityLogits(*values)), modality)


def test_zero_embeddings_and_perfect_scores_have_finite_gradients() -> None:
    image, text, labels = random_batch(1)
    image = torch.zeros_like(image, requires_grad=True)
    for loss in (invariance, contrast, relevance):
        loss(image, text, labels, labels).backward()
        assert image.grad is not None and torch.isfinite(image.grad).all()
    scores = labels.clone().requires_grad_()
    classification_loss(scores, labels).backward()
    assert scores.grad is not None and (scores.grad == 0).all()


@pytest.mark.parametrize("loss", [invariance, contrast, relevance])
def test_permuting_the_batch_changes_nothing(loss: Loss) -> None:
    image, text, labels = random_batch(2)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    expected = loss(image, text, labels, labels).item()
    assert loss(image[order], text[order], labels[order], labels[order]).item() == pytest.approx(expected)


@pytest.mark.parametrize("loss", [invariance, contrast, relevance])
def test_scaling_embeddings_changes_nothing(loss: Loss) -> None:
    image, text, labels = random_batch(2)
    expected = loss(image, text, labels, labels).item()
    assert loss(3 * image, text / 7, labels, labels).item() == pytest.approx(expected)


@pytest.mark.parametrize("loss", [invariance, contrast, relevance])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_is_close(dtype: torch.dtype, loss: Loss) -> None:
    image, text, labels = random_batch(4)
    expected = loss(image, text, labels, labels).item()
    got = loss(image.to(dtype), text.to(dtype), labels.to(dtype), labels.to(dtype)).item()
    assert got == pytest.approx(expected, rel={torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype])


def test_terms_of_weight_zero_are_left_out() -> None:
    image, text, labels = random_batch(5)
    output = DAGNNOutput(image, text, image[:, :4], text[:, :4], image[:4], None)
    only = ModelConfig(modality_invariance_weight=0.0, classification_weight=3.0)
    graph = GraphTensors(torch.rand(4, 3), torch.eye(4), torch.eye(4), 0.4)
    network = DAGNN(only, image_dim=5, text_dim=5, graph=graph)
    every = torch.arange(len(labels))
    batch = Batch(image, text, labels, labels, len(labels), len(labels), every, every)
    losses = dagnn_objective(network, output, batch, only)
    assert losses.terms.keys() == {"classification"} and losses.accuracies == {}
    assert losses.total.item() == pytest.approx(3 * losses.terms["classification"].item())


def test_reconstruction_equals_plain_loops() -> None:
    translated, real, _ = random_batch(8)
    error = sum(
        (a - b) ** 2
        for pair in zip(translated.tolist(), real.tolist(), strict=True)
        for a, b in zip(*pair, strict=True)
    )
    size = sum(value**2 for row in real.tolist() for value in row)
    assert reconstruction_loss(translated, real).item() == pytest.approx(error / size, rel=1e-12)
    translated.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: reconstruction_loss(x, real), translated)
    assert reconstruction_loss(translated[:0], real[:0]).item() == 0


def test_generators_are_compared_with_the_partner_of_each_pair() -> None:
    config = ModelConfig(embedding_dim=5, hops=1, reconstruction_weight=1.0, adversarial_weight=0.0)
    graph = GraphTensors(torch.rand(4, 3), torch.eye(4), torch.eye(4), 0.4)
    network = DAGNN(config, image_dim=5, text_dim=5, graph=graph)
    image, _, image_labels = random_batch(1)
    text, _, text_labels = random_batch(2, batch=4)
    # items: image and text, text alone, image and text, images alone
    batch = Batch(
        image.float(),
        text.float(),
        image_labels.float(),
        text_labels.float(),
        6,
        4,
        torch.tensor([0, 1]),
        torch.tensor([0, 2]),
    )
    output = network(batch.image, batch.text)
    assert output.translation is not None
    expected = reconstruction_loss(output.translation.image[[0, 2]], batch.image[[0, 1]])
    expected = expected + reconstruction_loss(output.translation.text[[0, 1]], batch.text[[0, 2]])
    losses = dagnn_objective(network, output, batch, config)
    assert losses.terms["reconstruction"].item() == pytest.approx(expected.item())


def test_dscmr_objective_adds_its_three_terms() -> None:
    image, text, labels = random_batch(6)
    network = DSCMR(image_dim=5, text_dim=5, dim=5, num_labels=4).double()
    losses = dscmr_objective(network, PairOutput(image, text), labels)
    distance = sum(
        norm([a - b for a, b in zip(*pair, strict=True)]) for pair in zip(image.tolist(), text.tolist(), strict=True)
    )
    assert losses.terms["distance"].item() == pytest.approx(distance / len(labels), rel=1e-12)
    parts = [losses.terms[name].item() for name in ("classification", "modality_invariance", "distance")]
    assert losses.total.item() == pytest.approx(parts[0] + 1e-3 * parts[1] + 1e-1 * parts[2], rel=1e-12)

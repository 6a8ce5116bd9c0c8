"""Items without labels: no label loss reads them, and what needs no labels learns from them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dagnn_core.baselines.cca import fit_cca
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import parse_section
from dagnn_core.config.train import TrainConfig
from dagnn_core.errors import InputError
from dagnn_core.losses.agreement import agreement_loss
from dagnn_core.model.kinds import build_network, compute_losses
from dagnn_core.training.split import Split

from .test_training import CONFIG, GRAPH, SMALL, Recorder, make_incomplete, make_split, run, same

LABEL_TERMS = {
    "discriminator": "none",
    "classification": "cross_entropy",
    "modality_invariance_weight": 0.1,
    "contrastive_weight": 0.1,
    "relevance_weight": 0.1,
    "label_similarity": "binary",
    "custom_loss": "examples.custom_parts:margin_loss",
    "custom_loss_weight": 0.1,
}
NOT_KNOWN = float("nan")  # what must not be read would be seen at once


def make_unlabelled(split: Split, every: int = 4) -> Split:
    """One of so many items keeps its labels."""
    is_labelled = torch.arange(len(split.labels)) % every == 0
    return split._replace(labels=torch.where(is_labelled[:, None], split.labels, NOT_KNOWN), is_labelled=is_labelled)


def gradients(model: ModelConfig) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Size of the objective's gradient with respect to each image and text of a batch, and which are labelled."""
    split = make_unlabelled(make_split(16, seed=1), every=2)
    torch.manual_seed(1)
    network = build_network(model, image_dim=20, text_dim=12, graph=GRAPH).eval()
    batch = split.batch(torch.arange(16), reconstructed=False)
    batch.image.requires_grad_()
    batch.text.requires_grad_()
    losses = compute_losses(network, batch, model)
    assert torch.isfinite(losses.total)
    found = torch.autograd.grad(losses.total, [batch.image, batch.text])
    assert split.is_labelled is not None
    return found[0].norm(dim=1), found[1].norm(dim=1), split.is_labelled


@pytest.mark.parametrize(
    ("changes", "reaches_unlabelled"),
    [
        ({}, False),
        ({"classification": "distance", "label_similarity": "jaccard"}, False),
        ({"pair_weight": 1.0}, True),
        ({"agreement_weight": 1.0}, True),
        ({"discriminator": "relu"}, True),
        ({"discriminator": "relu", "adversarial_weight": 0.0, "reconstruction_weight": 1.0}, True),
    ],
    ids=str,
)
def test_the_gradient_of_label_losses_is_zero_for_unlabelled_items(
    changes: dict[str, Any], reaches_unlabelled: bool
) -> None:
    model = parse_section(ModelConfig, SMALL | {"encoder_norm": "unit"} | LABEL_TERMS | changes, "model")
    image, text, is_labelled = gradients(model)
    for gradient in (image, text):
        assert (gradient[is_labelled] > 0).all()
        assert (gradient[~is_labelled] > 0).all() if reaches_unlabelled else (gradient[~is_labelled] == 0).all()
    assert model.has_unlabelled_terms == reaches_unlabelled


def test_with_labels_on_all_items_nothing_changes() -> None:
    split = make_split(16, seed=1)
    model = parse_section(ModelConfig, SMALL | {"preset": "best", "agreement_weight": 0.5, "pair_weight": 0.5}, "model")
    totals = []
    for is_labelled in (None, torch.ones(16, dtype=torch.bool)):
        torch.manual_seed(1)
        network = build_network(model, image_dim=20, text_dim=12, graph=GRAPH).eval()
        batch = split._replace(is_labelled=is_labelled).batch(torch.arange(16), reconstructed=False)
        totals.append(compute_losses(network, batch, model).total.item())
    assert totals[0] == totals[1]


def test_batches_have_labelled_items_and_each_unlabelled_one_once() -> None:
    split = make_unlabelled(make_split(103, seed=1), every=8)  # 13 labelled
    assert split.is_labelled is not None
    batches = split.draw_batches(5, torch.Generator().manual_seed(0))
    drawn = torch.cat(batches)
    counts = torch.bincount(drawn, minlength=103)
    assert (counts[~split.is_labelled] == 1).all()
    assert (counts[split.is_labelled] >= 6).all()  # 18 batches, three for each pass over the labelled items
    for batch in batches:
        of_batch = split.is_labelled[batch]
        assert 2 <= int(of_batch.sum()) <= 5
        assert int((~of_batch).sum()) <= 5
    assert torch.equal(torch.cat(split.draw_batches(5, torch.Generator().manual_seed(0))), drawn)


TRAIN = TrainConfig(epochs=3, batch_size=16, lr=3e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"incomplete": True},
        {"preset": "best", "pair_weight": 0.3, "agreement_weight": 0.3},
        {"preset": "best", "pair_weight": 0.3, "pair_memory": 40, "agreement_weight": 0.3, "incomplete": True},
        {"kind": "two_tower"},
        {"kind": "cca"},
        {"kind": "dscmr"},
        {"kind": "ridge"},
    ],
    ids=str,
)
def test_no_kind_reads_labels_that_are_not_known(tmp_path: Path, changes: dict[str, Any]) -> None:
    split = make_unlabelled(make_split(129, seed=1))
    if changes.pop("incomplete", False):
        split = make_incomplete(split)
    model = parse_section(ModelConfig, SMALL | changes, "model")
    result = run(tmp_path, TRAIN, model_config=model, train_split=split)
    assert all(torch.isfinite(value).all() for value in result.weights.values())


def test_remembered_pairs_take_part_and_a_training_resumes_with_them(tmp_path: Path) -> None:
    split = make_unlabelled(make_split(129, seed=1))
    pair = {"preset": "best", "pair_weight": 0.3}
    plain, with_memory = (parse_section(ModelConfig, SMALL | pair | {"pair_memory": n}, "model") for n in (0, 40))
    whole = run(tmp_path / "whole", TRAIN, model_config=with_memory, train_split=split)
    assert (
        whole.history[-1]["loss_pair"]
        > run(tmp_path / "plain", TRAIN, model_config=plain, train_split=split).history[-1]["loss_pair"]
    )
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", TRAIN, model_config=with_memory, train_split=split, logger=Recorder(interrupt_at=3))
    assert same(run(tmp_path / "cut", TRAIN, model_config=with_memory, train_split=split), whole)


@pytest.mark.parametrize("changes", [{"kind": "dscmr"}, {"preset": "best"}, {"discriminator": "affine"}], ids=str)
def test_without_unlabelled_items_it_is_a_training_on_the_others(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = parse_section(ModelConfig, SMALL | changes, "model")
    split = make_unlabelled(make_split(129, seed=1))
    alone = run(tmp_path / "alone", TRAIN, model_config=model, train_split=split.labelled())
    skipped = run(
        tmp_path / "skipped",
        TrainConfig(epochs=3, batch_size=16, lr=3e-3, unlabelled="skip"),
        model_config=model,
        train_split=split,
    )
    assert same(alone, skipped)
    used = run(tmp_path / "used", TRAIN, model_config=model, train_split=split)
    assert same(alone, used) != ("discriminator" in changes)  # what nothing can learn from is left out


def test_the_hybrid_ranking_fits_cca_on_unlabelled_pairs_too(tmp_path: Path) -> None:
    model = parse_section(ModelConfig, {"preset": "best", "embedding_dim": 16, "ranking": "hybrid"}, "model")
    split = make_unlabelled(make_split(129, seed=1))
    for unlabelled, pairs in (("use", split), ("skip", split.labelled())):
        config = parse_section(TrainConfig, {"epochs": 1, "batch_size": 16, "unlabelled": unlabelled}, "train")
        result = run(tmp_path / unlabelled, config, model_config=model, train_split=split)
        cca = fit_cca(pairs.image.numpy(), pairs.text.numpy(), regularization=1.0).scaled(64, 2)
        torch.testing.assert_close(result.weights["hybrid.image_projection"], cca.image_projection.float())


def test_labelled_items_must_be_enough(tmp_path: Path) -> None:
    split = make_unlabelled(make_split(60, seed=1), every=60)
    with pytest.raises(InputError, match="the train split has 1 images to work with, expected at least 2"):
        run(tmp_path, CONFIG, train_split=split)


def test_agreement_teaches_each_modality_what_the_other_knows() -> None:
    known, unsure = torch.tensor([[4.0, -4.0]]), torch.zeros(1, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(agreement_loss(known, unsure), unsure)
    # towards the partner's probabilities, as σ(x) - p has it
    torch.testing.assert_close(gradient, 0.5 - known.sigmoid())
    probability = torch.tensor([[0.7, 0.2]])
    entropy = -(probability * probability.log() + (1 - probability) * (1 - probability).log()).sum()
    assert agreement_loss(probability.logit(), probability.logit()).item() == pytest.approx(2 * entropy.item())

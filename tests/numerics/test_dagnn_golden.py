"""The AAAI 2021 model equals the authors' published implementation: outputs, losses, gradients, Adam steps.

The numbers were made by running the authors' code (LivXue/GNN4CMR at 429141c) in float64 on synthetic data.
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dagnn_core.config import ModelConfig, TrainConfig, parse_section
from dagnn_core.losses.objective import LossTerms, aaai21_objective
from dagnn_core.nn.dagnn import DAGNN, DAGNNOutput
from dagnn_core.training.optimizer import make_optimizer

GOLDEN = Path(os.environ.get("DAGNN_GOLDEN", Path(__file__).parents[1] / "golden"))
TERMS = ("total", "classification", "modality_invariance", "adversarial")

Numbers = dict[str, np.ndarray]


def load(name: str, prefix: str = "") -> Numbers:
    with np.load(GOLDEN / name, allow_pickle=False) as file:
        return {key.removeprefix(prefix): file[key] for key in file.files if key.startswith(prefix)}


def under(numbers: Numbers, prefix: str) -> Numbers:
    return {key.removeprefix(prefix): value for key, value in numbers.items() if key.startswith(prefix)}


def parameter_name(key: str) -> str:
    """Name of a parameter in our network from its golden key."""
    key = re.sub(r"^discriminator_(image|text)/", r"\1_discriminator/", key)
    key = re.sub(r"/linear(\d)/", lambda match: f"/linears/{int(match[1]) - 1}/", key)
    key = key.replace("encoder/linear/", "encoder/linears/0/").replace("classifier_projection", "label_gnn/projection")
    return re.sub(r"label_gnn/layer(\d)", r"label_gnn/layers/\1", key).replace("/", ".")


def build(numbers: Numbers, parameters: Numbers) -> tuple[DAGNN, ModelConfig, TrainConfig]:
    """Build the network through the ordinary configuration, every size and weight read from the numbers."""
    settings = under(numbers, "config/")
    embedding_dim, image_dim = parameters["image_encoder/linear/weight"].shape
    model = parse_section(
        ModelConfig,
        {
            "preset": "aaai21",
            "embedding_dim": embedding_dim,
            "image_to_text_hidden": parameters["image_to_text/linear1/weight"].shape[0],
            "text_to_image_hidden": parameters["text_to_image/linear1/weight"].shape[0],
            "hops": int(settings["gnn_layers"]),
            "modality_invariance_weight": float(settings["alpha"]),
            "adversarial_weight": float(settings["beta"]),
        },
        "model",
    )
    train = parse_section(
        TrainConfig,
        {
            "lr": float(settings["learning_rate"]),
            "adam_beta1": float(settings["adam_beta1"]),
            "adam_beta2": float(settings["adam_beta2"]),
        },
        "train",
    )
    network = DAGNN(
        model,
        image_dim=image_dim,
        text_dim=parameters["text_encoder/linear/weight"].shape[1],
        label_embeddings=torch.tensor(numbers["fixed/label_embeddings"]),
        adjacency=torch.tensor(numbers["fixed/adjacency_normalized"]),
    ).double()
    state = {parameter_name(key): torch.tensor(value) for key, value in parameters.items()}
    assert state.keys() == {name for name, _ in network.named_parameters()}
    network.load_state_dict(state, strict=False)
    return network, model, train


def close(got: Tensor, expected: np.ndarray, atol: float = 1e-12) -> None:
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-9, atol=atol)


@pytest.fixture
def numbers() -> Numbers:
    return load("aaai21_pgnn_gcn.npz")


def step(network: DAGNN, batch: tuple[Tensor, Tensor, Tensor], model: ModelConfig) -> tuple[DAGNNOutput, LossTerms]:
    image, text, labels = batch
    output = network(image, text)
    return output, aaai21_objective(output, labels, model)


def whole_batch(numbers: Numbers) -> tuple[Tensor, Tensor, Tensor]:
    image, text, labels = (torch.tensor(numbers[f"input/{key}"]) for key in ("image", "text", "labels"))
    return image, text, labels.double()


def test_forward_and_losses(numbers: Numbers) -> None:
    network, model, _ = build(numbers, under(numbers, "param/"))
    output, losses = step(network, whole_batch(numbers), model)
    expected = under(numbers, "forward/")
    for key, got in {
        "image_embedding": output.image_embedding,
        "text_embedding": output.text_embedding,
        "image_scores": output.image_scores,
        "text_scores": output.text_scores,
        "label_classifiers": output.classifiers,
        "translated_text": output.translated_text,
        "translated_image": output.translated_image,
        "discriminator_image_on_real_image": output.modality.real_image,
        "discriminator_image_on_translated_image": output.modality.translated_image,
        "discriminator_text_on_translated_text": output.modality.translated_text,
        "discriminator_text_on_real_text": output.modality.real_text,
    }.items():
        close(got, expected.pop(key))
    hidden = network.label_embeddings
    for hop, layer in enumerate(network.label_gnn.layers):
        hidden = layer(hidden, network.adjacency)
        close(hidden, expected.pop(f"label_gnn/layer{hop}"))
    assert not expected, "golden outputs that nothing was compared with"
    for term in TERMS:
        close(getattr(losses, term), numbers[f"loss/{term}"])


def test_gradients(numbers: Numbers) -> None:
    network, model, _ = build(numbers, under(numbers, "param/"))
    _, losses = step(network, whole_batch(numbers), model)
    losses.total.backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    for key, expected in under(numbers, "grad/").items():
        gradient = gradients.pop(parameter_name(key))
        assert gradient is not None
        close(gradient, expected)
    assert not gradients


def test_adam_steps(numbers: Numbers) -> None:
    start = under(numbers, "param/")
    network, model, train = build(numbers, start)
    optimizer = make_optimizer(network, train)
    batch = whole_batch(numbers)
    for number in range(1, 6):
        _, losses = step(network, batch, model)
        for term in TERMS:
            close(getattr(losses, term), numbers[f"steps/{term}"][number - 1])
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        if f"step{number}/param/image_encoder/linear/weight" in numbers:
            parameters = dict(network.named_parameters())
            for key, expected in under(numbers, f"step{number}/param/").items():
                got = parameters[parameter_name(key)].detach().numpy()
                np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11)
                # a step is 5e-5, so parameters alone would hide a wrong update
                np.testing.assert_allclose((got - start[key]) / train.lr, (expected - start[key]) / train.lr, atol=1e-6)


def test_trajectory_of_sixty_steps() -> None:
    common = load("trajectory.npz")
    numbers = {**under(common, "aaai21_pgnn_gcn/"), **{k: v for k, v in common.items() if k.startswith("input/")}}
    start = under(numbers, "initial/param/")
    network, model, train = build(numbers, start)
    optimizer = make_optimizer(network, train)
    image, text, labels = whole_batch(numbers)
    for number, rows in enumerate(numbers["input/batches"]):
        _, losses = step(network, (image[rows], text[rows], labels[rows]), model)
        for term in TERMS:
            close(getattr(losses, term), numbers[f"steps/{term}"][number])
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    parameters = dict(network.named_parameters())
    for key, expected in under(numbers, "final/param/").items():
        np.testing.assert_allclose(parameters[parameter_name(key)].detach(), expected, rtol=1e-9, atol=1e-11)
    network.eval()
    output = network(image, text)
    close(output.image_embedding, numbers["final/eval/image_embedding"])
    close(output.text_embedding, numbers["final/eval/text_embedding"])
    close(output.image_scores, numbers["final/eval/image_scores"])
    close(output.text_scores, numbers["final/eval/text_scores"])
    close(output.classifiers, numbers["final/eval/label_classifiers"])

"""Every published variant equals the authors' implementation: outputs, losses, gradients, Adam steps, a trajectory.

The numbers were made by running the authors' code (LivXue/GNN4CMR, `aaai21` at 429141c, `tpami22` at 2c13673) in
float64 on synthetic data. A file is named PRESET_GRAPH_LAYER; sizes, thresholds and weights are read from it, and the
networks are built through the ordinary configuration.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import parse_section
from dagnn_core.config.train import TrainConfig
from dagnn_core.label_graph.cooccurrence import conditional_probabilities, normalize_adjacency, threshold_adjacency
from dagnn_core.losses.batch import Batch, Losses
from dagnn_core.model.kinds import build_network
from dagnn_core.nn.dagnn import DAGNN, DAGNNOutput
from dagnn_core.nn.label_gnn import LabelGNN
from dagnn_core.nn.label_graphs import FixedGraph, GraphTensors
from dagnn_core.nn.objective import dagnn_objective
from dagnn_core.retrieval.metrics import evaluate_retrieval
from dagnn_core.training.optimizer import make_optimizer

GOLDEN = Path(os.environ.get("DAGNN_GOLDEN", Path(__file__).parents[1] / "golden"))
CASES = sorted(path.stem for path in GOLDEN.glob("*_?gnn_*.npz"))
PARTS = ("image_to_text", "text_to_image", "image_discriminator", "text_discriminator")

Numbers = dict[str, np.ndarray]


def load(name: str) -> Numbers:
    with np.load(GOLDEN / name, allow_pickle=False) as file:
        return dict(file.items())


def under(numbers: Numbers, prefix: str) -> Numbers:
    return {key.removeprefix(prefix): value for key, value in numbers.items() if key.startswith(prefix)}


TRAJECTORIES = sorted({match[1] for key in load("trajectory.npz") if (match := re.match(r"(.*)/steps/total", key))})


def our_name(key: str) -> str:
    """Name of a parameter or buffer in our network from its golden key."""
    key = re.sub(r"^discriminator_(image|text)/", r"\1_discriminator/", key)
    key = re.sub(r"/linear(\d)/", lambda match: f"/linears/{int(match[1]) - 1}/", key)
    key = key.replace("/linear/", "/linears/0/").replace("/batchnorm/", "/norm/")
    key = re.sub(r"label_gnn/layer(\d)", r"label_classifiers/layers/\1", key)
    key = key.replace("classifier_projection", "label_classifiers/aggregation/projection")
    key = re.sub(r"^(label_embeddings)$", r"label_classifiers/graph/\1", key)
    key = f"adversary/{key}" if key.startswith(PARTS) else key
    return key.replace("/", ".")


def theirs(network: DAGNN, values: Mapping[str, Tensor], keys: Numbers) -> Iterator[tuple[Tensor, str]]:
    """Our values, by name, for each of the golden keys, in the golden shape."""
    unused = dict(values)
    metrics = unused.pop("label_classifiers.graph.metrics", None)
    for key, expected in keys.items():
        if key.startswith("similarity_metric/w"):
            assert metrics is not None
            yield metrics[int(key.rpartition("w")[2])], key
        else:
            yield unused.pop(our_name(key)).reshape(expected.shape), key
    assert not unused, "values that nothing was compared with"


def build(case: str, numbers: Numbers, start: str = "") -> tuple[DAGNN, ModelConfig, TrainConfig]:
    """Build the network by its preset, with the weights below `start`."""
    preset, graph_kind, layer = case.split("_")
    settings = {key: value.item() for key, value in under(numbers, "config/").items()}
    param = under(numbers, f"{start}param/")
    is_2022 = preset == "tpami22"
    values = {
        "preset": preset,
        "graph": {"pgnn": "fixed", "ignn": "learned"}[graph_kind],
        "graph_layer": layer,
        "embedding_dim": param["image_encoder/linear/weight"].shape[0],
        "image_to_text_hidden": param["image_to_text/linear1/weight"].shape[0],
        "text_to_image_hidden": param["text_to_image/linear1/weight"].shape[0],
        "hops": settings["gnn_layers"],
        "classification_weight" if is_2022 else "modality_invariance_weight": settings["alpha"],
        "adversarial_weight": settings["beta"],
    }
    if is_2022:
        values |= {"temperature": settings["temperature"], "intra_modal_weight": settings["gamma"]}
    if graph_kind == "ignn":
        values |= {"graph_metrics": settings["similarity_metrics"], "graph_mix": settings["graph_mix"]}
    model = parse_section(ModelConfig, values, "model")
    optimization = {
        "lr": "learning_rate",
        "adam_beta1": "adam_beta1",
        "adam_beta2": "adam_beta2",
        "adam_eps": "adam_eps",
    }
    train = parse_section(
        TrainConfig, {"preset": preset} | {key: settings[name] for key, name in optimization.items()}, "train"
    )
    conditional = conditional_probabilities(numbers["input/cooccurrence_counts"], numbers["input/label_counts"])
    adjacency = threshold_adjacency(conditional, threshold=settings["threshold"], edge_weight=0.5, self_loop=1.0)
    embeddings = param.get("label_embeddings", numbers.get("fixed/label_embeddings"))
    network = build_network(
        model,
        image_dim=numbers["input/image"].shape[1],
        text_dim=numbers["input/text"].shape[1],
        graph=GraphTensors(
            torch.tensor(embeddings),
            torch.tensor(adjacency),
            torch.tensor(normalize_adjacency(adjacency)),
            settings["threshold"],
        ),
    )
    assert isinstance(network, DAGNN)
    network.double()
    with torch.no_grad():
        for kind, values_of in (("param", network.named_parameters()), ("buffer", batch_norm_buffers(network))):
            expected = under(numbers, f"{start}{kind}/")
            for value, key in theirs(network, dict(values_of), expected):
                value.copy_(torch.tensor(expected[key]))
    return network, model, train


def batch_norm_buffers(network: DAGNN) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in network.named_buffers() if ".norm." in name)


def close(got: Tensor, expected: np.ndarray, atol: float = 1e-12) -> None:
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-9, atol=atol)


def compare_outputs(network: DAGNN, output: DAGNNOutput, numbers: Numbers) -> None:
    """Compare all golden outputs; each must have its own here."""
    expected = dict(numbers)
    assert output.translation is not None
    modality = output.translation.modality
    for key, got in {
        "image_embedding": output.image_embedding,
        "text_embedding": output.text_embedding,
        "image_scores": output.image_scores,
        "text_scores": output.text_scores,
        "label_classifiers": output.classifiers,
        "translated_text": output.translation.text,
        "translated_image": output.translation.image,
        "discriminator_image_on_real_image": modality.real_image,
        "discriminator_image_on_translated_image": modality.translated_image,
        "discriminator_text_on_translated_text": modality.translated_text,
        "discriminator_text_on_real_text": modality.real_text,
    }.items():
        close(got, expected.pop(key))
    label_gnn = network.label_classifiers
    assert isinstance(label_gnn, LabelGNN)
    graph = label_gnn.graph()
    hidden = graph.nodes
    for hop, layer in enumerate(label_gnn.layers):
        hidden = layer(hidden, graph)
        close(hidden, expected.pop(f"label_gnn/layer{hop}"))
    if "adjacency_normalized" in expected:
        close(graph.normalized, expected.pop("adjacency_normalized"))
        degrees = expected["adjacency"].sum(axis=1) ** 0.5
        close(graph.normalized, expected.pop("adjacency").T / degrees[:, None] / degrees)
    assert not expected, "golden outputs that nothing was compared with"


def whole_batch(numbers: Numbers) -> Batch:
    image, text, labels = (torch.tensor(numbers[f"input/{key}"]).double() for key in ("image", "text", "labels"))
    return pairs(image, text, labels)


def pairs(image: Tensor, text: Tensor, labels: Tensor) -> Batch:
    every = torch.arange(len(image))
    return Batch(image, text, labels, labels, len(image), len(text), every, every)


def some_rows(batch: Batch, rows: np.ndarray) -> Batch:
    return pairs(batch.image[rows], batch.text[rows], batch.image_labels[rows])


def step(network: DAGNN, batch: Batch, model: ModelConfig) -> tuple[DAGNNOutput, Losses]:
    output = network(batch.image, batch.text, num_real_image=batch.num_real_image, num_real_text=batch.num_real_text)
    return output, dagnn_objective(network, output, batch, model)


def compare_losses(losses: Losses, expected: Mapping[str, float]) -> None:
    assert losses.terms.keys() | {"total"} == expected.keys()
    for name, value in expected.items():
        close(losses.total if name == "total" else losses.terms[name], np.array(value))


def compare_state(network: DAGNN, numbers: Numbers, prefix: str, start: Numbers | None = None, lr: float = 0.0) -> None:
    parameters = under(numbers, f"{prefix}param/")
    for value, key in theirs(network, dict(network.named_parameters()), parameters):
        got, expected = value.detach().numpy(), parameters[key]
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11, err_msg=key)
        if start is not None:  # a step is 5e-5, so parameters alone would hide a wrong update
            updates = ((after - start[key]) / lr for after in (got, expected))
            np.testing.assert_allclose(*updates, rtol=0, atol=1e-6, err_msg=key)
    buffers = under(numbers, f"{prefix}buffer/")
    for value, key in theirs(network, dict(batch_norm_buffers(network)), buffers):
        close(value, buffers[key])


def train_step(network: DAGNN, optimizer: torch.optim.Optimizer, losses: Losses) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(losses.total)
    optimizer.step()


def test_there_are_cases_of_both_versions_and_graphs() -> None:
    kinds = {tuple(case.split("_")[:2]) for case in CASES}
    assert kinds == {(preset, graph) for preset in ("aaai21", "tpami22") for graph in ("pgnn", "ignn")}


@pytest.mark.parametrize("case", CASES)
def test_forward_and_losses(case: str) -> None:
    numbers = load(f"{case}.npz")
    network, model, _ = build(case, numbers)
    label_gnn = network.label_classifiers
    assert isinstance(label_gnn, LabelGNN)
    if isinstance(label_gnn.graph, FixedGraph):
        close(label_gnn.graph.normalized, numbers["fixed/adjacency_normalized"])
        np.testing.assert_array_equal(label_gnn.graph.neighbours, numbers["fixed/adjacency"] > 0)
    else:
        close(label_gnn.graph.initial, numbers["fixed/initial_graph"])
    output, losses = step(network, whole_batch(numbers), model)
    compare_outputs(network, output, under(numbers, "forward/"))
    compare_losses(losses, under(numbers, "loss/"))


@pytest.mark.parametrize("case", CASES)
def test_gradients(case: str) -> None:
    numbers = load(f"{case}.npz")
    network, model, _ = build(case, numbers)
    _, losses = step(network, whole_batch(numbers), model)
    torch.autograd.backward(losses.total)
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in network.named_parameters()
    }
    expected = under(numbers, "grad/")
    for gradient, key in theirs(network, gradients, expected):
        close(gradient, expected[key])


@pytest.mark.parametrize("case", CASES)
def test_adam_steps(case: str) -> None:
    numbers = load(f"{case}.npz")
    network, model, train = build(case, numbers)
    optimizer = make_optimizer(network, train)
    batch = whole_batch(numbers)
    compared = set()
    expected = under(numbers, "steps/")
    for number in range(1, len(expected["total"]) + 1):
        _, losses = step(network, batch, model)
        compare_losses(losses, {name: values[number - 1] for name, values in expected.items()})
        train_step(network, optimizer, losses)
        if under(numbers, f"step{number}/param/"):
            compare_state(network, numbers, f"step{number}/", under(numbers, "param/"), train.lr)
            compared.add(number)
    assert compared == {int(match[1]) for key in numbers if (match := re.match(r"step(\d+)/param", key))}
    evaluated = under(numbers, f"step{number}/eval/")
    assert bool(evaluated) == (model.preset == "tpami22")
    output, _ = step(network.eval(), batch, model)
    for name, values in evaluated.items():
        close(output.classifiers if name == "label_classifiers" else getattr(output, name), values)


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("tpami22")])
def test_evaluation_mode(case: str) -> None:
    numbers = load(f"{case}.npz")
    network, model, _ = build(case, numbers)
    output, losses = step(network.eval(), whole_batch(numbers), model)
    expected = under(numbers, "eval/")
    compare_outputs(network, output, {key: value for key, value in expected.items() if not key.startswith("loss/")})
    compare_losses(losses, under(expected, "loss/"))


@pytest.mark.parametrize("case", TRAJECTORIES)
def test_trajectory(case: str) -> None:
    common = load("trajectory.npz")
    numbers = under(common, f"{case}/") | {f"input/{key}": value for key, value in under(common, "input/").items()}
    network, model, train = build(case, numbers, "initial/")
    optimizer = make_optimizer(network, train)
    everything = whole_batch(numbers)
    expected = under(numbers, "steps/")
    for number, rows in enumerate(numbers["input/batches"]):
        _, losses = step(network, some_rows(everything, rows), model)
        compare_losses(losses, {name: values[number] for name, values in expected.items()})
        train_step(network, optimizer, losses)
    compare_state(network, numbers, "final/", under(numbers, "initial/param/"), train.lr)
    output, _ = step(network.eval(), everything, model)
    for name in ("image_embedding", "text_embedding", "image_scores", "text_scores"):
        close(getattr(output, name), numbers[f"final/eval/{name}"])
    close(output.classifiers, numbers["final/eval/label_classifiers"])
    image, text = (embedding.detach().numpy() for embedding in (output.image_embedding, output.text_embedding))
    metrics = evaluate_retrieval(image, text, numbers["input/labels"].astype(np.uint8))
    for ours, direction in (("map_i2t", "image_to_text"), ("map_t2i", "text_to_image")):
        assert metrics[ours] == pytest.approx(float(numbers[f"final/eval/map_{direction}"]), abs=1e-12)

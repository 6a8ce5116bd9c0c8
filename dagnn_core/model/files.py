"""The files of the `model` artifact, written and read; a network embeds features without any encoder.

`model.safetensors` (weights, and the label graph as buffers), `model.json` (architecture, dimensions, label names),
`image_encoder/` and `text_encoder/` (fitted state), `history.jsonl` (one line an epoch), `val_metrics.json`.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from dagnn_core.arrays import opening
from dagnn_core.artifacts import Artifact, read_artifact, write_json
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import parse_section
from dagnn_core.disk import folder_bytes, writing
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.features import IMAGE_ENCODER, TEXT_ENCODER
from dagnn_core.model.kinds import build_network, kind_of
from dagnn_core.nn.cross_modal import CrossModalNetwork
from dagnn_core.nn.label_graphs import GraphTensors
from dagnn_core.nn.lifted import as_other_modality, output_dim
from dagnn_core.records import ModelFile, parse_json, parse_shape
from dagnn_core.tensors import save_tensors

KIND = "model"
EMBEDDING_BATCH = 1024


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network opened for use, in evaluation mode: it embeds features."""

    artifact: Artifact
    config: ModelConfig
    label_names: tuple[str, ...]
    network: CrossModalNetwork
    image_dim: int
    """Dimension d_I of the image features."""
    text_dim: int
    """Dimension d_T of the text features."""

    @classmethod
    def read(cls, path: Path, *, verify: bool = False, device: str = "cpu") -> Self:
        """Open a model artifact.

        Args:
            path: its folder.
            verify: check every sha256.
            device: where the network runs.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        artifact = read_artifact(path, KIND, verify=verify)
        file, weights = artifact.file("model.json"), artifact.file("model.safetensors")
        with opening(file, artifact.remedy):
            record = parse_shape(ModelFile, parse_json(file.read_bytes()))
            try:
                config = parse_section(ModelConfig, record.model, "model")
            except InputError as error:
                raise ValueError(str(error)) from error
        with opening(weights, artifact.remedy):
            state = load_file(weights)
        num_labels = len(record.label_names)
        largest = max(record.image_dim, record.text_dim, record.label_dim, num_labels, config.embedding_dim)
        if largest > sum(value.numel() for value in state.values()):  # before the memory for it is asked for
            raise ArtifactError(f"{weights} does not fit {file.name}: {largest} is more than it holds", artifact.remedy)
        edges = torch.zeros(num_labels, num_labels)  # in place of those that are read
        try:
            network = build_network(
                config,
                image_dim=record.image_dim,
                text_dim=record.text_dim,
                graph=GraphTensors(torch.zeros(num_labels, record.label_dim), edges, edges, record.threshold),
            )
            network.load_state_dict(state)
        except RuntimeError as error:
            raise ArtifactError(f"{weights} does not fit {file.name} ({error})", artifact.remedy) from error
        return cls(
            artifact=artifact,
            config=config,
            label_names=record.label_names,
            network=network.to(device).eval(),
            image_dim=record.image_dim,
            text_dim=record.text_dim,
        )

    def embed_image_features(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Embed image features.

        Shape:
            [N, d_I] -> [N, d].

        Raises:
            InputError: another dimension than the model was trained on.
        """
        return _embed(self.network, self.network.embed_image, features, self.image_dim, "image")

    def embed_text_features(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Embed text features.

        Shape:
            [N, d_T] -> [N, d].

        Raises:
            InputError: another dimension than the model was trained on.
        """
        return _embed(self.network, self.network.embed_text, features, self.text_dim, "text")

    @torch.inference_mode()
    def label_probabilities(self, embeddings: NDArray[np.floating[Any]]) -> NDArray[np.float32] | None:
        """The probability of each label, by an embedding of either modality; None where the model is not calibrated.

        Shape:
            [N, d] -> [N, C].
        """
        device = next(self.network.parameters()).device
        embedding = torch.tensor(np.asarray(embeddings, dtype=np.float32), device=device)
        probabilities = self.network.label_probabilities(embedding)
        return None if probabilities is None else probabilities.cpu().numpy()

    def within_modality(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings as queries among the embeddings of their own modality: their cosines then rank as across the two.

        Shape:
            [..., d] -> the same.
        """
        return as_other_modality(embeddings) if self.network.is_lifted else embeddings


def write_model(
    directory: Path,
    *,
    config: ModelConfig,
    state: Mapping[str, Tensor],
    graph: GraphTensors,
    features: Artifact,
    history: Sequence[Mapping[str, float]],
    val_metrics: Mapping[str, float],
) -> dict[str, Any]:
    """Write the files of a model into a draft directory; return the manifest's content.

    Args:
        directory: where the files go.
        config: the architecture.
        state: weights and buffers of the network.
        graph: what it was built on.
        features: the artifact that the model was trained on, whose encoders go into the model.
        history: one mapping an epoch.
        val_metrics: metrics of the kept epoch on the validation split.
    """
    save_tensors(directory / "model.safetensors", state)
    if kind_of(config).fit:  # the fit has chosen the dimension
        config = replace(config, embedding_dim=len(state["image_encoder.bias"]))
    record = {
        "model": asdict(config),
        "label_dim": graph.embeddings.shape[1],
        "threshold": graph.threshold,
        "image_dim": features.content["image"]["dim"],
        "text_dim": features.content["text"]["dim"],
        "label_names": features.content["label_names"],
    }
    write_json(directory / "model.json", record)
    write_json(directory / "val_metrics.json", dict(val_metrics))
    lines = "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in history)
    with writing(directory / "history.jsonl"):
        (directory / "history.jsonl").write_text(lines, encoding="utf-8")
    for encoder in (IMAGE_ENCODER, TEXT_ENCODER):
        with writing(directory / encoder, need=folder_bytes(features.path / encoder)):
            shutil.copytree(features.path / encoder, directory / encoder)
    return record | {
        "output_dim": output_dim(
            config,
            num_labels=len(record["label_names"]),
            image_dim=record["image_dim"],
            text_dim=record["text_dim"],
        ),
        "image": features.content["image"],
        "text": features.content["text"],
    }


@torch.inference_mode()
def _embed(
    network: nn.Module, embed: Callable[[Tensor], Tensor], features: NDArray[np.floating[Any]], dim: int, modality: str
) -> NDArray[np.float32]:
    if features.ndim != 2 or features.shape[1] != dim:
        raise InputError(
            f"{modality} features have shape {list(features.shape)}, expected [N, {dim}] as in training",
            "extract them with the encoder of this model",
        )
    device = next(network.parameters()).device
    batches = [
        embed(torch.tensor(features[start : start + EMBEDDING_BATCH], dtype=torch.float32, device=device)).cpu()
        for start in range(0, max(len(features), 1), EMBEDDING_BATCH)
    ]
    embeddings: NDArray[np.float32] = torch.cat(batches).numpy()
    return embeddings

"""The last blocks of a Hugging Face model learn from the labels of the training split, before it embeds anything.

A linear classifier of the labels learns on the vectors of the frozen network first, then together with the blocks, so
that these do not learn from a classifier that knows nothing (Kumar et al., "Fine-Tuning can Distort Pretrained Features
and Underperform Out-of-Distribution", ICLR 2022). The validation split says which epoch is kept; epoch 0 is the frozen
network. The tuned model is written below the cache as any Hugging Face model, and opened again.

# B batch, D dimension of the vectors, C labels
"""

import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import linear

from dagnn_core.artifacts import digest_of_values, write_json
from dagnn_core.config.features import MIN_TUNED_BATCH, FeaturesConfig
from dagnn_core.data.dataset import Dataset
from dagnn_core.devices import choose_device
from dagnn_core.disk import writing
from dagnn_core.drafts import draft_of
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.encoders.blocks import train_last_blocks
from dagnn_core.features.encoders.checkpoint import Checkpoint, read_object
from dagnn_core.features.encoders.huggingface import HuggingFaceBackbone, HuggingFaceImageBackbone
from dagnn_core.features.extraction.embedding import (
    arithmetic,
    clear_memory_error,
    image_namer,
    num_workers,
    read_images,
)
from dagnn_core.features.extraction.image_loader import NumberedImage, load_pixels
from dagnn_core.features.extraction.vector_cache import data_digests
from dagnn_core.locks import lock_folder, try_lock_folder
from dagnn_core.progress import track
from dagnn_core.tensors import optimizer_tensors, read_checkpoint, restore_optimizer, under, write_checkpoint

log = logging.getLogger(__name__)

VERSION = 1  # of the method: it keys the cache
MODEL = "model"
RECORD = "tuning.json"
CHECKPOINT = "checkpoint.safetensors"

# of the classifier on the frozen network
CLASSIFIER_EPOCHS = 100
CLASSIFIER_PATIENCE = 5
CLASSIFIER_LR = 1e-3

VARIANCE_EPS = 1e-10

Model = TypeVar("Model", bound=HuggingFaceBackbone)
Load = Callable[[Sequence[Tensor]], Iterable[tuple[Tensor, Any]]]
"""Rows of batches, [B] each -> the same rows with what `forward` takes."""


def tune(backbone: Model, dataset: Dataset, config: FeaturesConfig, cache: Path) -> Model:
    """Tune the last blocks of a model, or find what an earlier run has tuned.

    Same seed, same kind of machine: same weights to the bit on a CPU, also after an interruption.

    Args:
        backbone: the model as published, on the CPU; its weights are changed.
        dataset: its training items that have the modality and a label are learned from, and such validation items
            choose the epoch.
        config: what is tuned, and how.
        cache: folder below which tuned models are kept and looked for, and an interrupted tuning resumes.

    Returns:
        The tuned model, on the CPU.

    Raises:
        InputError: the model has not so many blocks or cannot be written; too few labelled items to learn from or to
            validate on; an image is missing or cannot be decoded; the loss is not finite; there is no GPU where one is
            asked for.
        BackendError: memory ran out, a process that decodes images died, or the disk refuses a file.
    """
    folder = cache / "tuned" / digest_of_values(_key(backbone, dataset, config))
    with _alone(folder):
        tuned = _find(backbone, folder)
        if tuned is not None:
            log.info("%s: the tuned model of an earlier run, from %s", _name(backbone), folder)
            _remove_checkpoints(folder)  # of a run that was killed before it did
            return tuned
        train_last_blocks(
            backbone.network,
            _num_blocks(backbone, config),
            lambda: backbone.forward(backbone.example),
            key=f"features.{backbone.modality}_tuned_blocks",
            model=backbone.model,
        )
        rows = {split: _labelled_rows(dataset, backbone, split) for split in ("train", "val")}
        device = choose_device(config.device, key="features.device")
        with _loading(dataset, backbone, config, device, folder, torch.cat(list(rows.values()))) as load:
            _Tuning(backbone, load, torch.from_numpy(dataset.labels), config, device, **rows).run(folder / CHECKPOINT)
        _write(backbone, folder)
        _remove_checkpoints(folder)
        tuned = _find(backbone, folder)
    assert tuned is not None
    return tuned


def _standardise(vectors: Tensor) -> Tensor:
    """Vectors [B, D] with mean 0 and deviation 1 in each dimension, as batch normalisation; a set has its own ones.

    So the scale of a network's vectors does not matter, nor where their mean drifts while the network learns.
    """
    variance, mean = torch.var_mean(vectors, dim=0, correction=0)
    return (vectors - mean) * torch.rsqrt(variance + VARIANCE_EPS)


class _Tuning:
    """A tuning, with all that changes in it."""

    def __init__(
        self,
        backbone: HuggingFaceBackbone,
        load: Load,
        labels: Tensor,
        config: FeaturesConfig,
        device: torch.device,
        *,
        train: Tensor,
        val: Tensor,
    ) -> None:
        self._backbone, self._load, self._config, self._device = backbone, load, config, device
        self._labels, self._train, self._val = labels, train, val
        self._name = _name(backbone)
        backbone.to(device)
        self._tuned = {name: value for name, value in backbone.network.named_parameters() if value.requires_grad}
        self._weight = torch.zeros(labels.shape[1], backbone.dim, device=device, requires_grad=True)
        self._bias = torch.zeros(labels.shape[1], device=device, requires_grad=True)
        # evaluation mode stays: no dropout, and batch normalisation keeps its statistics
        self._optimizer = torch.optim.AdamW([*self._tuned.values(), self._weight, self._bias])
        self._losses: list[float] = []
        self._best: dict[str, Tensor] = {}

    def run(self, checkpoint: Path) -> None:
        """Tune, from the checkpoint where there is one; the network then has the weights of the kept epoch."""
        generator = torch.Generator().manual_seed(self._config.seed)
        epochs = self._config.tuning_epochs
        orders = [torch.randperm(len(self._train), generator=generator) for _ in range(epochs)]
        self._restore(checkpoint)
        if not self._losses:
            self._end_epoch(checkpoint, self._fit_classifier())
            log.info("%s, epoch 0, frozen: val loss %.4f", self._name, self._losses[0])
        for epoch in range(len(self._losses), epochs + 1):
            train_loss = self._train_epoch(epoch, self._train[orders[epoch - 1]])
            self._end_epoch(checkpoint, self._val_loss(self._embed(self._val, "validating"), epoch))
            losses = (train_loss, self._losses[epoch])
            log.info("%s, epoch %d of %d: train loss %.4f, val loss %.4f", self._name, epoch, epochs, *losses)
        kept = self._losses.index(min(self._losses))
        losses = (self._losses[kept], self._losses[0])
        log.info("%s: epoch %d is kept, val loss %.4f, frozen %.4f", self._name, kept, *losses)
        if kept == 0:
            log.warning("%s: no epoch lowers the val loss, so its weights stay; lower features.tuning_lr", self._name)
        with torch.no_grad():
            for name, parameter in self._tuned.items():
                parameter.copy_(self._best[name])
        self._backbone.to(torch.device("cpu"))

    def _train_epoch(self, epoch: int, rows: Tensor) -> float:
        """Learn from all training items once; returns their mean loss."""
        batches = self._batches(rows)
        total = torch.zeros((), device=self._device)
        for step, (here, inputs) in enumerate(self._loaded(batches, f"tuning, epoch {epoch}")):
            done = (epoch - 1 + step / len(batches)) / self._config.tuning_epochs
            for group in self._optimizer.param_groups:
                group["lr"] = self._config.tuning_lr * (1 + math.cos(math.pi * done)) / 2
            with self._memory_error():
                loss = self._loss(_standardise(self._forward(inputs)), self._labels_of(here))
                self._optimizer.zero_grad()
                torch.autograd.backward(loss)
                self._optimizer.step()
            total += loss.detach() * len(here)
        return self._finite(total.item() / len(rows), epoch)

    def _fit_classifier(self) -> float:
        """Fit the classifier on the frozen network; returns its loss on the validation items."""
        vectors = _standardise(self._embed(self._train, "embedding training items"))
        val = self._embed(self._val, "embedding validation items")
        labels = self._labels_of(self._train)
        optimizer = torch.optim.AdamW([self._weight, self._bias], lr=CLASSIFIER_LR)
        generator = torch.Generator().manual_seed(self._config.seed)
        best_loss, best_epoch = math.inf, 0
        for epoch in range(1, CLASSIFIER_EPOCHS + 1):
            for places in self._batches(torch.randperm(len(vectors), generator=generator)):
                here = places.to(self._device)
                optimizer.zero_grad()
                torch.autograd.backward(self._loss(vectors[here], labels[here]))
                optimizer.step()
            loss = self._val_loss(val, 0)
            if loss < best_loss:
                best_loss, best_epoch = loss, epoch
                best = [self._weight.detach().clone(), self._bias.detach().clone()]
            elif epoch - best_epoch == CLASSIFIER_PATIENCE:
                break
        self._set_classifier(*best)
        return best_loss

    def _end_epoch(self, checkpoint: Path, val_loss: float) -> None:
        if val_loss < min(self._losses, default=math.inf):
            self._best = {name: value.detach().cpu().clone() for name, value in self._tuned.items()}
        self._losses.append(val_loss)
        tensors = {f"tuned.{name}": value.detach() for name, value in self._tuned.items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        tensors |= {"weight": self._weight.detach(), "bias": self._bias.detach()}
        write_checkpoint(checkpoint, tensors | optimizer_tensors(self._optimizer), json.dumps(self._losses))

    def _restore(self, checkpoint: Path) -> None:
        if not checkpoint.is_file():
            return
        try:
            tensors, record = read_checkpoint(checkpoint)
        except ArtifactError as error:
            log.warning("%s: the tuning starts over", error)
            return
        self._losses = json.loads(record)
        self._best = under(tensors, "best.")
        self._set_classifier(tensors["weight"], tensors["bias"])
        restore_optimizer(self._optimizer, tensors)
        with torch.no_grad():
            for name, value in under(tensors, "tuned.").items():
                self._tuned[name].copy_(value)
        log.info("%s: resuming after epoch %d from %s", self._name, len(self._losses) - 1, checkpoint)

    @torch.no_grad()
    def _embed(self, rows: Tensor, what: str) -> Tensor:
        """Vectors of some items, [len(rows), D]."""
        vectors = []
        for _, inputs in self._loaded(self._batches(rows), what):
            with self._memory_error():
                vectors.append(self._forward(inputs))
        return torch.cat(vectors)

    @torch.no_grad()
    def _val_loss(self, vectors: Tensor, epoch: int) -> float:
        return self._finite(self._loss(_standardise(vectors), self._labels_of(self._val)).item(), epoch)

    def _loss(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Mean over items and labels of what the classifier makes of standardised vectors."""
        return cross_entropy(linear(vectors, self._weight, self._bias), labels)

    @torch.no_grad()
    def _set_classifier(self, weight: Tensor, bias: Tensor) -> None:
        self._weight.copy_(weight)
        self._bias.copy_(bias)

    def _finite(self, loss: float, epoch: int) -> float:
        if not math.isfinite(loss):
            remedy = "lower features.tuning_lr" if epoch else "set features.precision to float32"
            raise InputError(f"{self._name}: the loss is not finite in epoch {epoch}", remedy)
        return loss

    def _forward(self, inputs: Any) -> Tensor:
        with arithmetic(self._config.precision, self._device):
            return self._backbone.forward(inputs).float()

    def _labels_of(self, rows: Tensor) -> Tensor:
        return self._labels[rows].to(self._device, torch.float32)

    def _batches(self, rows: Tensor) -> Sequence[Tensor]:
        """Batches of equal size, but for one item: a small one at the end would count as much as a large one."""
        return rows.tensor_split(math.ceil(len(rows) / self._config.batch_size))

    def _loaded(self, batches: Sequence[Tensor], what: str) -> Iterator[tuple[Tensor, Any]]:
        return track(
            self._load(batches),
            description=f"{self._name}, {what}",
            total=sum(map(len, batches)),
            size=lambda batch: len(batch[0]),
        )

    def _memory_error(self) -> Any:
        return clear_memory_error(self._config.batch_size, f"{self._backbone.modality}s")


def _remove_checkpoints(folder: Path) -> None:
    for path in folder.glob(f"{Path(CHECKPOINT).stem}.*"):
        path.unlink(missing_ok=True)


def _name(backbone: HuggingFaceBackbone) -> str:
    return f"tuned {backbone.modality} model"


def _num_blocks(backbone: HuggingFaceBackbone, config: FeaturesConfig) -> int:
    return config.image_tuned_blocks if backbone.modality == "image" else config.text_tuned_blocks


def _key(backbone: HuggingFaceBackbone, dataset: Dataset, config: FeaturesConfig) -> dict[str, Any]:
    """Everything that decides the weights."""
    return {
        "version": VERSION,
        "data": data_digests(dataset),
        "labels": hashlib.sha256(np.ascontiguousarray(dataset.labels).data).hexdigest(),
        "modality": backbone.modality,
        "encoder": dict(backbone.identity),
        "blocks": _num_blocks(backbone, config),
        **{name: getattr(config, name) for name in ("tuning_epochs", "tuning_lr", "seed", "batch_size", "precision")},
    }


def _labelled_rows(dataset: Dataset, backbone: HuggingFaceBackbone, split: str) -> Tensor:
    has = dataset.has_image if backbone.modality == "image" else dataset.has_text
    rows = np.flatnonzero((dataset.splits == split) & has & dataset.labels.any(axis=1))
    if len(rows) < MIN_TUNED_BATCH:
        key = f"features.{backbone.modality}_tuned_blocks"
        use = "learns from labelled training items" if split == "train" else "chooses the epoch by labelled val items"
        raise InputError(
            f"{key} is above 0, which {use} that have {'an image' if backbone.modality == 'image' else 'a text'}, at "
            f"least {MIN_TUNED_BATCH}, but there are {len(rows)}",
            f"correct the splits of the data set, or set {key} to 0",
        )
    return torch.from_numpy(rows)


@contextmanager
def _loading(  # noqa: PLR0917  # it has two modalities to serve
    dataset: Dataset,
    backbone: HuggingFaceBackbone,
    config: FeaturesConfig,
    device: torch.device,
    folder: Path,
    rows: Tensor,
) -> Iterator[Load]:
    """What loads batches of these rows, in any order."""
    if not isinstance(backbone, HuggingFaceImageBackbone):
        yield lambda batches: ((here, [dataset.texts[row] for row in here.tolist()]) for here in batches)
        return
    wanted = np.zeros(len(dataset), dtype=np.bool_)
    wanted[rows.numpy()] = True
    preprocess = backbone.preprocess
    # the data set gives whole row groups: encoded images in a file of their own are there in any order
    with tempfile.TemporaryFile(dir=folder) as file:
        places = {}
        with writing(folder):
            for row, encoded in read_images(dataset, wanted, backbone.kind):
                places[row] = (len(encoded), file.tell())
                file.write(encoded)
            file.flush()

        def load(batches: Sequence[Tensor]) -> Iterable[tuple[Tensor, Any]]:
            return load_pixels(
                (
                    [NumberedImage(row, os.pread(file.fileno(), *places[row])) for row in here.tolist()]
                    for here in batches
                ),
                preprocess,
                name=image_namer(dataset),
                num_images=sum(map(len, batches)),
                workers=config.workers or num_workers(device),
                pin_memory=device.type == "cuda",
            )

        yield load


def _write(backbone: HuggingFaceBackbone, folder: Path) -> None:
    """Write the model as it is now, once it is sure that it can be read again."""
    with draft_of(folder / MODEL) as draft:
        backbone.write(draft)
        digest = Checkpoint.find(backbone.modality, str(draft), "").digest
        written = backbone.reopen(draft, digest)
        with torch.no_grad():
            vectors, again = backbone.forward(backbone.example), written.forward(backbone.example)
        if not torch.allclose(vectors, again, rtol=1e-4, atol=1e-5):
            raise InputError(
                f"{backbone.model}: the tuned model gives other vectors once it is written and read again",
                f"choose another model, or set features.{backbone.modality}_tuned_blocks to 0",
            )
        write_json(draft / RECORD, {"key": folder.name, "digest": digest})


def _find(backbone: Model, folder: Path) -> Model | None:
    """The tuned model of this folder; None where there is none, or a damaged one, which is logged."""
    path = folder / MODEL
    if not path.is_dir():
        return None
    try:
        digest = Checkpoint.find(backbone.modality, str(path), "").digest
        whole = read_object(path / RECORD) == {"key": folder.name, "digest": digest}
    except InputError:
        whole = False
    if not whole:
        log.warning("%s is damaged: the model is tuned again", path)
        return None
    return backbone.reopen(path, digest)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make the folder, and wait for another process that tunes there, where the file system has locks for folders."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not try_lock_folder(descriptor):
            log.info("waiting for another process that may tune the same model in %s", folder)
            lock_folder(descriptor)
        yield
    finally:
        os.close(descriptor)

"""The configuration: one frozen dataclass per section of `params.yaml`, the only home of hyper-parameters.

This module imports nothing but the standard library, so that the command line and the pipeline compiler start fast.
"""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from dagnn_core.errors import InputError


def _require(condition: bool, key: str, expected: str, got: object) -> None:
    if not condition:
        raise InputError(f"{key} must be {expected}, got {got!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderConfig:
    """How to read a table and its pictures (`dataset.layout: folder`); paths are relative to `dataset.source`."""

    table: str = ""
    """CSV, Parquet or JSON Lines file with one row per item."""
    images: str = ""
    """Folder or tar file with the pictures; empty: the data set has ready image vectors only, or texts alone."""
    id_column: str = "id"
    """Column with the unique id of the item."""
    text_column: str = "text"
    """Column with the sentence."""
    image_column: str = ""
    """Column with the picture's path inside `images`; empty: `image_pattern` names the picture."""
    image_pattern: str = "{id}.jpg"
    """Path of the picture inside `images`, where `{id}` is the item's id."""
    label_columns: tuple[str, ...] = ("labels",)
    """Columns with labels: the labels of an item are all values found in them."""
    label_separator: str = "|"
    """Splits a text cell into labels; empty: a cell is one label. List cells are taken as they are."""
    label_names: str = ""
    """File with the allowed labels (JSON list, `{"labels": [{"name": ...}]}`, or one a line); others are ignored."""
    split_column: str = ""
    """Column with train, val or test; empty: see `splits`."""
    splits: str = ""
    """CSV file with columns id and split; empty (and no `split_column`): splits are drawn by `dataset.seed`."""
    image_vectors: str = ""
    """`.npz` with `ids` and `features` [N, dim] for `features.image: precomputed`; empty: none."""
    text_vectors: str = ""
    """The same for `features.text: precomputed`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetConfig:
    """Which raw data, and how it is split."""

    layout: Literal["demo", "folder"] = "demo"
    """How `source` is laid out: the built-in demo's spec file, or a folder with a table and pictures."""
    source: str = "configs/demo_scenes.yaml"
    """Path of the raw data."""
    val_fraction: float = 0.1
    """Fraction of the items drawn for validation, where the data has no splits of its own."""
    test_fraction: float = 0.2
    """Fraction of the items drawn for the test, where the data has no splits of its own."""
    seed: int = 103
    """Draws the splits, and the items that lose picture or text."""
    min_label_count: int = 1
    """Labels on fewer training items than this are dropped; 1 drops none (a label never trained on is an error)."""
    max_rejected: float = 0.02
    """Fraction of unusable rows above which the step stops."""
    incomplete: Literal["reject", "keep"] = "reject"
    """Rows of the layout `folder` without picture or without text are unusable, or are kept in the training split."""
    train_without_image: float = 0.0
    """Fraction of the complete training items whose picture is taken away, for experiments with incomplete data."""
    train_without_text: float = 0.0
    """Fraction of the complete training items whose text is taken away; no item loses both."""
    folder: FolderConfig = field(default_factory=FolderConfig)
    """Table, pictures and columns of the layout `folder`."""

    def __post_init__(self) -> None:
        _require(self.source != "", "dataset.source", "a path", self.source)
        for key in ("val_fraction", "test_fraction"):
            value = getattr(self, key)
            _require(0 < value < 1, f"dataset.{key}", "between 0 and 1", value)
        total = self.val_fraction + self.test_fraction
        _require(total < 1, "dataset.val_fraction + dataset.test_fraction", "below 1", total)
        _require(0 <= self.max_rejected <= 1, "dataset.max_rejected", "between 0 and 1", self.max_rejected)
        for key in ("train_without_image", "train_without_text"):
            _require(0 <= getattr(self, key) < 1, f"dataset.{key}", "at least 0 and below 1", getattr(self, key))
        taken = self.train_without_image + self.train_without_text
        _require(taken < 1, "dataset.train_without_image + dataset.train_without_text", "below 1", taken)
        _require(self.min_label_count >= 1, "dataset.min_label_count", ">= 1", self.min_label_count)
        _require(self.seed >= 0, "dataset.seed", ">= 0", self.seed)
        if self.layout == "folder":
            _require(self.folder.table != "", "dataset.folder.table", "the name of a table file", self.folder.table)
            _require(len(self.folder.label_columns) > 0, "dataset.folder.label_columns", "at least one column", ())


@dataclass(frozen=True, kw_only=True, slots=True)
class FeaturesConfig:
    """How pictures and sentences become feature vectors."""

    image: Literal["classic", "precomputed"] = "classic"
    """`classic`: colour, texture and shape descriptors; `precomputed`: the data set's own vectors."""
    text: Literal["bow", "tfidf", "precomputed"] = "bow"
    """`bow`: binary bag of words; `tfidf`: weighted bag of words; `precomputed`: the data set's own vectors."""
    min_word_count: int = 3
    """Words in fewer training texts than this are left out of the vocabulary."""
    max_words: int = 5000
    """The vocabulary keeps at most so many words, the most frequent ones."""

    def __post_init__(self) -> None:
        _require(self.min_word_count >= 1, "features.min_word_count", ">= 1", self.min_word_count)
        _require(self.max_words >= 1, "features.max_words", ">= 1", self.max_words)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelGraphConfig:
    """The label graph (P-GNN, AAAI 2021) and the vectors of its nodes."""

    threshold: float = 0.4
    """Label pairs with a conditional probability of at least this are connected."""
    edge_weight: float = 0.5
    """Weight of an edge after thresholding (re-weighting)."""
    self_loop: float = 1.0
    """Weight of a label's edge to itself."""
    embedding: Literal["ppmi_svd", "file"] = "ppmi_svd"
    """`ppmi_svd`: learned from the training texts; `file`: read from `embedding_file`."""
    embedding_dim: int = 300
    """Dimension of `ppmi_svd` vectors (less where the vocabulary is smaller)."""
    embedding_file: str = ""
    """Word vectors: text lines `word x1 x2 ...`, or `.npz` with `names` and `vectors` (`FILE.npz#KEY`: matrix KEY)."""

    def __post_init__(self) -> None:
        _require(0 < self.threshold <= 1, "label_graph.threshold", "above 0 and at most 1", self.threshold)
        _require(self.edge_weight > 0, "label_graph.edge_weight", "> 0", self.edge_weight)
        _require(self.self_loop > 0, "label_graph.self_loop", "> 0", self.self_loop)
        _require(self.embedding_dim >= 1, "label_graph.embedding_dim", ">= 1", self.embedding_dim)
        if self.embedding == "file":
            _require(
                self.embedding_file != "", "label_graph.embedding_file", "a path (embedding: file)", self.embedding_file
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Architecture and objective. The defaults are the preset `aaai21`: DAGNN as published for MIRFlickr."""

    preset: Literal["aaai21"] = "aaai21"
    """Named set of values for the keys below; keys written out override it."""
    embedding_dim: int = 1024
    """Dimension d of the common space."""
    batch_norm: bool = False
    """Batch normalisation at the entry of encoders, generators and discriminators (the TPAMI 2022 code has it)."""
    discriminator: Literal["affine", "relu"] = "affine"
    """Nonlinearity between the discriminator's layers: none in 2021, ReLU in 2022."""
    image_to_text_hidden: int = 512
    """Hidden width of the generator that makes pseudo text features."""
    text_to_image_hidden: int = 2048
    """Hidden width of the generator that makes pseudo image features."""
    hops: int = 5
    """Number L of graph convolutions; all hops are concatenated (layer aggregation)."""
    modality_invariance_weight: float = 0.2
    """Weight alpha of the pairwise multi-label similarity loss."""
    adversarial_weight: float = 0.2
    """Weight beta of the adversarial loss."""

    def __post_init__(self) -> None:
        for key in ("embedding_dim", "image_to_text_hidden", "text_to_image_hidden", "hops"):
            _require(getattr(self, key) >= 1, f"model.{key}", ">= 1", getattr(self, key))
        for key in ("modality_invariance_weight", "adversarial_weight"):
            _require(getattr(self, key) >= 0, f"model.{key}", ">= 0", getattr(self, key))


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Optimisation: Adam over all parameters, the epoch with the best validation MAP is kept."""

    seed: int = 103
    """Initial weights and the order of batches."""
    epochs: int = 40
    """Passes over the training split, at most."""
    patience: int = 10
    """Stop after so many epochs without a better validation MAP."""
    batch_size: int = 100
    """Items a step."""
    lr: float = 5e-5
    """Learning rate of Adam."""
    adam_beta1: float = 0.5
    """Decay of Adam's first moment."""
    adam_beta2: float = 0.999
    """Decay of Adam's second moment."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where there is one."""

    def __post_init__(self) -> None:
        _require(self.seed >= 0, "train.seed", ">= 0", self.seed)
        for key in ("epochs", "patience"):
            _require(getattr(self, key) >= 1, f"train.{key}", ">= 1", getattr(self, key))
        _require(self.batch_size >= 2, "train.batch_size", ">= 2", self.batch_size)
        _require(self.lr > 0, "train.lr", "> 0", self.lr)
        for key in ("adam_beta1", "adam_beta2"):
            _require(0 <= getattr(self, key) < 1, f"train.{key}", "at least 0 and below 1", getattr(self, key))


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """What the report shows beside the figures."""

    num_queries: int = 12
    """Example queries in each direction."""
    num_retrieved: int = 6
    """Items shown for each example query."""
    seed: int = 103
    """Draws the example queries."""

    def __post_init__(self) -> None:
        for key in ("num_queries", "num_retrieved"):
            _require(getattr(self, key) >= 1, f"evaluate.{key}", ">= 1", getattr(self, key))
        _require(self.seed >= 0, "evaluate.seed", ">= 0", self.seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisterConfig:
    """The registered model, and when a challenger may become champion."""

    model_name: str = "dagnn"
    """Name of the registered model."""
    tolerance: float = 0.0
    """`dagnn promote` accepts a challenger whose map_mean is at most this much below the champion's."""

    def __post_init__(self) -> None:
        _require(self.model_name != "", "register.model_name", "a name", self.model_name)
        _require(0 <= self.tolerance < 1, "register.tolerance", "at least 0 and below 1", self.tolerance)


SECTIONS: dict[str, type[Any]] = {
    "dataset": DatasetConfig,
    "features": FeaturesConfig,
    "label_graph": LabelGraphConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "register": RegisterConfig,
}
"""Section of `params.yaml` -> its class."""

T = TypeVar("T")


def parse_section(section: type[T], values: object, key: str) -> T:
    """Build a section from plain values, as YAML or JSON gives them.

    Args:
        section: the dataclass.
        values: a mapping from field to value; missing fields take their defaults.
        key: dotted path of the section, for messages.

    Raises:
        InputError: an unknown key, a value of the wrong type or out of range, named by its dotted path.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{key} must be a mapping of keys to values, got {values!r}")
    hints = get_type_hints(section)
    known = [entry.name for entry in fields(section)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise InputError(f"unknown key {key}.{name}; {hint}valid keys: {', '.join(known)}")
    return section(**{name: _convert(value, hints[name], f"{key}.{name}") for name, value in values.items()})


def parse_params(values: object) -> dict[str, Any]:
    """Build every section of a whole `params.yaml`.

    Raises:
        InputError: as `parse_section`, or an unknown section.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"expected a mapping of sections, got {values!r}")
    unknown = sorted(set(map(str, values)) - set(SECTIONS))
    if unknown:
        raise InputError(f"unknown section {unknown[0]!r}; valid sections: {', '.join(SECTIONS)}")
    return {name: parse_section(section, values.get(name, {}), name) for name, section in SECTIONS.items()}


def section_json(section: object) -> str:
    """Canonical JSON of a section: every key, sorted; integers stay integers."""
    assert is_dataclass(section) and not isinstance(section, type)
    return json.dumps(asdict(section), sort_keys=True, separators=(",", ":"))


def _convert(value: object, hint: Any, key: str) -> Any:
    if is_dataclass(hint):
        return parse_section(hint, value, key)  # type: ignore[arg-type]
    if get_origin(hint) is Literal:
        _require(value in get_args(hint), key, f"one of {', '.join(get_args(hint))}", value)
        return value
    if get_origin(hint) is tuple:
        is_list = isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value)
        _require(is_list, key, "a list of texts", value)
        return tuple(value)  # type: ignore[arg-type]
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        _require(is_number, key, "a finite number", value)
        return float(value)  # type: ignore[arg-type]
    is_right = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    _require(is_right, key, {int: "a whole number", str: "a text", bool: "true or false"}[hint], value)
    return value

"""The configuration: one frozen dataclass per section of `params.yaml`, the only home of hyper-parameters.

This module imports nothing but the standard library, so that the command line and the pipeline compiler start fast.
"""

import difflib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

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
    """Folder, tar or zip with the pictures; empty: the data set has ready image vectors only, or texts alone."""
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
class CocoConfig:
    """How to read MS-COCO (`dataset.layout: coco`); paths are relative to `dataset.source`."""

    parts: tuple[str, ...] = ()
    """Parts to read, such as train2017; empty: every one that has files of instances and captions."""
    test_parts: tuple[str, ...] = ()
    """Parts that are the test split; validation is drawn from the others. Empty: all splits are drawn."""
    annotations: str = "annotations"
    """Folder with instances_PART.json and captions_PART.json, or the same packed as .json.gz."""
    images: str = "{part}"
    """Folder, tar or zip with the pictures of a part."""
    captions: Literal["joined", "rows"] = "joined"
    """One item for each picture, with all its captions as text, or one item for each caption (in the same split)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mirflickr25kConfig:
    """How to read MIRFLICKR-25k (`dataset.layout: mirflickr25k`); paths are relative to `dataset.source`."""

    images: str = "mirflickr"
    """Folder, tar or zip with im1.jpg, im2.jpg ...; where it is missing, the source itself."""
    tags: str = "mirflickr/meta/tags"
    """Folder with tags1.txt, tags2.txt ...; where it is missing, meta/tags."""
    annotations_folder: str = "mirflickr25k_annotations_v080"
    """Folder with LABEL.txt (potential) and LABEL_r1.txt (relevant)."""
    annotations: Literal["potential", "relevant", "both"] = "potential"
    """Pictures to which a label applies at least in part (24 labels, the usual ones), or is relevant (14), or both."""
    min_tag_count: int = 20
    """Tags of fewer pictures are left out, then pictures without a tag or a label; 20 makes the usual subset."""
    num_test: int = 0
    """So many pictures, the first in order of their numbers, are the test split; 0: it is drawn."""

    def __post_init__(self) -> None:
        key = "dataset.mirflickr25k"
        _require(self.min_tag_count >= 1, f"{key}.min_tag_count", ">= 1", self.min_tag_count)
        _require(self.num_test >= 0, f"{key}.num_test", ">= 0", self.num_test)


@dataclass(frozen=True, kw_only=True, slots=True)
class NuswideConfig:
    """How to read NUS-WIDE (`dataset.layout: nuswide`); paths are relative to `dataset.source`."""

    images: str = "Flickr"
    """Folder, tar or zip with the pictures, by the paths of the image list; empty: texts alone."""
    image_features: tuple[str, ...] = ()
    """Low-level features to take as image vectors instead of pictures, such as CH, CM55, CORR, EDH, WT."""
    concepts: tuple[str, ...] = ()
    """Concepts that are the labels; empty: the most frequent ones."""
    num_concepts: int = 21
    """How many of the most frequent concepts are the labels: 10, 21 or 81 in the literature."""
    tags: Literal["1k", "all"] = "1k"
    """Text of a picture: its tags among the thousand of TagList1k.txt, or all those in All_Tags.txt."""
    splits: Literal["official", "drawn"] = "official"
    """Splits of the train and test image lists, with validation drawn from train, or all drawn."""

    def __post_init__(self) -> None:
        _require(self.num_concepts >= 2, "dataset.nuswide.num_concepts", ">= 2", self.num_concepts)


@dataclass(frozen=True, kw_only=True, slots=True)
class MatricesConfig:
    """How to read ready matrices (`dataset.layout: features`); paths are relative to `dataset.source`.

    A file is .mat (MATLAB 5 or 7.3), .npy or .npz; `FILE#NAME` names its matrix where it holds several. With {split} in
    its name there is one file for each of train, val (may be missing) and test.
    """

    image: str = "{split}_img.mat"
    """Image vectors [N, dim]; empty: none, which makes a label graph (with incomplete: keep)."""
    text: str = "{split}_txt.mat"
    """Text vectors [N, dim]."""
    labels: str = "{split}_lab.mat"
    """Label matrix of zeros and ones [N, C]."""
    label_names: str = ""
    """File with the names of the label columns; empty: label_00, label_01 ..."""
    text_names: str = ""
    """File with the names of the text columns, perhaps with counts; a text is the names of its non-zero columns."""
    train_rows: str = ""
    """Rows START:STOP of the training split, counted from 0; empty: all that are in no other split."""
    val_rows: str = ""
    """Rows of the validation split; empty: drawn from the training split."""
    test_rows: str = ""
    """Rows of the test split; empty: all splits are drawn, unless the files name them."""

    def __post_init__(self) -> None:
        for key in ("text", "labels"):
            _require(getattr(self, key) != "", f"dataset.features.{key}", "a file", "")
        names = [name for name in (self.image, self.text, self.labels) if name]
        with_split = sum("{split}" in name for name in names)
        expected = "all with {split} in the name, or none"
        _require(with_split in (0, len(names)), "dataset.features.image, text and labels", expected, names)
        for key in ("train_rows", "val_rows", "test_rows"):
            value = getattr(self, key)
            _require(value == "" or not with_split, f"dataset.features.{key}", "empty where files name splits", value)
            is_range = re.fullmatch(r"[0-9]*:[0-9]*", value) is not None
            _require(value == "" or is_range, f"dataset.features.{key}", "START:STOP, such as 0:2000", value)
        others = self.train_rows or self.val_rows
        has_test = self.test_rows != "" or not others
        _require(has_test, "dataset.features.test_rows", "given where train_rows or val_rows are", self.test_rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class HuggingFaceConfig:
    """How to read the Parquet files of a Hugging Face data set (`dataset.layout: huggingface`)."""

    image_column: str = "image"
    """Column with the picture (bytes and path), or its path relative to `dataset.source`."""
    text_column: str = "text"
    """Column with the text, or a list of texts, which are joined."""
    label_column: str = "labels"
    """Column with the labels: texts, or numbers that the file's schema or `label_names` gives names to."""
    label_names: str = ""
    """File with the label names, relative to `dataset.source`: those of the numbers, or the texts that count."""
    id_column: str = ""
    """Column with the unique id; empty: split and number, such as train-17."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetConfig:
    """Which raw data, and how it is split."""

    layout: Literal["demo", "folder", "coco", "mirflickr25k", "nuswide", "features", "huggingface"] = "demo"
    """How `source` is laid out: the built-in demo's spec file, or a folder as the section of this name describes."""
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
    """Rows without picture or without text are unusable, or are kept in the training split."""
    train_without_image: float = 0.0
    """Fraction of the complete training items whose picture is taken away, for experiments with incomplete data."""
    train_without_text: float = 0.0
    """Fraction of the complete training items whose text is taken away; no item loses both."""
    folder: FolderConfig = field(default_factory=FolderConfig)
    """Table, pictures and columns of the layout `folder`."""
    coco: CocoConfig = field(default_factory=CocoConfig)
    """Parts and captions of the layout `coco`."""
    mirflickr25k: Mirflickr25kConfig = field(default_factory=Mirflickr25kConfig)
    """Annotations and tags of the layout `mirflickr25k`."""
    nuswide: NuswideConfig = field(default_factory=NuswideConfig)
    """Concepts, tags and pictures of the layout `nuswide`."""
    features: MatricesConfig = field(default_factory=MatricesConfig)
    """Matrices and rows of the layout `features`."""
    huggingface: HuggingFaceConfig = field(default_factory=HuggingFaceConfig)
    """Columns of the layout `huggingface`."""

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

    image: Literal["classic", "huggingface", "vgg19_bn", "precomputed"] = "classic"
    """`classic`: colour, texture and shape descriptors; `huggingface`: any vision or CLIP-like model; `vgg19_bn`: fc7
    of VGG-19 as in the paper; `precomputed`: ready vectors."""
    image_model: str = ""
    """`huggingface`: hub id or local folder of the model; `vgg19_bn`: torchvision's weights file."""
    image_revision: str = ""
    """Commit of the hub id (40 hexadecimal digits); empty for a local folder."""
    image_pooling: Literal["auto", "cls", "mean", "projection"] = "auto"
    """Vector of a picture: what the model pools itself, its first token, the mean of its tokens or positions, or the
    projection of CLIP-like models (`auto` takes the projection where there is one)."""
    image_vectors: str = ""
    """`precomputed`: `.npz` with `ids` and `features`, joined by id; empty: the data set's own vectors."""
    text: Literal["bow", "tfidf", "supervised_bow", "huggingface", "precomputed"] = "bow"
    """`bow`: binary bag of words; `tfidf`: weighted; `supervised_bow`: hidden layer of a label classifier on `bow`, as
    the authors used; `huggingface`: any text or CLIP-like model; `precomputed`: ready vectors."""
    text_model: str = ""
    """`huggingface`: hub id or local folder of the model."""
    text_revision: str = ""
    """Commit of the hub id (40 hexadecimal digits); empty for a local folder."""
    text_pooling: Literal["auto", "cls", "mean", "projection"] = "auto"
    """Vector of a text: as `image_pooling`; `mean` leaves out padding. `auto` does as a model of sentence-transformers
    says, and is the mean where nothing is pooled."""
    text_vectors: str = ""
    """`precomputed`: as `image_vectors`."""
    store_backbone: bool = True
    """Weights of pretrained models travel with features and model; else these name hub id or path, and a digest."""
    min_word_count: int = 3
    """Words in fewer training texts than this are left out of the vocabulary."""
    max_words: int = 5000
    """The vocabulary keeps at most so many words, the most frequent ones."""
    supervised_dim: int = 300
    """Width of the hidden layer of `supervised_bow`."""
    seed: int = 103
    """Draws the initial weights and batches of `supervised_bow`."""
    batch_size: int = 64
    """Pictures or texts that a pretrained model takes at a time."""
    workers: int = 0
    """Processes that decode pictures for a pretrained model; 0: one for each core but one with a GPU, else none."""
    precision: Literal["float32", "bf16"] = "float32"
    """Arithmetic of pretrained models; features are stored as float32 in any case."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where pretrained models run; `auto`: on a GPU where there is one."""

    def __post_init__(self) -> None:
        for modality in ("image", "text"):
            kind, model, revision = (getattr(self, f"{modality}{part}") for part in ("", "_model", "_revision"))
            if kind in ("huggingface", "vgg19_bn"):
                _require(model != "", f"features.{modality}_model", f"the model's name or path ({kind})", model)
            commit = len(revision) == 40 and set(revision) <= set("0123456789abcdef")
            _require(
                revision == "" or commit, f"features.{modality}_revision", "a commit (40 hexadecimal digits)", revision
            )
        for key in ("min_word_count", "max_words", "supervised_dim", "batch_size"):
            _require(getattr(self, key) >= 1, f"features.{key}", ">= 1", getattr(self, key))
        for key in ("seed", "workers"):
            _require(getattr(self, key) >= 0, f"features.{key}", ">= 0", getattr(self, key))


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelGraphConfig:
    """The label graph (P-GNN, AAAI 2021) and the vectors of its nodes."""

    threshold: float = 0.4
    """Label pairs with a conditional probability of at least this are connected; I-GNN cuts its cosines there."""
    conditional: Literal["i_given_j", "j_given_i"] = "i_given_j"
    """Which probability makes A_ij: P(i | j) as in the authors' code, or P(j | i) as in ML-GCN (Chen et al., 2019)."""
    edge_weight: float = 0.5
    """Weight of an edge after thresholding (re-weighting)."""
    self_loop: float = 1.0
    """Weight of a label's edge to itself (1.5: what counting the diagonal makes of it)."""
    embedding: Literal["ppmi_svd", "file"] = "ppmi_svd"
    """`ppmi_svd`: learned from the training texts; `file`: read from `embedding_file`."""
    embedding_dim: int = 300
    """Dimension of `ppmi_svd` vectors (less where the vocabulary is smaller)."""
    embedding_file: str = ""
    """Word vectors: text lines `word x1 x2 ...`, or `.npz` with `names` and `vectors` (`FILE.npz#KEY`: matrix KEY)."""
    embedding_norm: Literal["raw", "unit"] = "raw"
    """Length of the vectors: as they come (published), or 1."""

    def __post_init__(self) -> None:
        _require(0 < self.threshold <= 1, "label_graph.threshold", "above 0 and at most 1", self.threshold)
        _require(self.edge_weight > 0, "label_graph.edge_weight", "> 0", self.edge_weight)
        _require(self.self_loop > 0, "label_graph.self_loop", "> 0", self.self_loop)
        _require(self.embedding_dim >= 1, "label_graph.embedding_dim", ">= 1", self.embedding_dim)
        if self.embedding == "file":
            _require(
                self.embedding_file != "", "label_graph.embedding_file", "a path (embedding: file)", self.embedding_file
            )


Preset = Literal["aaai21", "tpami22", "best"]
CLOSED_FORM = ("cca", "ridge")
"""Kinds of models that are fitted without a training loop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Architecture and objective. The defaults are the preset `aaai21`: DAGNN as published for MIRFlickr."""

    kind: Literal["dagnn", "two_tower", "dscmr", "cca", "ridge"] = "dagnn"
    """DAGNN or a baseline: InfoNCE on two towers, DSCMR, CCA, ridge regression to the labels.

    Of the keys below the baselines take `embedding_dim`, and the two towers `encoder_norm`.
    """
    preset: Preset = "aaai21"
    """Named set of values for the keys below; keys written out override it."""
    embedding_dim: int = 1024
    """Dimension d of the common space."""
    encoder_norm: Literal["none", "batch", "unit"] = "none"
    """At the encoders' entry: features as they are (2021), batch normalisation (2022), or scaled to length √dim."""
    adversary_norm: Literal["none", "batch"] = "none"
    """Batch normalisation at the entry of generators and discriminators (2022)."""
    image_dropout: float = 0.0
    """Probability that an entry of the image features is dropped at the encoder's entry."""
    text_dropout: float = 0.0
    """The same of the text features."""
    discriminator: Literal["affine", "relu", "none"] = "affine"
    """Nonlinearity between the discriminators' layers: none in 2021, ReLU in 2022.

    `none`: neither discriminators nor generators, and none of their losses.
    """
    image_to_text_hidden: int = 512
    """Hidden width of the generator that makes pseudo text features."""
    text_to_image_hidden: int = 2048
    """Hidden width of the generator that makes pseudo image features."""
    graph: Literal["fixed", "learned", "none"] = "fixed"
    """Label graph: counted (P-GNN), learned (I-GNN), or none: independent classifiers."""
    graph_metrics: int = 8
    """Number k of weighted cosine metrics of the learned graph."""
    graph_mix: float = 0.5
    """Share of the label vectors' similarities at the start in the learned graph; the rest is learned."""
    graph_layer: Literal["gcn", "gat"] = "gcn"
    """Graph convolution or graph attention."""
    attention_heads: int = 1
    """Heads of graph attention, averaged (`graph_layer: gat` only)."""
    hops: int = 5
    """Number L of graph layers."""
    aggregation: Literal["concat", "max", "attention", "last"] = "concat"
    """Layer aggregation: all hops concatenated (published), their maximum, a learned mean, or the last hop alone."""
    classification: Literal["distance", "cross_entropy"] = "distance"
    """Distance of the scores from the labels (published), or cross-entropy of calibrated scores, summed over labels."""
    classification_weight: float = 1.0
    """Weight of the classification loss (alpha of TPAMI 2022)."""
    modality_invariance_weight: float = 0.2
    """Weight of the pairwise multi-label similarity loss (alpha of AAAI 2021)."""
    contrastive_weight: float = 0.0
    """Weight of the soft multi-label contrastive loss (1 in TPAMI 2022)."""
    temperature: float = 0.22
    """Its temperature tau."""
    denominator_scale: float = 1.06
    """Its factor within the log-sum-exp: 1.06 as published, without a reason; 1 makes a log-probability."""
    relevance_weight: float = 0.0
    """Weight of the likelihood of relevance, the pairwise loss with learned scale and bias (not published)."""
    intra_modal_weight: float = 0.14
    """Weight gamma of the pairs within a modality, of the contrastive loss and the likelihood of relevance."""
    label_similarity: Literal["count", "binary", "jaccard"] = "count"
    """Target of the pairwise losses: number of shared labels (2021), 1 where one is shared (2022), Jaccard overlap."""
    ranking: Literal["embedding", "labels"] = "embedding"
    """What is ranked: the cosine of the embeddings (published), or the expected number of shared labels."""
    adversarial_weight: float = 0.2
    """Weight beta of the adversarial loss."""
    reconstruction_weight: float = 0.0
    """Weight of the generators' squared error on complete pairs (not published: they only deceive discriminators)."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "aaai21": {},
        "tpami22": {
            "encoder_norm": "batch",
            "adversary_norm": "batch",
            "discriminator": "relu",
            "graph": "learned",
            "classification_weight": 0.5,
            "modality_invariance_weight": 0.0,
            "contrastive_weight": 1.0,
            "label_similarity": "binary",
            "adversarial_weight": 2.0,
        },
        "best": {
            "embedding_dim": 512,
            "encoder_norm": "unit",
            "image_dropout": 0.2,
            "discriminator": "none",
            "hops": 2,
            "classification": "cross_entropy",
            "classification_weight": 0.3,
            "modality_invariance_weight": 0.0,
            "relevance_weight": 1.0,
            "intra_modal_weight": 0.5,
            "label_similarity": "binary",
            "ranking": "labels",
        },
    }

    def __post_init__(self) -> None:
        for key in (
            "embedding_dim",
            "image_to_text_hidden",
            "text_to_image_hidden",
            "graph_metrics",
            "attention_heads",
            "hops",
        ):
            _require(getattr(self, key) >= 1, f"model.{key}", ">= 1", getattr(self, key))
        weights = ("classification_weight", "modality_invariance_weight", "contrastive_weight", "relevance_weight")
        for key in (*weights, "intra_modal_weight", "adversarial_weight", "reconstruction_weight"):
            _require(getattr(self, key) >= 0, f"model.{key}", ">= 0", getattr(self, key))
        for key in ("image_dropout", "text_dropout"):
            _require(0 <= getattr(self, key) < 1, f"model.{key}", "at least 0 and below 1", getattr(self, key))
        _require(0 <= self.graph_mix <= 1, "model.graph_mix", "between 0 and 1", self.graph_mix)
        for key in ("temperature", "denominator_scale"):
            _require(getattr(self, key) > 0, f"model.{key}", "> 0", getattr(self, key))
        given = [getattr(self, key) for key in weights]
        _require(any(given), f"one of {', '.join(f'model.{key}' for key in weights)}", "> 0", given)
        if self.relevance_weight > 0:
            expected = "binary or jaccard with relevance_weight above 0 (a probability)"
            _require(self.label_similarity != "count", "model.label_similarity", expected, self.label_similarity)
        if self.ranking == "labels":
            is_calibrated = self.classification == "cross_entropy" and self.classification_weight > 0
            expected = "embedding, since label probabilities take classification cross_entropy with a weight above 0"
            _require(is_calibrated, "model.ranking", expected, self.ranking)
        if self.graph_layer == "gcn":
            expected = "1 with graph_layer gcn (heads are an option of graph_layer gat)"
            _require(self.attention_heads == 1, "model.attention_heads", expected, self.attention_heads)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Optimisation: Adam over all parameters, the epoch with the best validation MAP is kept."""

    preset: Preset = "aaai21"
    """Named set of values for the keys below; keys written out override it."""
    seed: int = 103
    """Initial weights and the order of batches."""
    epochs: int = 40
    """Passes over the training split, at most."""
    patience: int = 10
    """Stop after so many epochs without a better validation MAP."""
    batch_size: int = 100
    """Items a step."""
    lr: float = 5e-5
    """Learning rate of Adam, at its highest."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` falls to zero over `epochs`, step by step."""
    warmup_epochs: int = 0
    """Epochs over which the learning rate rises linearly from zero."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW)."""
    weight_averaging: float = 0.0
    """Decay of the moving average of the weights after every step, which is validated and kept; 0: no averaging."""
    adam_beta1: float = 0.5
    """Decay of the first moment."""
    adam_beta2: float = 0.999
    """Decay of the second moment."""
    adam_eps: float = 1e-8
    """Added to the root of the second moment."""
    reversal: Literal["constant", "ramp"] = "constant"
    """Strength of the gradient reversal: 1, or 2 / (1 + exp(-10 p)) - 1 at the fraction p of all steps (DANN)."""
    incomplete: Literal["skip", "mask", "reconstruct"] = "mask"
    """Items without an image or a text: left out; each modality learns from what is there; `reconstruct`: from epoch
    `reconstruct_from` on the generators make the missing features. The baselines always leave them out."""
    reconstruct_from: int = 6
    """First epoch with reconstructed features."""
    precision: Literal["float32", "bf16"] = "float32"
    """Arithmetic of forward and backward passes; weights, optimizer and validation are float32 in any case."""
    deterministic: bool = False
    """On a GPU, take algorithms that give the same result every time; on a CPU they do in any case."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where there is one."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "aaai21": {},
        "tpami22": {},
        "best": {
            "epochs": 20,
            "patience": 20,
            "batch_size": 128,
            "lr": 1e-3,
            "lr_schedule": "cosine",
            "warmup_epochs": 1,
            "weight_decay": 10.0,
            "weight_averaging": 0.99,
            "adam_beta1": 0.9,
        },
    }

    def __post_init__(self) -> None:
        for key in ("seed", "warmup_epochs", "weight_decay"):
            _require(getattr(self, key) >= 0, f"train.{key}", ">= 0", getattr(self, key))
        for key in ("epochs", "patience", "reconstruct_from"):
            _require(getattr(self, key) >= 1, f"train.{key}", ">= 1", getattr(self, key))
        _require(self.batch_size >= 2, "train.batch_size", ">= 2", self.batch_size)
        for key in ("lr", "adam_eps"):
            _require(getattr(self, key) > 0, f"train.{key}", "> 0", getattr(self, key))
        _require(self.warmup_epochs < self.epochs, "train.warmup_epochs", "below train.epochs", self.warmup_epochs)
        for key in ("adam_beta1", "adam_beta2", "weight_averaging"):
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
class GateConfig:
    """What a version must hold to become champion (`dagnn promote`); the two floors, to be registered at all.

    A drop is that of the mean average precision (MAP) below the champion's on the same test split: the upper end of its
    one-sided interval by paired bootstrap, so that a challenger must show that it is not worse, and few test items
    show little.
    """

    min_map_i2t: float = 0.0
    """Least MAP of images as queries for texts, on the test split."""
    min_map_t2i: float = 0.0
    """Least MAP of texts as queries for images, on the test split."""
    max_drop_i2t: float = 0.02
    """Largest drop of MAP, image to text."""
    max_drop_t2i: float = 0.02
    """Largest drop of MAP, text to image."""
    max_slice_drop: float = 0.05
    """Largest drop of MAP over the queries of each slice."""
    rare_labels: float = 0.25
    """This fraction of the test split's labels, the least frequent in training, is the slice of rare labels."""
    short_texts: float = 0.25
    """This fraction of the test split's texts, those of the fewest words, is the slice of short texts."""
    confidence: float = 0.95
    """Probability that a drop is within its bound."""
    num_resamples: int = 2000
    """Resamples of the bootstrap."""
    seed: int = 103
    """Draws the resamples."""
    max_latency_ms: float = 500.0
    """Milliseconds that a single query takes at most, at the 95th percentile, in a fresh process."""
    max_memory_mib: float = 4096.0
    """Peak memory of that process, in MiB."""
    max_leaked_pictures: float = 0.01
    """Fraction of held-out pictures that another split may have, too, identical or nearly."""

    def __post_init__(self) -> None:
        key = "register.gate"
        for name in ("min_map_i2t", "min_map_t2i"):
            _require(0 <= getattr(self, name) <= 1, f"{key}.{name}", "between 0 and 1", getattr(self, name))
        for name in ("max_drop_i2t", "max_drop_t2i", "max_slice_drop", "max_leaked_pictures"):
            _require(0 <= getattr(self, name) < 1, f"{key}.{name}", "at least 0 and below 1", getattr(self, name))
        for name in ("rare_labels", "short_texts"):
            _require(0 < getattr(self, name) <= 1, f"{key}.{name}", "above 0 and at most 1", getattr(self, name))
        _require(0.5 < self.confidence < 1, f"{key}.confidence", "above 0.5 and below 1", self.confidence)
        _require(self.num_resamples >= 100, f"{key}.num_resamples", ">= 100", self.num_resamples)
        _require(self.seed >= 0, f"{key}.seed", ">= 0", self.seed)
        for name in ("max_latency_ms", "max_memory_mib"):
            _require(getattr(self, name) > 0, f"{key}.{name}", "> 0", getattr(self, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisterConfig:
    """The registered model, and what its versions must hold."""

    model_name: str = "dagnn"
    """Name of the registered model."""
    data_licence: str = ""
    """Licence or terms of the data, for the model card."""
    gate: GateConfig = field(default_factory=GateConfig)
    """What a version must hold to become champion."""

    def __post_init__(self) -> None:
        _require(self.model_name != "", "register.model_name", "a name", self.model_name)


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
        values: a mapping from field to value; missing fields take their values from the section's preset, where it
            has one, or else their defaults.
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
    if "preset" in values:
        presets: Mapping[str, Mapping[str, object]] = section.PRESETS  # type: ignore[attr-defined]
        _convert(values["preset"], hints["preset"], f"{key}.preset")
        values = {**presets[str(values["preset"])], **values}
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
        _require(isinstance(value, str) and value in get_args(hint), key, f"one of {', '.join(get_args(hint))}", value)
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

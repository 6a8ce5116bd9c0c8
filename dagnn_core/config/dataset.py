"""Section `dataset`: which raw data, how it is laid out, and how it is split."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dagnn_core.config.section import DEFAULT_SEED, Count, Named, Rate, Seed, Share, require, section

Fraction = Annotated[float, Field(gt=0, lt=1)]
NEAR_DISTANCE = 4
"""Bits out of 64 in which the perceptual hashes of near-identical images differ at most."""
MAX_RELEVANT_PAIRS = 0.9
"""Share of pairs of items with a label in common above which every ranking, even a random one, is nearly right."""

LAYOUTS = {
    "demo": "examples.demo_scenes.layout:open_demo",
    "folder": "dagnn_core.data.layouts.folder:open_folder",
    "coco": "dagnn_core.data.layouts.coco:open_coco",
    "mirflickr25k": "dagnn_core.data.layouts.mirflickr25k:open_mirflickr25k",
    "nuswide": "dagnn_core.data.layouts.nuswide:open_nuswide",
    "features": "dagnn_core.data.layouts.matrices:open_matrices",
    "huggingface": "dagnn_core.data.layouts.huggingface:open_huggingface",
    "webdataset": "dagnn_core.data.layouts.webdataset:open_webdataset",
}
"""Layout -> what opens it: `open(source, options, *, keep_incomplete) -> RawData`, where `options` is the section of
the layout's name (None where there is none)."""


LabelFormat = Literal["auto", "values", "indicator"]
OWN_COLUMNS = ("id", "text", "labels", "split")
"""What every item has, under these names also in an index; a column that is kept needs another one."""


@section
class FolderConfig:
    """How to read a table and its images (`dataset.layout: folder`); paths are relative to `dataset.source`."""

    table: str = ""
    """CSV, TSV, Parquet, Arrow or JSON Lines file with one row per item."""
    images: str = ""
    """Folder, tar or zip with the images; empty: the data set has precomputed image vectors only, or texts alone."""
    id_column: str = "id"
    """Column with the unique id of the item."""
    text_column: str = "text"
    """Column with the text, or a list of texts, which are joined."""
    image_column: str = ""
    """Column with the image's path inside `images`; empty: `image_pattern` names the image."""
    image_pattern: str = "{id}.jpg"
    """Path of the image inside `images`, where `{id}` is the item's id."""
    label_columns: tuple[str, ...] = ("labels",)
    """Columns with labels: the labels of an item are all values found in them."""
    label_separator: str = "|"
    """Splits a text cell into labels; empty: a cell is one label. List cells are taken as they are."""
    label_format: LabelFormat = "auto"
    """What label cells hold: labels (values, as they are written), or 0 and 1 in a column named after each label
    (indicator); auto: indicators where several columns hold nothing else, and lists written as text are read."""
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
    keep_columns: tuple[str, ...] = ()
    """Further columns that items keep as texts, for slices of the evaluation and filters of a search."""

    def __post_init__(self) -> None:
        names, kept = set(self.keep_columns), list(self.keep_columns)
        is_list_of_names = "" not in names and len(names) == len(kept)
        require(is_list_of_names, "dataset.folder.keep_columns", "names of columns, each once", kept)
        others = f"other columns than {', '.join(OWN_COLUMNS)}, which every item has"
        require(names.isdisjoint(OWN_COLUMNS), "dataset.folder.keep_columns", others, kept)


@section
class CocoConfig:
    """How to read MS-COCO (`dataset.layout: coco`); paths are relative to `dataset.source`."""

    parts: tuple[str, ...] = ()
    """Parts to read, such as train2017; empty: every one that has files of instances and captions."""
    test_parts: tuple[str, ...] = ()
    """Parts that are the test split; validation is drawn from the others. Empty: all splits are drawn."""
    annotations: str = "annotations"
    """Folder with instances_PART.json and captions_PART.json, or the same packed as .json.gz."""
    images: str = "{part}"
    """Folder, tar or zip with the images of a part."""
    captions: Literal["joined", "rows"] = "joined"
    """One item for each image, with all its captions as text, or one item for each caption (in the same split)."""


@section
class Mirflickr25kConfig:
    """How to read MIRFLICKR-25k (`dataset.layout: mirflickr25k`); paths are relative to `dataset.source`."""

    images: str = "mirflickr"
    """Folder, tar or zip with im1.jpg, im2.jpg ...; where it is missing, the source itself."""
    tags: str = "mirflickr/meta/tags"
    """Folder with tags1.txt, tags2.txt ...; where it is missing, meta/tags."""
    annotations_folder: str = "mirflickr25k_annotations_v080"
    """Folder with LABEL.txt (potential) and LABEL_r1.txt (relevant)."""
    annotations: Literal["potential", "relevant", "both"] = "potential"
    """Images to which a label applies at least in part (24 labels, the usual ones), or is relevant (14), or both."""
    min_tag_count: Count = 20
    """Tags of fewer images are left out, then images without a tag or a label; 20 makes the usual subset."""
    num_test: Annotated[int, Field(ge=0)] = 0
    """So many images, the first in order of their numbers, are the test split; 0: it is drawn."""


@section
class NuswideConfig:
    """How to read NUS-WIDE (`dataset.layout: nuswide`); paths are relative to `dataset.source`."""

    images: str = "Flickr"
    """Folder, tar or zip with the images, by the paths of the image list; empty: texts alone."""
    image_features: tuple[str, ...] = ()
    """Low-level features to take as image vectors instead of images, such as CH, CM55, CORR, EDH, WT."""
    concepts: tuple[str, ...] = ()
    """Concepts that are the labels; empty: the most frequent ones."""
    num_concepts: Annotated[int, Field(ge=2)] = 21
    """How many of the most frequent concepts are the labels: 10, 21 or 81 in the literature."""
    tags: Literal["1k", "all"] = "1k"
    """Text of an image: its tags among the thousand of TagList1k.txt, or all those in All_Tags.txt."""
    splits: Literal["official", "drawn"] = "official"
    """Splits of the train and test image lists, with validation drawn from train, or all drawn."""


@section
class MatricesConfig:
    """How to read precomputed matrices (`dataset.layout: features`); paths are relative to `dataset.source`.

    A file is .mat (MATLAB 5 or 7.3), .npy or .npz; `FILE#NAME` names its matrix where it holds several. With {split} in
    its name there is one file for each of train, val (may be missing) and test.
    """

    image: str = "{split}_img.mat"
    """Image vectors [N, dim]; empty: none, which makes a label graph (with incomplete: keep)."""
    text: Annotated[str, Field(min_length=1)] = "{split}_txt.mat"
    """Text vectors [N, dim]."""
    labels: Annotated[str, Field(min_length=1)] = "{split}_lab.mat"
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
        names = [name for name in (self.image, self.text, self.labels) if name]
        with_split = sum("{split}" in name for name in names)
        expected = "all with {split} in the name, or none"
        require(with_split in (0, len(names)), "dataset.features.image, text and labels", expected, names)
        for key in ("train_rows", "val_rows", "test_rows"):
            value = getattr(self, key)
            require(value == "" or not with_split, f"dataset.features.{key}", "empty where files name splits", value)
            is_range = re.fullmatch(r"[0-9]*:[0-9]*", value) is not None
            require(value == "" or is_range, f"dataset.features.{key}", "START:STOP, such as 0:2000", value)
        others = self.train_rows or self.val_rows
        has_test = self.test_rows != "" or not others
        require(has_test, "dataset.features.test_rows", "given where train_rows or val_rows are", self.test_rows)


@section
class HuggingFaceConfig:
    """How to read the Parquet or Arrow files of a Hugging Face data set (`dataset.layout: huggingface`)."""

    image_column: str = "image"
    """Column with the image (bytes and path), or its path relative to `dataset.source`."""
    text_column: str = "text"
    """Column with the text, or a list of texts, which are joined."""
    label_column: str = "labels"
    """Column with the labels: texts, or numbers that the file's schema or `label_names` gives names to."""
    indicator_columns: tuple[str, ...] = ()
    """Instead of `label_column`: columns of 0 and 1, each named after its label."""
    label_separator: str = ""
    """Splits a text cell into labels; empty: a cell is one label. List cells are taken as they are."""
    label_format: LabelFormat = "auto"
    """What a list of numbers holds: labels (values), or 0 or 1 for each label (indicator); auto: as the data shows."""
    label_names: str = ""
    """File with the label names, relative to `dataset.source`: those of the numbers, or the texts that count."""
    id_column: str = ""
    """Column with the unique id; empty: split and number, such as train-17."""


@section
class WebDatasetConfig:
    """How to read tar shards, as img2dataset writes them (`dataset.layout: webdataset`).

    Paths are relative to `dataset.source`. A field is a member with this extension, else a key of the .json member,
    else a column of the Parquet file beside the shard.
    """

    shards: Annotated[str, Field(min_length=1)] = "**/*.tar"
    """Pattern of the shards' names."""
    text_field: str = ""
    """Field with the text, or a list of texts, which are joined; empty: txt, else caption, else text."""
    label_field: Annotated[str, Field(min_length=1)] = "labels"
    """Field with the labels: a text, a list of texts or class numbers, or a list with 0 or 1 for each label name."""
    label_separator: str = "|"
    """Splits a text into labels; empty: a text is one label."""
    label_names: str = ""
    """File with the label names: those of the class numbers, or the texts that count."""


@section
class DatasetConfig:
    """Which raw data, and how it is split."""

    NAME: ClassVar[str] = "dataset"

    layout: Annotated[str, Named(LAYOUTS)] = "demo"
    """How `source` is laid out: the built-in demo's spec file, or a folder as the section of this name describes."""
    source: Annotated[str, Field(min_length=1)] = "configs/demo_scenes.yaml"
    """Path of the raw data."""
    val_fraction: Fraction = 0.1
    """Fraction of the items drawn for validation, where the data has no splits of its own."""
    test_fraction: Fraction = 0.2
    """Fraction of the items drawn for the test, where the data has no splits of its own."""
    seed: Seed = DEFAULT_SEED
    """Draws the splits, the items that lose image, text or labels or are left out, and unseen labels."""
    copies: Literal["group", "drop", "keep"] = "group"
    """Identical and near-identical images where splits are drawn: `group` keeps them in one split, `drop` leaves out
    all but the first, `keep` draws each by itself. Splits of the data stay as they are."""
    min_label_count: Count = 1
    """Labels on fewer training items than this are dropped; 1 drops none (a label never trained on is an error)."""
    label_case: Literal["keep", "fold"] = "keep"
    """Labels that differ in case alone are several labels, or one in its most frequent spelling."""
    max_rejected: Share = 0.02
    """Fraction of unusable rows above which the step stops."""
    incomplete: Literal["reject", "keep"] = "reject"
    """Rows without image or without text are unusable, or are kept in the training split."""
    train_without_image: Rate = 0.0
    """Fraction of the complete training items whose image is taken away, for experiments with incomplete data."""
    train_without_text: Rate = 0.0
    """Fraction of the complete training items whose text is taken away; no item loses both."""
    unseen_labels: tuple[str, ...] = ()
    """Labels that training never sees, for experiments: items of train and val that have one are left out, and the
    evaluation reports what queries with one find."""
    unseen_fraction: Rate = 0.0
    """Instead of names: fraction of the labels, drawn by `seed`."""
    labelled_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the training items that keep their labels, for experiments with few; drawn by `seed`, every label
    stays on one at least."""
    rare_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction that stays of the training items with one of the rarest quarter of the labels, for experiments with a
    longer tail; drawn by `seed`, every label stays on one item at least."""
    folder: FolderConfig = Field(default_factory=FolderConfig)
    """Table, images and columns of the layout `folder`."""
    coco: CocoConfig = Field(default_factory=CocoConfig)
    """Parts and captions of the layout `coco`."""
    mirflickr25k: Mirflickr25kConfig = Field(default_factory=Mirflickr25kConfig)
    """Annotations and tags of the layout `mirflickr25k`."""
    nuswide: NuswideConfig = Field(default_factory=NuswideConfig)
    """Concepts, tags and images of the layout `nuswide`."""
    features: MatricesConfig = Field(default_factory=MatricesConfig)
    """Matrices and rows of the layout `features`."""
    huggingface: HuggingFaceConfig = Field(default_factory=HuggingFaceConfig)
    """Columns of the layout `huggingface`."""
    webdataset: WebDatasetConfig = Field(default_factory=WebDatasetConfig)
    """Shards and fields of the layout `webdataset`."""

    def __post_init__(self) -> None:
        total = self.val_fraction + self.test_fraction
        require(total < 1, "dataset.val_fraction + dataset.test_fraction", "below 1", total)
        taken = self.train_without_image + self.train_without_text
        require(taken < 1, "dataset.train_without_image + dataset.train_without_text", "below 1", taken)
        is_drawn = not self.unseen_labels or self.unseen_fraction == 0
        require(is_drawn, "dataset.unseen_fraction", "0 with dataset.unseen_labels", self.unseen_fraction)
        if self.layout == "folder":
            require(self.folder.table != "", "dataset.folder.table", "the name of a table file", self.folder.table)
            require(len(self.folder.label_columns) > 0, "dataset.folder.label_columns", "at least one column", ())

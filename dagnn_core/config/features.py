"""Section `features`: how images and texts become feature vectors."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dagnn_core.config.section import DEFAULT_SEED, Count, Named, Positive, Seed, require, section

IMAGE_ENCODERS = {
    "classic": "dagnn_core.features.encoders.classic:ClassicEncoder",
    "huggingface": "dagnn_core.features.encoders.huggingface:HuggingFaceImageBackbone",
    "vgg19_bn": "dagnn_core.features.encoders.vgg:VggBackbone",
    "precomputed": "dagnn_core.features.encoders.precomputed:PrecomputedEncoder",
}
"""Image encoder -> its class; see `dagnn_core.features.encoders.registry`."""

TEXT_ENCODERS = {
    "bow": "dagnn_core.features.encoders.words:WordEncoder",
    "tfidf": "dagnn_core.features.encoders.words:WordEncoder",
    "supervised_bow": "dagnn_core.features.encoders.supervised:SupervisedEncoder",
    "huggingface": "dagnn_core.features.encoders.huggingface:HuggingFaceTextBackbone",
    "precomputed": "dagnn_core.features.encoders.precomputed:PrecomputedEncoder",
}
"""Text encoder -> its class."""

MIN_TUNED_BATCH = 8  # vectors are standardised by their batch, which says nothing of one or two


@section
class FeaturesConfig:
    """How images and texts become feature vectors."""

    NAME: ClassVar[str] = "features"

    image: Annotated[str, Named(IMAGE_ENCODERS)] = "classic"
    """`classic`: colour, texture and shape descriptors; `huggingface`: any vision or CLIP-like model; `vgg19_bn`: fc7
    of VGG-19 as in the paper; `precomputed`: precomputed vectors."""
    image_model: str = ""
    """`huggingface`: hub id or local folder of the model; `vgg19_bn`: torchvision's weights file."""
    image_revision: str = ""
    """Commit of the hub id (40 hexadecimal digits); empty for a local folder."""
    image_pooling: Literal["auto", "cls", "mean", "projection"] = "auto"
    """Vector of an image: what the model pools itself, its first token, the mean of its tokens or positions, or the
    projection of CLIP-like models (`auto` takes the projection where there is one)."""
    image_vectors: str = ""
    """`precomputed`: `.npz` with `ids` and `features`, joined by id; empty: the data set's own vectors."""
    image_tuned_blocks: Annotated[int, Field(ge=0)] = 0
    """`huggingface`: last blocks of the image model that learn from the labels of the training split; 0: none."""
    text: Annotated[str, Named(TEXT_ENCODERS)] = "bow"
    """`bow`: binary bag of words; `tfidf`: weighted; `supervised_bow`: hidden layer of a label classifier on `bow`, as
    the authors used; `huggingface`: any text or CLIP-like model; `precomputed`: precomputed vectors."""
    text_model: str = ""
    """`huggingface`: hub id or local folder of the model."""
    text_revision: str = ""
    """Commit of the hub id (40 hexadecimal digits); empty for a local folder."""
    text_pooling: Literal["auto", "cls", "mean", "projection"] = "auto"
    """Vector of a text: as `image_pooling`; `mean` leaves out padding. `auto` does as a model of sentence-transformers
    says, and is the mean where nothing is pooled."""
    text_vectors: str = ""
    """`precomputed`: as `image_vectors`."""
    text_tuned_blocks: Annotated[int, Field(ge=0)] = 0
    """`huggingface`: last blocks of the text model that learn from the labels of the training split; 0: none."""
    tuning_epochs: Count = 5
    """Epochs that the tuned blocks learn; the one with the lowest loss on the validation split is kept."""
    tuning_lr: Positive = 3.0e-4
    """Learning rate at the start of the tuning; it falls to 0 as a cosine."""
    store_backbone: bool = True
    """Weights of pretrained models travel with features and model; else these name hub id or path, and a digest."""
    min_word_count: Count = 3
    """Words in fewer training texts than this are left out of the vocabulary."""
    max_words: Count = 5000
    """The vocabulary keeps at most so many words, the most frequent ones."""
    supervised_dim: Count = 300
    """Width of the hidden layer of `supervised_bow`."""
    seed: Seed = DEFAULT_SEED
    """Draws the initial weights and batches of `supervised_bow`, and the batches of the tuning."""
    batch_size: Count = 64
    """Images or texts that a pretrained model takes at a time, and tuned blocks learn from: for these 8 or more."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that decode images for a pretrained model; 0: one for each core but one with a GPU, else none."""
    shards: Count = 1
    """Tasks that share the work of pretrained models and `classic` in a pipeline, each with a part of the items; the
    features are the same to the byte."""
    precision: Literal["float32", "bf16"] = "float32"
    """Arithmetic of pretrained models; features are stored as float32 in any case."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where pretrained models run; `auto`: on a GPU where there is one."""

    def __post_init__(self) -> None:
        for modality in ("image", "text"):
            kind, model, revision = (getattr(self, f"{modality}{part}") for part in ("", "_model", "_revision"))
            if kind in ("huggingface", "vgg19_bn"):
                require(model != "", f"features.{modality}_model", f"the model's name or path ({kind})", model)
            commit = len(revision) == 40 and set(revision) <= set("0123456789abcdef")
            require(
                revision == "" or commit, f"features.{modality}_revision", "a commit (40 hexadecimal digits)", revision
            )
            key, blocks = f"features.{modality}_tuned_blocks", getattr(self, f"{modality}_tuned_blocks")
            for holds, where in (
                (kind == "huggingface", f"features.{modality} is not huggingface"),
                (self.store_backbone, "features.store_backbone is false, since tuned weights are nowhere else"),
                (self.shards == 1, "features.shards is above 1, since each task would tune weights of its own"),
                (self.batch_size >= MIN_TUNED_BATCH, f"features.batch_size is below {MIN_TUNED_BATCH}"),
            ):
                require(blocks == 0 or holds, key, f"0 where {where}", blocks)

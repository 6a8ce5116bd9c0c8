"""Extract features: every image and text of a data set as a vector, by encoders fitted on its training split."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dagnn_core.artifacts import sha256_of
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.data.dataset import SPLITS, UNSEEN_LABELS, Dataset, Modality
from dagnn_core.data.vectors import save_array, write_matrix
from dagnn_core.errors import InputError
from dagnn_core.features.encoders.backbone import ImageBackbone, TextBackbone
from dagnn_core.features.encoders.classic import ClassicEncoder
from dagnn_core.features.encoders.descriptors import DIM, VERSION
from dagnn_core.features.encoders.huggingface import HuggingFaceImageBackbone, HuggingFaceTextBackbone
from dagnn_core.features.encoders.precomputed import PrecomputedEncoder
from dagnn_core.features.encoders.registry import Encoder, TextEncoder, image_encoder_class, text_encoder_class
from dagnn_core.features.encoders.state import read_state
from dagnn_core.features.encoders.supervised import SupervisedEncoder
from dagnn_core.features.encoders.words import LabelledTexts, WordEncoder, unspaced_remedy
from dagnn_core.features.extraction.embedding import describe_images, embed_images, embed_texts
from dagnn_core.features.extraction.precomputed import join_vectors, own_vectors
from dagnn_core.features.extraction.tuning import tune
from dagnn_core.features.extraction.vector_cache import Part, VectorCache, data_digests
from dagnn_core.features.features import IMAGE_ENCODER, TEXT_ENCODER, write_samples
from dagnn_core.text import name_first

log = logging.getLogger(__name__)

BLOCK_ROWS = 1024  # rows of a matrix in memory at a time
MAX_WITHOUT_WORDS = 0.1  # fraction of the texts, above which a warning says what to do


def write_features(directory: Path, dataset: Dataset, config: FeaturesConfig, *, cache: Path) -> dict[str, Any]:
    """Fit both encoders and write the files of a `features` artifact into a draft directory.

    Args:
        directory: where the files go.
        dataset: what is encoded.
        config: which encoders.
        cache: folder where finished vectors of images and texts, and tuned models, are kept and looked for.

    Returns:
        The manifest's content. `num_zero_vectors` counts in each split the vectors without any value, such as those
        of texts without any word of the vocabulary; those of missing images and texts do not count.

    Raises:
        InputError: no training item has an image, or none a text; the image of an item is not in the data set, or
            cannot be decoded; precomputed vectors are missing or unusable; no word is frequent enough for the
            vocabulary; a model cannot be tuned.
        BackendError: memory ran out, or a process that decodes images died.
    """
    _check_training_items(dataset)
    text_path, image_path = directory / "text.npy", directory / "image.npy"
    # texts first: what is wrong with them shows at once, not after all the images
    text_encoder = _extract_texts(dataset, config, cache, text_path)
    image_encoder = _extract_images(dataset, config, cache, image_path)
    for encoder, name, kind in (
        (image_encoder, IMAGE_ENCODER, config.image),
        (text_encoder, TEXT_ENCODER, config.text),
    ):
        (directory / name).mkdir()
        encoder.save(directory / name)
        _check_saved(directory / name, kind)
    save_array(directory / "labels.npy", dataset.labels)
    unseen = {}
    if dataset.unseen_label_names:
        save_array(directory / UNSEEN_LABELS, dataset.unseen_labels)
        unseen = {"unseen_label_names": list(dataset.unseen_label_names)}
    write_samples(
        directory / "samples.parquet",
        *(dataset.ids, dataset.splits.tolist(), dataset.has_image.tolist(), dataset.has_text.tolist()),
    )
    return {
        "label_names": list(dataset.label_names),
        "num_items": len(dataset),
        "splits": {split: len(dataset.rows(split)) for split in SPLITS},
        "image": _describe_matrix(image_path, image_encoder, dataset.splits, dataset.has_image)
        | _describe_source(config.image, config.image_vectors),
        "text": _describe_matrix(text_path, text_encoder, dataset.splits, dataset.has_text)
        | _describe_source(config.text, config.text_vectors),
    } | unseen


def _check_saved(directory: Path, kind: str) -> None:
    """A user's own encoder must save what leads back to it."""
    saved = read_state(directory)["kind"]
    if saved != kind:
        raise InputError(f"{kind} has saved the state of the kind {saved!r}, expected {kind!r}: correct its `save`")


def _check_training_items(dataset: Dataset) -> None:
    training = dataset.rows("train")
    if not len(training):
        raise InputError(f"{dataset.artifact.path} has no training items, expected some to fit the encoders on")
    for present, what, keys in (
        (dataset.has_image, "an image", "dataset.folder.images or image_vectors"),
        (dataset.has_text, "a text", "dataset.folder.text_column"),
    ):
        if not present[training].any():
            raise InputError(
                f"{dataset.artifact.path}: none of the {len(training)} training items has {what}, expected some to "
                "fit its encoder on",
                f"add them to the raw data (layout folder: {keys}), or use this data set for a label graph alone",
            )


def _extract_texts(dataset: Dataset, config: FeaturesConfig, cache: Path, path: Path) -> Encoder:
    kind = text_encoder_class(config.text)
    if hasattr(kind, "open"):
        _check_written(dataset, config.text)
        backbone: TextBackbone = kind.open(config)
        if config.text_tuned_blocks and isinstance(backbone, HuggingFaceTextBackbone):
            backbone = tune(backbone, dataset, config, cache)
        extract_with_text_backbone(dataset, backbone, config, cache, path)
        return backbone
    if kind is PrecomputedEncoder:
        return _extract_vectors(dataset, "text", config.text_vectors, path)
    if not hasattr(kind, "fit_texts"):
        raise InputError(
            f"features.text: {config.text} has neither `open` nor `fit_texts`, expected one of these class methods"
        )
    _check_written(dataset, config.text)
    encoder: TextEncoder = kind.fit_texts(_labelled_texts(dataset, "train"), _labelled_texts(dataset, "val"), config)
    blocks = (encoder.encode(dataset.texts[rows]) for rows in _blocks(len(dataset)))
    _write_float32(path, blocks, len(dataset), encoder.dim)
    if isinstance(encoder, WordEncoder | SupervisedEncoder):
        _warn_of_unknown_words(dataset, path)
    return encoder


def _warn_of_unknown_words(dataset: Dataset, path: Path) -> None:
    matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    rows = np.flatnonzero(dataset.has_text & ~_any_value(matrix))
    num_texts = int(dataset.has_text.sum())
    if len(rows) > MAX_WITHOUT_WORDS * num_texts:
        log.warning(
            "%d of %d texts have no word of the vocabulary, so their vectors are zero; %s",
            *(len(rows), num_texts),
            unspaced_remedy([dataset.texts[row] for row in rows]) or "lower features.min_word_count in params.yaml",
        )


def _check_written(dataset: Dataset, kind: str) -> None:
    wordless = np.flatnonzero(dataset.has_text & ~dataset.is_written)
    if len(wordless):
        named = name_first([repr(dataset.ids[row]) for row in wordless])
        raise InputError(
            f"{dataset.artifact.path} has precomputed vectors and no words for {len(wordless)} texts ({named}), but "
            f"features.text: {kind} expects words",
            "set features.text: precomputed in params.yaml (layout features: "
            "dataset.features.text_names makes words of the columns)",
        )


def _labelled_texts(dataset: Dataset, split: str) -> LabelledTexts:
    rows = np.flatnonzero((dataset.splits == split) & dataset.has_text)
    return LabelledTexts([dataset.texts[row] for row in rows], dataset.labels[rows])


def _extract_images(dataset: Dataset, config: FeaturesConfig, cache: Path, path: Path) -> Encoder:
    kind = image_encoder_class(config.image)
    if hasattr(kind, "open"):
        backbone: ImageBackbone = kind.open(config)
        if config.image_tuned_blocks and isinstance(backbone, HuggingFaceImageBackbone):
            backbone = tune(backbone, dataset, config, cache)
        extract_with_image_backbone(dataset, backbone, config, cache, path)
        return backbone
    if kind is ClassicEncoder:
        return extract_descriptors(dataset, cache, path)
    if kind is PrecomputedEncoder:
        return _extract_vectors(dataset, "image", config.image_vectors, path)
    raise InputError(f"features.image: {config.image} has no `open`, expected this class method")


def extract_descriptors(dataset: Dataset, cache: Path, path: Path) -> ClassicEncoder:
    """Write the image matrix of the encoder `classic`, fitted on the training images, and return the encoder.

    Raises:
        InputError: an image is missing or cannot be decoded.
    """
    descriptors = _fill_descriptors(dataset, cache)
    # mean and deviation are known after all images only, so the raw descriptors wait in a file
    raw_path = path.with_suffix(".raw.npy")
    _write_float32(raw_path, descriptors.blocks(), len(dataset), DIM)
    raw = np.load(raw_path, mmap_mode="r", allow_pickle=False)
    encoder = ClassicEncoder.fit(raw, np.flatnonzero((dataset.splits == "train") & dataset.has_image))
    _write_float32(path, _standardised_blocks(encoder, raw, dataset.has_image), len(dataset), DIM)
    raw_path.unlink()
    return encoder


def extract_with_image_backbone(
    dataset: Dataset, backbone: ImageBackbone, config: FeaturesConfig, cache: Path, path: Path
) -> None:
    """Write the image matrix that a pretrained network makes, with what the cache has of it.

    Raises:
        InputError: an image is missing or cannot be decoded, or there is no GPU where one is asked for.
        BackendError: memory ran out, or a process that decodes images died.
    """
    vectors = _fill_images(dataset, backbone, config, cache)
    _write_float32(path, vectors.blocks(), len(dataset), backbone.dim)


def extract_with_text_backbone(
    dataset: Dataset, backbone: TextBackbone, config: FeaturesConfig, cache: Path, path: Path
) -> None:
    """Write the text matrix that a pretrained network makes, with what the cache has of it.

    Raises:
        InputError: there is no GPU where one is asked for.
        BackendError: memory ran out.
    """
    vectors = _fill_texts(dataset, backbone, config, cache)
    _write_float32(path, vectors.blocks(), len(dataset), backbone.dim)


def extract_part(dataset: Dataset, config: FeaturesConfig, part: Part, *, cache: Path) -> None:
    """Compute a part of the vectors that are kept in a cache: those of pretrained models, and descriptors.

    Args:
        dataset: what is encoded.
        config: which encoders.
        part: which part of the shards.
        cache: folder where finished vectors are kept and looked for.

    Raises:
        InputError: the image of an item is not in the data set, or cannot be decoded.
        BackendError: memory ran out, or a process that decodes images died.
    """
    text, image = text_encoder_class(config.text), image_encoder_class(config.image)
    if hasattr(text, "open"):
        _check_written(dataset, config.text)
        _fill_texts(dataset, text.open(config), config, cache, part)
    if hasattr(image, "open"):
        _fill_images(dataset, image.open(config), config, cache, part)
    elif image is ClassicEncoder:
        _fill_descriptors(dataset, cache, part)


def _fill_texts(
    dataset: Dataset, backbone: TextBackbone, config: FeaturesConfig, cache: Path, part: Part | None = None
) -> VectorCache:
    vectors = _open_cache(cache, dataset, "text", backbone.identity, config.precision, backbone.dim)
    vectors.fill(partial(embed_texts, dataset, backbone, config), what="text vectors", part=part)
    return vectors


def _fill_images(
    dataset: Dataset, backbone: ImageBackbone, config: FeaturesConfig, cache: Path, part: Part | None = None
) -> VectorCache:
    vectors = _open_cache(cache, dataset, "image", backbone.identity, config.precision, backbone.dim)
    vectors.fill(partial(embed_images, dataset, backbone, config), what="image vectors", part=part)
    return vectors


def _fill_descriptors(dataset: Dataset, cache: Path, part: Part | None = None) -> VectorCache:
    identity = {"kind": "classic", "version": VERSION}
    descriptors = _open_cache(cache, dataset, "image", identity, "float32", DIM)
    descriptors.fill(partial(describe_images, dataset), what="image descriptors", part=part)
    return descriptors


def _open_cache(  # noqa: PLR0917  # each of them decides the vectors
    root: Path, dataset: Dataset, modality: Modality, identity: Mapping[str, Any], precision: str, dim: int
) -> VectorCache:
    key = {
        "data": data_digests(dataset),
        "modality": modality,
        "encoder": dict(identity),
        "precision": precision,
    }
    return VectorCache(root, key, num_rows=len(dataset), dim=dim)


def _extract_vectors(dataset: Dataset, modality: Modality, file: str, path: Path) -> Encoder:
    ready = join_vectors(dataset, modality, Path(file)) if file else own_vectors(dataset, modality)
    _write_float32(path, (ready.rows(rows) for rows in _blocks(len(dataset))), len(dataset), ready.dim)
    return PrecomputedEncoder(modality, ready.dim)


def _standardised_blocks(
    encoder: ClassicEncoder, descriptors: NDArray[np.float32], present: NDArray[np.bool_]
) -> Iterator[NDArray[np.float32]]:
    for rows in _blocks(len(descriptors)):
        block = encoder.standardise(descriptors[rows])
        block[~present[rows]] = 0
        yield block


def _blocks(num_rows: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK_ROWS) for start in range(0, num_rows, BLOCK_ROWS))


def _write_float32(path: Path, blocks: Iterable[NDArray[np.float32]], num_rows: int, dim: int) -> None:
    write_matrix(path, blocks, shape=(num_rows, dim), dtype=np.float32)


def _describe_matrix(
    path: Path, encoder: Encoder, splits: NDArray[np.str_], present: NDArray[np.bool_]
) -> dict[str, Any]:
    matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    is_zero = present & ~_any_value(matrix)
    return {
        "kind": encoder.kind,
        "dim": encoder.dim,
        "dtype": str(matrix.dtype),
        "num_zero_vectors": {split: int(is_zero[splits == split].sum()) for split in SPLITS},
    }


def _any_value(matrix: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows are not zero; the matrix may be memory-mapped."""
    return np.concatenate([matrix[rows].any(axis=1) for rows in _blocks(len(matrix))])


def _describe_source(kind: str, file: str) -> dict[str, str]:
    return {"vectors_sha256": sha256_of(Path(file))} if kind == "precomputed" and file else {}

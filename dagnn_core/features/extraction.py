"""Extract features: every picture and sentence of a data set as a vector, by encoders fitted on its training split."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dagnn_core.config import FeaturesConfig
from dagnn_core.data.dataset import SPLITS, Dataset, Modality
from dagnn_core.errors import InputError
from dagnn_core.features.classic import ClassicEncoder, describe_all
from dagnn_core.features.descriptors import DIM
from dagnn_core.features.encoders import Encoder, PrecomputedEncoder
from dagnn_core.features.features import IMAGE_ENCODER, TEXT_ENCODER, write_samples
from dagnn_core.features.supervised import LabelledTexts, SupervisedEncoder
from dagnn_core.features.words import WordEncoder
from dagnn_core.progress import track

BLOCK_ROWS = 1024  # rows of a matrix in memory at a time
NUM_NAMED = 3  # ids in a message


def write_features(directory: Path, dataset: Dataset, config: FeaturesConfig) -> dict[str, Any]:
    """Fit both encoders and write the files of a `features` artifact into a draft directory.

    Args:
        directory: where the files go.
        dataset: what is encoded.
        config: which encoders.

    Returns:
        The manifest's content. `num_zero_vectors` counts in each split the vectors without any value, such as those
        of texts without any word of the vocabulary; those of missing pictures and texts do not count.

    Raises:
        InputError: no training item has a picture, or none a text; the picture of an item is not in the data set, or
            cannot be decoded; ready vectors are missing or unusable; no word is frequent enough for the vocabulary.
    """
    _check_training_items(dataset)
    text_path, image_path = directory / "text.npy", directory / "image.npy"
    # texts first: what is wrong with them shows at once, not after all the pictures
    text_encoder = _extract_texts(dataset, config, text_path)
    image_encoder = _extract_images(dataset, config, image_path)
    for encoder, name in ((image_encoder, IMAGE_ENCODER), (text_encoder, TEXT_ENCODER)):
        (directory / name).mkdir()
        encoder.save(directory / name)
    np.save(directory / "labels.npy", dataset.labels, allow_pickle=False)
    write_samples(
        directory / "samples.parquet",
        *(dataset.ids, dataset.splits.tolist(), dataset.has_image.tolist(), dataset.has_text.tolist()),
    )
    return {
        "label_names": list(dataset.label_names),
        "num_items": len(dataset),
        "splits": {split: len(dataset.rows(split)) for split in SPLITS},
        "image": _describe_matrix(image_path, image_encoder, dataset.splits, dataset.has_image),
        "text": _describe_matrix(text_path, text_encoder, dataset.splits, dataset.has_text),
    }


def _check_training_items(dataset: Dataset) -> None:
    training = dataset.rows("train")
    if not len(training):
        raise InputError(f"{dataset.artifact.path} has no training items, expected some to fit the encoders on")
    for present, what, keys in (
        (dataset.has_image, "picture", "dataset.folder.images or image_vectors"),
        (dataset.has_text, "text", "dataset.folder.text_column"),
    ):
        if not present[training].any():
            raise InputError(
                f"{dataset.artifact.path}: none of the {len(training)} training items has a {what}, expected some to "
                f"fit the {what} encoder on; give them in {keys}, or use this data set for a label graph alone"
            )


def _extract_texts(dataset: Dataset, config: FeaturesConfig, path: Path) -> Encoder:
    if config.text == "precomputed":
        return _extract_vectors(dataset, "text", path)
    encoder = _fit_text_encoder(dataset, config)
    _write_matrix(
        path, (encoder.encode(dataset.texts[rows]) for rows in _blocks(len(dataset))), len(dataset), encoder.dim
    )
    return encoder


def _fit_text_encoder(dataset: Dataset, config: FeaturesConfig) -> WordEncoder | SupervisedEncoder:
    train = _labelled_texts(dataset, "train")
    words = WordEncoder.fit(
        train.texts,
        kind="tfidf" if config.text == "tfidf" else "bow",
        min_word_count=config.min_word_count,
        max_words=config.max_words,
    )
    if config.text != "supervised_bow":
        return words
    val = _labelled_texts(dataset, "val")
    return SupervisedEncoder.fit(words, train, val, dim=config.supervised_dim, seed=config.seed)


def _labelled_texts(dataset: Dataset, split: str) -> LabelledTexts:
    rows = np.flatnonzero((dataset.splits == split) & dataset.has_text)
    return LabelledTexts([dataset.texts[row] for row in rows], dataset.labels[rows])


def _extract_images(dataset: Dataset, config: FeaturesConfig, path: Path) -> Encoder:
    if config.image == "precomputed":
        return _extract_vectors(dataset, "image", path)
    # one pass over the pictures: mean and deviation are known after it only, so the raw descriptors wait in a file
    raw_path = path.with_suffix(".raw.npy")
    descriptors = track(describe_all(_named_pictures(dataset)), description="describing pictures", total=len(dataset))
    _write_matrix(raw_path, descriptors, len(dataset), DIM)
    raw = np.load(raw_path, mmap_mode="r", allow_pickle=False)
    encoder = ClassicEncoder.fit(raw, np.flatnonzero((dataset.splits == "train") & dataset.has_image))
    _write_matrix(path, _standardised_blocks(encoder, raw, dataset.has_image), len(dataset), DIM)
    raw_path.unlink()
    return encoder


def _standardised_blocks(
    encoder: ClassicEncoder, descriptors: NDArray[np.float32], present: NDArray[np.bool_]
) -> Iterator[NDArray[np.float32]]:
    for rows in _blocks(len(descriptors)):
        block = encoder.standardise(descriptors[rows])
        block[~present[rows]] = 0
        yield block


def _extract_vectors(dataset: Dataset, modality: Modality, path: Path) -> Encoder:
    vectors = dataset.vectors(modality)
    key = f"dataset.folder.{modality}_vectors"
    if vectors is None:
        raise InputError(
            f"{dataset.artifact.path} has no ready {modality} vectors, as features.{modality}: precomputed expects; "
            f"name their file in {key}, or choose another features.{modality} in params.yaml"
        )
    if vectors.ndim != 2 or len(vectors) != len(dataset) or not vectors.shape[1] or vectors.dtype.kind != "f":
        raise InputError(
            f"{dataset.artifact.path}: vectors/{modality}.npy is {vectors.dtype} {list(vectors.shape)}, expected "
            f"floating-point numbers [{len(dataset)}, dim]; correct {key} and make the data set again"
        )
    dim = vectors.shape[1]
    _write_matrix(path, _finite_blocks(dataset, modality, vectors), len(dataset), dim)
    return PrecomputedEncoder(modality, dim)


def _finite_blocks(
    dataset: Dataset, modality: Modality, vectors: NDArray[np.floating[Any]]
) -> Iterator[NDArray[np.float32]]:
    for rows in _blocks(len(vectors)):
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, and is refused
            block = vectors[rows].astype(np.float32)
        bad = rows.start + np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(bad):
            named = _name_first([f"{dataset.ids[row]!r} (row {row})" for row in bad])
            raise InputError(
                f"{dataset.artifact.path}: vectors/{modality}.npy has NaN or infinity for the items {named}, expected "
                f"finite numbers; correct dataset.folder.{modality}_vectors and make the data set again"
            )
        yield block


def _named_pictures(dataset: Dataset) -> Iterator[tuple[str, bytes | None]]:
    path = dataset.artifact.path
    start = 0
    for pictures in dataset.iterate_pictures():
        here = slice(start, start + len(pictures))
        ids, present = dataset.ids[here], dataset.has_image[here]
        missing = [
            repr(item_id)
            for item_id, has, picture in zip(ids, present, pictures, strict=True)
            if has and picture is None
        ]
        if missing:
            raise InputError(
                f"{path} has no picture for the items {_name_first(missing)}, as features.image: classic expects; "
                "name the pictures in dataset.folder.images, or set features.image: precomputed in params.yaml"
            )
        for item_id, picture in zip(ids, pictures, strict=True):
            yield f"{path}: the picture of item {item_id!r}", picture
        start += len(pictures)


def _name_first(names: Sequence[str]) -> str:
    rest = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _blocks(num_rows: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK_ROWS) for start in range(0, num_rows, BLOCK_ROWS))


def _write_matrix(path: Path, blocks: Iterable[NDArray[np.float32]], num_rows: int, dim: int) -> None:
    """Write a float32 matrix, given by its rows or by blocks of rows, without ever holding it in memory.

    By plain writes: where the disk is full they raise an error, a memory map kills the process.
    """
    header = {"descr": "<f4", "fortran_order": False, "shape": (num_rows, dim)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype="<f4").data)


def _describe_matrix(
    path: Path, encoder: Encoder, splits: NDArray[np.str_], present: NDArray[np.bool_]
) -> dict[str, Any]:
    matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    is_zero = present & np.concatenate([~matrix[rows].any(axis=1) for rows in _blocks(len(matrix))])
    return {
        "kind": encoder.kind,
        "dim": encoder.dim,
        "dtype": str(matrix.dtype),
        "num_zero_vectors": {split: int(is_zero[splits == split].sum()) for split in SPLITS},
    }

"""Embed new texts or images with a trained model, into a file."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dagnn_core.data.images import image_names
from dagnn_core.disk import writing
from dagnn_core.errors import InputError
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.progress import track

BATCH = 64  # texts or images at a time


def run(*, model: Path, out: Path, texts: Path | None = None, images: Path | None = None) -> int:
    """Write `ids` [N] and `embeddings` [N, d] to an `.npz` file, in the order of the lines or of the paths.

    Args:
        model: model artifact.
        out: the file; one that is there is replaced.
        texts: UTF-8 file with one text per line, empty lines left out; the ids are the texts.
        images: folder with images, also in folders below; the ids are the paths in it.

    Returns:
        N.

    Raises:
        ArtifactError: the model is missing or damaged.
        InputError: not one of `texts` and `images` is given, there is nothing in it, an image cannot be decoded, or the
            model was trained on precomputed vectors.
        DiskError: the disk refuses the file.
    """
    if (texts is None) == (images is None):
        raise InputError("give one of --texts and --images")
    if out.suffix != ".npz" or not out.parent.is_dir():
        raise InputError(f"{out} cannot be written, expected a file that ends in .npz in a folder that exists")
    ids = _lines(texts) if texts else image_names(images or Path())
    trained = TrainedModel.read(model, verify=True)
    embeddings = _embed(ids, trained.encode_texts if texts else _image_embedder(trained, images or Path()))
    partial = out.with_suffix(".npz.partial")
    try:
        with writing(out, need=embeddings.nbytes), partial.open("wb") as stream:
            np.savez(stream, ids=np.array(ids), embeddings=embeddings)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return len(ids)


def _lines(file: Path) -> list[str]:
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}), expected a UTF-8 file with one text per line") from error
    if not lines:
        raise InputError(f"{file} has no text, expected one per line")
    return lines


def _embed(ids: Sequence[str], embed: Callable[[Sequence[str]], NDArray[np.float32]]) -> NDArray[np.float32]:
    batches = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
    return np.concatenate(list(map(embed, track(batches, description="embedding", total=len(ids), size=len))))


def _image_embedder(model: TrainedModel, folder: Path) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    def embed(names: Sequence[str]) -> NDArray[np.float32]:
        try:
            return model.encode_images([(folder / name).read_bytes() for name in names])
        except InputError as error:
            if len(names) > 1:
                return np.concatenate([embed([name]) for name in names])  # one by one, to find the image
            if model.image_encoder.kind == "precomputed":
                raise
            raise InputError(f"{folder / names[0]}: {error}") from error

    return embed

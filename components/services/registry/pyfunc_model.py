"""The model as MLflow serves it: a row with a text or an image becomes an embedding.

MLflow stores this file beside the model's files and runs it to load them ("models from code"), so it imports only
what is stored with the model (`dagnn_core`) and packages that the model pins.
"""

import base64
import binascii
import json
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

from dagnn_core.errors import InputError
from dagnn_core.model.embedder import TrainedModel


class Cell(NamedTuple):
    """A filled cell of the input: its row, counted from 1, and its text."""

    row: int
    value: str


class ServedModel(PythonModel):
    """Embeds rows with the columns `text` and `image`, of which each row fills exactly one.

    `text` is the text itself, `image` the base64 form of an encoded image (JPEG, PNG ...). A modality that the model
    was trained on as precomputed vectors takes the JSON text of a list of numbers instead: MLflow's signatures cannot
    have arrays that are missing in some rows.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Read the model artifact, checking every checksum."""
        self._model = TrainedModel.read(Path(context.artifacts["model"]), verify=True)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> NDArray[np.float32]:
        """Embed every row.

        Shape:
            N rows -> [N, d].

        Raises:
            MlflowException: a row has both or neither of text and image, or one that cannot be read. A server answers
                400 with its words; any other exception would become a traceback.
        """
        try:
            return self._embed(model_input)
        except InputError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _embed(self, model_input: pd.DataFrame) -> NDArray[np.float32]:
        texts, images = _filled_cells(model_input, "text"), _filled_cells(model_input, "image")
        _check_one_each(len(model_input), texts, images)
        embeddings = np.empty((len(model_input), self._model.artifact.content["output_dim"]), np.float32)
        for cells, embed in ((texts, self._embed_texts), (images, self._embed_images)):
            if cells:
                embeddings[[cell.row - 1 for cell in cells]] = embed(cells)
        return embeddings

    def _embed_texts(self, cells: list[Cell]) -> NDArray[np.float32]:
        encoder = self._model.text_encoder
        if encoder.kind == "precomputed":
            return self._model.embed_text_features(_vectors(cells, "text", encoder.dim))
        return self._model.encode_texts([cell.value for cell in cells])

    def _embed_images(self, cells: list[Cell]) -> NDArray[np.float32]:
        encoder = self._model.image_encoder
        if encoder.kind == "precomputed":
            return self._model.embed_image_features(_vectors(cells, "image", encoder.dim))
        images = [_image(cell) for cell in cells]
        try:
            return self._model.encode_images(images)
        except InputError as error:
            raise InputError(f"{error} (counting the rows with an image only)") from error


def _filled_cells(table: pd.DataFrame, column: str) -> list[Cell]:
    cells = []
    for row, value in enumerate(table.get(column, ()), start=1):
        if isinstance(value, str):
            if value:
                cells.append(Cell(row, value))
        elif not (pd.api.types.is_scalar(value) and pd.isna(value)):
            raise InputError(
                f"row {row}: {column} is of type {type(value).__name__}, expected a text", "make one row of each item"
            )
    return cells


def _check_one_each(num_rows: int, texts: list[Cell], images: list[Cell]) -> None:
    if num_rows == 0:  # also where all columns have other names: MLflow takes those away, and the rows with them
        raise InputError(
            "the input has no row with a column text or image, expected at least one", "name one of them so"
        )
    with_text, with_image = {cell.row for cell in texts}, {cell.row for cell in images}
    for row in range(1, num_rows + 1):
        if (row in with_text) == (row in with_image):
            raise InputError(
                f"row {row} has {'both' if row in with_text else 'neither'} text and image, expected exactly one",
                "give the other in a row of its own, or leave it empty",
            )


def _image(cell: Cell) -> bytes:
    try:
        return base64.b64decode(cell.value, validate=True)
    except binascii.Error as error:
        raise InputError(
            f"row {cell.row}: image is not base64 ({error}), expected an encoded image (JPEG, PNG ...) as base64"
        ) from error


def _vectors(cells: list[Cell], column: str, dim: int) -> NDArray[np.float32]:
    vectors = np.empty((len(cells), dim), dtype=np.float32)
    for index, cell in enumerate(cells):
        try:
            vector = np.asarray(json.loads(cell.value), dtype=np.float64)
        except (ValueError, TypeError):
            vector = np.empty(0)
        if vector.shape != (dim,) or not np.isfinite(vector).all():
            raise InputError(
                f"row {cell.row}: {column} is {cell.value[:40]!r}, expected {dim} numbers as a JSON list: "
                "this model was trained on precomputed vectors"
            )
        vectors[index] = vector
    return vectors


mlflow.models.set_model(ServedModel())

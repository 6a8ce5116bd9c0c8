"""`dagnn data`: make a data set by hand, as the step `dataset` does."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from components.command import WORK, WorkOption
from dagnn_core.config import DatasetConfig, FolderConfig
from dagnn_core.errors import InputError

app = typer.Typer(help="Make a data set: render the demo, or import raw data.", no_args_is_help=True)
import_app = typer.Typer(help="Import raw data.", no_args_is_help=True)
app.add_typer(import_app, name="import")

_DEFAULTS = DatasetConfig()

Out = Annotated[Path, typer.Argument(help="Folder for the data set; a data set that is there is replaced.")]
Seed = Annotated[int, typer.Option(min=0, help="Draws the splits, where the data has none.")]
ValFraction = Annotated[float, typer.Option(help="Fraction of the items drawn for validation.")]
TestFraction = Annotated[float, typer.Option(help="Fraction of the items drawn for the test.")]


@app.command()
def demo(
    out: Out,
    *,
    spec: Annotated[Path, typer.Option(help="YAML file: number, size and seed of the scenes, wording.")] = Path(
        _DEFAULTS.source
    ),
    seed: Seed = _DEFAULTS.seed,
    val_fraction: ValFraction = _DEFAULTS.val_fraction,
    test_fraction: TestFraction = _DEFAULTS.test_fraction,
    work: WorkOption = WORK,
) -> None:
    """Render the built-in demo: pictures of scenes, sentences about them, correlated labels."""
    from components import dataset

    params = DatasetConfig(
        layout="demo", source=str(spec), seed=seed, val_fraction=val_fraction, test_fraction=test_fraction
    )
    dataset.run(params=params, work=work, dataset_out=out)


@import_app.command()
def folder(
    source: Annotated[Path, typer.Argument(help="Folder with the table and the pictures.")],
    out: Out,
    *,
    spec: Annotated[
        Path | None, typer.Option(help="YAML file with the keys of dataset.folder; options override it.")
    ] = None,
    table: Annotated[str | None, typer.Option(help="CSV, Parquet or JSON Lines file, one row per item.")] = None,
    images: Annotated[str | None, typer.Option(help="Folder or uncompressed tar with the pictures.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column with the unique id. (default: id)")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column with the sentence. (default: text)")] = None,
    image_column: Annotated[str | None, typer.Option(help="Column with the picture's path inside IMAGES.")] = None,
    image_pattern: Annotated[
        str | None, typer.Option(help="The picture's path where no column has it. (default: {id}.jpg)")
    ] = None,
    label_column: Annotated[
        list[str] | None, typer.Option(help="Column with labels; repeat it for several. (default: labels)")
    ] = None,
    label_separator: Annotated[
        str | None, typer.Option(help="Splits a cell into labels; empty: a cell is one label. (default: |)")
    ] = None,
    label_names: Annotated[
        str | None, typer.Option(help="File with the labels that count, in order; others are ignored.")
    ] = None,
    split_column: Annotated[str | None, typer.Option(help="Column with train, val or test.")] = None,
    splits: Annotated[str | None, typer.Option(help="Table with the columns id and split.")] = None,
    image_vectors: Annotated[str | None, typer.Option(help=".npz with `ids` and `features` of the pictures.")] = None,
    text_vectors: Annotated[str | None, typer.Option(help=".npz with `ids` and `features` of the texts.")] = None,
    seed: Seed = _DEFAULTS.seed,
    val_fraction: ValFraction = _DEFAULTS.val_fraction,
    test_fraction: TestFraction = _DEFAULTS.test_fraction,
    max_rejected: Annotated[
        float, typer.Option(help="Fraction of unusable rows above which nothing is imported.")
    ] = _DEFAULTS.max_rejected,
    incomplete: Annotated[
        Literal["reject", "keep"],
        typer.Option(help="Rows without picture or without text: unusable, or kept in the training split."),
    ] = _DEFAULTS.incomplete,
    min_label_count: Annotated[
        int, typer.Option(help="Labels on fewer training items are dropped; 1 drops none.")
    ] = _DEFAULTS.min_label_count,
    work: WorkOption = WORK,
) -> None:
    """Import a table and its pictures. Paths of files are relative to SOURCE."""
    from components import dataset
    from components.params import load_spec

    given: dict[str, Any] = {
        "table": table,
        "images": images,
        "id_column": id_column,
        "text_column": text_column,
        "image_column": image_column,
        "image_pattern": image_pattern,
        "label_columns": tuple(label_column) if label_column else None,
        "label_separator": label_separator,
        "label_names": label_names,
        "split_column": split_column,
        "splits": splits,
        "image_vectors": image_vectors,
        "text_vectors": text_vectors,
    }
    layout = load_spec(spec, FolderConfig) if spec else FolderConfig()
    layout = replace(layout, **{key: value for key, value in given.items() if value is not None})
    if not layout.table:
        raise InputError("no table is named; give --table FILE (CSV, Parquet or JSON Lines), or `table` in --spec")
    params = DatasetConfig(
        layout="folder",
        source=str(source),
        seed=seed,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        max_rejected=max_rejected,
        incomplete=incomplete,
        min_label_count=min_label_count,
        folder=layout,
    )
    dataset.run(params=params, work=work, dataset_out=out)

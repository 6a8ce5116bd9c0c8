"""`dagnn data`: put raw data under DVC, fetch it, and make a data set by hand, as the step `dataset` does."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dagnn_core.config import DatasetConfig, FolderConfig
from dagnn_core.errors import InputError

app = typer.Typer(help="Raw data under version control; data sets: the demo, or imported.", no_args_is_help=True)
import_app = typer.Typer(help="Import raw data.", no_args_is_help=True)
app.add_typer(import_app, name="import")

_DEFAULTS = DatasetConfig()

EndpointUrl = Annotated[str, typer.Option(help="S3 store. (default: AWS_ENDPOINT_URL, else AWS)")]
Out = Annotated[Path, typer.Argument(help="Folder for the data set; a data set that is there is replaced.")]
Seed = Annotated[int, typer.Option(min=0, help="Draws the splits, where the data has none.")]
ValFraction = Annotated[float, typer.Option(help="Fraction of the items drawn for validation.")]
TestFraction = Annotated[float, typer.Option(help="Fraction of the items drawn for the test.")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of the data set: it goes to data/NAME.")],
    source: Annotated[str, typer.Argument(help="Folder, archive (tar, zip) or file; or an s3:// URI of one.")],
    endpoint_url: EndpointUrl = "",
) -> None:
    """Put raw data under DVC: a new data set, or a new version of one.

    Archives are unpacked; a folder of many pictures becomes one tar beside it (images/ becomes images.tar).
    """
    from components.services.storage import Storage
    from components.services.versioning import add as add_raw_data

    added = add_raw_data(name, source, project=Path(), storage=Storage(endpoint_url=endpoint_url))
    typer.echo(f"data/{name}: {added.num_files} files, {added.size / 1e6:.1f} MB, {added.md5}")
    typer.echo(
        f"""keep this version:
    git add data/{name}.dvc data/.gitignore && git commit -m "Add data {name}"
    dvc push
use it (or set both keys in params.yaml, with those of the layout, and run `dvc repro`):
    dvc exp run -S dataset.layout=folder -S dataset.source=data/{name}"""
    )


@app.command()
def fetch(
    out: Annotated[Path, typer.Argument(help="Folder for the raw data; it does not exist yet.")],
    *,
    md5: Annotated[str, typer.Option(help="DVC's digest, as in the .dvc file; no git is needed.")] = "",
    remote: Annotated[str, typer.Option(help="DVC remote that has the digest: s3://bucket/prefix.")] = "",
    endpoint_url: EndpointUrl = "",
    repository: Annotated[str, typer.Option(help="Instead of a digest: path or git URL of the repository.")] = "",
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of the repository.")] = "",
    path: Annotated[str, typer.Option(help="Path of the data in the repository: data/NAME.")] = "",
) -> None:
    """Fetch raw data at one version, by digest or by revision; an interrupted fetch goes on."""
    from components import fetch_dataset

    fetch_dataset.run(
        raw_out=out,
        md5=md5,
        remote=remote,
        endpoint_url=endpoint_url,
        repository=repository,
        revision=revision,
        path=path,
    )


@app.command()
def demo(
    out: Out,
    spec: Annotated[Path, typer.Option(help="YAML file: number, size and seed of the scenes, wording.")] = Path(
        _DEFAULTS.source
    ),
    seed: Seed = _DEFAULTS.seed,
    val_fraction: ValFraction = _DEFAULTS.val_fraction,
    test_fraction: TestFraction = _DEFAULTS.test_fraction,
) -> None:
    """Render the built-in demo: pictures of scenes, sentences about them, correlated labels."""
    from components import dataset

    params = DatasetConfig(
        layout="demo", source=str(spec), seed=seed, val_fraction=val_fraction, test_fraction=test_fraction
    )
    dataset.run(params=params, dataset_out=out)


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
    dataset.run(params=params, dataset_out=out)

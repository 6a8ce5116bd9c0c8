"""`dagnn index` and `dagnn search`: find images by text and texts by image."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from components.locations import INDEX, INDEX_WORK, MODEL
from dagnn_core.errors import InputError
from dagnn_core.search import EXACT_LIMIT, RECALL

if TYPE_CHECKING:
    from dagnn_core.artifacts import Artifact
    from dagnn_core.search.index import Hit, Query, SearchIndex

SHOWN_CHARACTERS = 60  # of a text in the table
SHOWN_REJECTED = 3  # rows that could not be indexed

app = typer.Typer(help="Indices: built, changed, described.", no_args_is_help=True, rich_markup_mode=None)

IndexArgument = Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index.")]
ModelOption = Annotated[
    str, typer.Option(help="Model artifact, or a registered version, such as models:/dagnn@champion.")
]
SourceOption = Annotated[
    Path,
    typer.Option(help="Data set artifact, folder of images, or table (CSV, Parquet, JSON Lines) with the column id."),
]
ImagesOption = Annotated[
    Path | None, typer.Option(help="Folder, tar or zip of the images that a table names; default: beside the table.")
]
SplitOption = Annotated[list[str] | None, typer.Option("--split", help="Split of a data set to take; default: all.")]
WorkOption = Annotated[Path, typer.Option(help="Folder for finished shards, from which an interrupted build resumes.")]


@app.command()
def build(
    out: Annotated[Path, typer.Argument(help="Folder of the index; one that is there is replaced when this is done.")],
    *,
    source: SourceOption,
    model: ModelOption = str(MODEL),
    images: ImagesOption = None,
    split: SplitOption = None,
    float16: Annotated[bool, typer.Option("--float16", help="Store vectors in 16 bits: half the disk.")] = False,
    exact_limit: Annotated[
        int, typer.Option(min=1, help="Largest number of items that is searched exactly.")
    ] = EXACT_LIMIT,
    recall: Annotated[
        float, typer.Option(min=0.5, max=1, help="Recall at 10 that a larger index must reach.")
    ] = RECALL,
    work: WorkOption = INDEX_WORK,
) -> None:
    """Embed a collection and index both modalities."""
    from components.services.lineage.provenance import provenance
    from components.services.serving.models import open_model
    from dagnn_core.search.build import Options, build_index
    from dagnn_core.search.sources import open_source

    opened = open_source(source, images=images, splits=split or ())
    trained = open_model(model)
    _print_index(
        build_index(
            out,
            trained,
            opened,
            work=work,
            options=Options("float16" if float16 else "float32", exact_limit, recall),
            provenance=provenance("index", parents=[trained.artifact]),
        )
    )


@app.command()
def add(
    index: IndexArgument,
    *,
    source: SourceOption,
    model: ModelOption = str(MODEL),
    images: ImagesOption = None,
    split: SplitOption = None,
    work: WorkOption = INDEX_WORK,
) -> None:
    """Add items; the others are not embedded again."""
    _change(index, source, images, split, model=model, work=work, replace=False)


@app.command()
def replace(
    index: IndexArgument,
    *,
    source: SourceOption,
    model: ModelOption = str(MODEL),
    images: ImagesOption = None,
    split: SplitOption = None,
    work: WorkOption = INDEX_WORK,
) -> None:
    """Add items, in place of those that have the same ids."""
    _change(index, source, images, split, model=model, work=work, replace=True)


@app.command()
def remove(
    index: IndexArgument,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the items.")],
) -> None:
    """Remove items."""
    from dagnn_core.search.build import remove_from_index

    _print_index(remove_from_index(index, ids))


@app.command()
def info(
    index: IndexArgument = INDEX,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Describe an index: model, items, kind, parameters, measured recall."""
    from dagnn_core.artifacts import read_artifact
    from dagnn_core.search.index import KIND

    artifact = read_artifact(index, KIND, verify=True)
    if as_json:
        typer.echo(json.dumps({"digest": artifact.content_digest} | artifact.content, ensure_ascii=False))
    else:
        _print_index(artifact)


@app.command()
def export(
    index: IndexArgument = INDEX,
    *,
    to: Annotated[str, typer.Option(metavar="parquet|pgvector|qdrant", help="Where the copy goes.")],
    out: Annotated[Path | None, typer.Option(help="parquet: the file.")] = None,
    url: Annotated[
        str,
        typer.Option(
            help="pgvector: postgresql://USER@HOST/DATABASE, default: as PGHOST, PGUSER and so on say;"
            " qdrant: http://HOST:6333."
        ),
    ] = "",
    table: Annotated[str, typer.Option(help="pgvector: the table.")] = "dagnn",
    collection: Annotated[str, typer.Option(help="qdrant: the alias of the collection.")] = "dagnn",
) -> None:
    """Copy an index to a Parquet file, to PostgreSQL with pgvector, or to Qdrant.

    Passwords come from PGPASSWORD or ~/.pgpass, and QDRANT_API_KEY.
    """
    from dagnn_core.artifacts import read_artifact
    from dagnn_core.search.export import write_parquet
    from dagnn_core.search.index import KIND

    if to not in ("parquet", "pgvector", "qdrant"):
        raise InputError(f"--to is {to!r}, expected parquet, pgvector or qdrant")
    if (to == "parquet") != (out is not None) or (to == "qdrant" and not url):
        raise InputError("give --out FILE for parquet alone, and --url for qdrant")
    artifact = read_artifact(index, KIND, verify=True)
    if out is not None:
        copied, where = write_parquet(artifact, out), str(out)
    elif to == "pgvector":
        from components.services.vector_stores.pgvector import load_pgvector

        copied, where = load_pgvector(artifact, table, url=url), f"the table {table}"
    else:
        from components.services.vector_stores.qdrant import load_qdrant

        api_key = os.environ.get("QDRANT_API_KEY")
        copied, where = load_qdrant(artifact, collection, url=url, api_key=api_key), f"the collection {collection}"
    typer.echo(f"{copied} items of {artifact.path} ({artifact.content_digest[:12]}) are in {where}")


def search(
    text: Annotated[str | None, typer.Argument(help="Text that images are to fit.")] = None,
    *,
    image: Annotated[Path | None, typer.Option(help="Image that texts are to fit.")] = None,
    like: Annotated[str | None, typer.Option(metavar="ID", help="Item that images are to resemble.")] = None,
    target: Annotated[
        str | None, typer.Option(metavar="image|text", help="What is searched; default: as said of the query.")
    ] = None,
    index: Annotated[Path, typer.Option(help="Folder of the index.")] = INDEX,
    model: ModelOption = str(MODEL),
    k: Annotated[int, typer.Option("-k", min=1, help="Number of results.")] = 10,
    labels: Annotated[str, typer.Option(help='Labels of the results, such as "beach and not person".')] = "",
    filters: Annotated[
        list[str] | None, typer.Option("--filter", metavar="COLUMN=VALUE", help="Value of a column of the results.")
    ] = None,
    min_score: Annotated[float, typer.Option(min=-1, max=1, help="Smallest cosine of a result.")] = -1.0,
    show: Annotated[Path | None, typer.Option(help="PNG file for a strip of the results.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Find images by text, texts by image, or items like one of the index."""
    from components.services.serving.answers import answer_of
    from components.services.serving.models import open_model
    from dagnn_core.search.index import SearchIndex

    if sum(given is not None for given in (text, image, like)) != 1:
        raise InputError("give one query: a text, --image FILE or --like ID")
    if show is not None and (show.suffix.lower() != ".png" or not show.absolute().parent.is_dir()):
        raise InputError(f"{show} cannot be written, expected a file that ends in .png in a folder that exists")
    opened = SearchIndex.read(index, open_model(model), verify=True, with_thumbnails=show is not None)
    query = _query(opened, text, image, like, _modality(target))
    hits = opened.search([query], k, allowed=opened.allowed(labels, filters or ()), min_score=min_score)[0]
    if as_json:
        typer.echo(json.dumps(answer_of(opened, query, hits), ensure_ascii=False))
    else:
        _print_hits(opened, query, hits)
    if show is not None:
        from dagnn_core.search.strip import draw_strip

        _write(show, draw_strip(opened, hits))


def _change(
    index: Path, source: Path, images: Path | None, split: list[str] | None, *, model: str, work: Path, replace: bool
) -> None:
    from components.services.serving.models import open_model
    from dagnn_core.search.build import add_to_index
    from dagnn_core.search.sources import open_source

    opened = open_source(source, images=images, splits=split or ())
    _print_index(add_to_index(index, open_model(model), opened, work=work, replace=replace))


def _modality(target: str | None) -> Literal["image", "text"] | None:
    if target is not None and target not in ("image", "text"):
        raise InputError(f"--target is {target!r}, expected image or text")
    return target  # type: ignore[return-value]


def _query(
    index: "SearchIndex",
    text: str | None,
    image: Path | None,
    like: str | None,
    target: Literal["image", "text"] | None,
) -> "Query":
    if text is not None:
        return index.text_query(text, target=target or "image")
    if like is not None:
        return index.item_query(like, target=target or "image")
    assert image is not None
    try:
        encoded = image.read_bytes()
    except OSError as error:
        raise InputError(f"{image} cannot be read ({error.strerror}), expected an image") from error
    try:
        return index.image_query(encoded, target=target or "text")
    except InputError as error:
        from dagnn_core.data.images import FORMATS, decoding_fault

        fault = decoding_fault(encoded)
        if not fault:
            raise
        raise InputError(f"{image} cannot be decoded ({fault})", f"give an image, {', '.join(FORMATS)}") from error


def _write(path: Path, content: bytes) -> None:
    from dagnn_core.disk import writing

    partial = path.with_name(f".{path.name}.partial")
    try:
        with writing(path, need=len(content)):
            partial.write_bytes(content)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _print_hits(index: "SearchIndex", query: "Query", hits: "list[Hit]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from components.services.serving.answers import is_relevant
    from dagnn_core.text import cell

    if not hits:
        typer.echo(f"no {query.target} fits --labels, --filter and --min-score", err=True)
        return
    if is_relevant(hits) is False:
        near = ", ".join(f"{name} {probability:.2f}" for name, probability in index.nearest_labels(query))
        typer.echo("nothing relevant was found" + (f"; the nearest labels: {near}" if near else ""), err=True)
    table = Table(box=None, pad_edge=False)
    has_probability = any(hit.probability is not None for hit in hits)
    for name in ("", "score", *(["relevant"] if has_probability else []), "id", "text", "labels"):
        table.add_column(name, justify="right" if name in ("", "score", "relevant") else "left", overflow="fold")
    if has_probability:
        table.add_column("because of")
    for hit in hits:
        probability = [] if hit.probability is None else [f"{hit.probability:.2f}"]
        because = [", ".join(f"{name} {share:.2f}" for name, share in hit.reasons)] if has_probability else []
        text = hit.text if len(hit.text) <= SHOWN_CHARACTERS else hit.text[:SHOWN_CHARACTERS] + " ..."
        cells = [str(hit.rank), f"{hit.score:.4f}", *probability, hit.id, text, ", ".join(hit.labels), *because]
        table.add_row(*(Text(cell(shown)) for shown in cells))
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table)


def _print_index(artifact: "Artifact") -> None:
    content = artifact.content
    typer.echo(f"index     {artifact.path} ({artifact.content_digest[:12]})")
    typer.echo(f"model     {content['model']['digest'][:12]} ({content['model']['kind']})")
    typer.echo(f"items     {content['num_items']}: {content['num_images']} images, {content['num_texts']} texts")
    if content["num_rejected"]:
        import pyarrow.parquet as pq

        from dagnn_core.search.index import REJECTED
        from dagnn_core.text import cell

        typer.echo(f"rejected  {content['num_rejected']} rows, all of them in {artifact.file(REJECTED)}")
        for row in pq.read_table(artifact.file(REJECTED)).slice(0, SHOWN_REJECTED).to_pylist():
            typer.echo(f"          row {row['row']}, {cell(row['id'] or 'without id')}: {cell(row['reason'])}")
    typer.echo(f"vectors   {content['dim']} numbers, {content['dtype']}")
    for modality in ("image", "text"):
        cells = content["cells"].get(modality)
        kind = "exact"
        if cells:
            kind = f"inverted file, {cells['read']} cells read, recall at 10 {cells['recall_at_10']:.3f}"
        typer.echo(f"{modality:<9} {kind}")

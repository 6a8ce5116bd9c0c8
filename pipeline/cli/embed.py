"""`dagnn embed`: the embeddings of new texts or images."""

from pathlib import Path
from typing import Annotated

import typer


def embed(
    model: Annotated[Path, typer.Argument(help="Model artifact, such as artifacts/model.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.npz", help="File for `ids` and `embeddings`.")],
    *,
    texts: Annotated[Path | None, typer.Option(help="Text file, one text per line; ids are the texts.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of images; ids are their paths in it.")] = None,
) -> None:
    """Embed new texts or images with a trained model; those of both are compared by cosine."""
    from components.steps import embed as embedding

    count = embedding.run(model=model, texts=texts, images=images, out=out)
    typer.echo(f"{out}: {count} embeddings")

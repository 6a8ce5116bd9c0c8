"""`dagnn clean`: what interrupted commands have left."""

from pathlib import Path
from typing import Annotated

import typer


def clean(
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove what is listed.")] = False,
    cache: Annotated[bool, typer.Option("--cache", help="Also vectors and data sets that later runs reuse.")] = False,
) -> None:
    """List what interrupted commands have left in this project, and with --yes remove it.

    What a running command works on stays. Finished artifacts, data and runs are never touched.
    """
    from components.leftovers import find_leftovers, remove
    from dagnn_core.disk import readable_size

    leftovers = find_leftovers(Path(), cache=cache)
    if not leftovers:
        typer.echo("nothing is left over")
        return
    width = max(len(str(leftover.path)) for leftover in leftovers)
    for leftover in leftovers:
        outcome = "" if not yes else ": removed" if remove(leftover) else ": stays, a process is at work on it"
        typer.echo(f"{leftover.path!s:{width}}  {readable_size(leftover.size):>10}  {leftover.what}{outcome}")
    if not yes:
        typer.echo("nothing was removed; add --yes to remove these")

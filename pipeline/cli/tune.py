"""`dagnn tune`: search for better values of the configuration on the validation split."""

from pathlib import Path
from typing import Annotated

import typer

from components.locations import ARTIFACTS, DATASET, FEATURES, LABEL_GRAPH, WORK

SEARCHES = ARTIFACTS / "tune"
STORAGE = "DAGNN_TUNE_STORAGE"
"""Variable with the URL of a database, which may have a password."""


def tune(
    space: Annotated[str, typer.Argument(metavar="SPACE", help="file of a search space, or shipped: aaai21, best")],
    *,
    params: Annotated[Path, typer.Option(help="configuration with the other values")] = Path("params.yaml"),
    features: Annotated[Path, typer.Option(help="features artifact")] = FEATURES,
    label_graph: Annotated[Path, typer.Option(help="label graph artifact")] = LABEL_GRAPH,
    dataset: Annotated[Path, typer.Option(help="dataset artifact, where the space has label_graph")] = DATASET,
    trials: Annotated[
        int | None, typer.Option(min=1, help="of the whole search; more continue it  [default: the space's]")
    ] = None,
    name: Annotated[str, typer.Option(help="of the search  [default: that of the space]")] = "",
    storage: Annotated[
        str,
        typer.Option(
            envvar=STORAGE,
            help="file or database URL that all processes of the search share  [default: artifacts/tune/NAME.journal]",
        ),
    ] = "",
    out: Annotated[Path | None, typer.Option(help="folder for the results  [default: artifacts/tune/NAME]")] = None,
    work: Annotated[Path, typer.Option(help="folder for unfinished trials")] = WORK,
) -> None:
    """Search for values of model, train and label_graph that give a higher validation MAP.

    Several processes and machines work at one search if they share the storage. Run the same command again to resume.
    """
    from components.params import located
    from components.params_text import diff, with_values
    from components.services.tracking.mlflow import Tracking
    from components.space_file import read_base, read_space
    from components.steps.tune import PAGE, run
    from dagnn_core.config.section import sections_of
    from dagnn_core.config.space import check_search_name
    from dagnn_core.disk import writing
    from dagnn_core.reports.tuning.search import nested, table

    path = find_space(space)
    chosen = read_space(path)
    base = read_base(params, chosen, path)
    name = name or path.stem
    check_search_name(name)
    out = out or SEARCHES / name
    search = run(
        features=features,
        label_graph=label_graph,
        dataset=dataset,
        space=chosen,
        base=base,
        name=name,
        storage=storage or str(SEARCHES / f"{name}.journal"),
        tracking=Tracking.from_environment(),
        work=work,
        search_out=out,
        num_trials=trials,
    )
    typer.echo(table(search))
    typer.echo(f"\npage     {out / PAGE}")
    if search.best is None:
        return
    before = params.read_bytes().decode()  # the ends of its lines stay
    best = search.best.values
    changes = located(params, lambda values: chosen.changes(sections_of(values), best))
    after = with_values(before, nested(changes))
    with writing(out / "params.yaml"):
        (out / "params.yaml").write_bytes(after.encode())
    typer.echo(f"values   {out / 'params.yaml'}\n")
    typer.echo(diff(before, after, params) or f"{params} has the best values already")


def find_space(space: str) -> Path:
    """The file of a search space: by its path, or by the name of a shipped one or of one in `configs/tune`.

    Raises:
        InputError: there is none.
    """
    from dagnn_core.errors import InputError
    from pipeline.shipped import find_configs

    known = find_configs("tune")
    path = known.get(space, Path(space))
    if not path.is_file():
        raise InputError(f"{space} does not exist, expected a file, or one of {', '.join(sorted(known))}")
    return path

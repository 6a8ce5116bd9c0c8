"""`dagnn data`: make a data set by hand, as the step `dataset` does."""

from pathlib import Path
from typing import Annotated

import typer

from components.command import WORK, WorkOption
from dagnn_core.config import DatasetConfig
from pipeline.cli import imports

app = typer.Typer(help="Make a data set: render the demo, or import raw data.", no_args_is_help=True)
app.add_typer(imports.app, name="import")

_DEFAULTS = DatasetConfig()

Seed = Annotated[int, typer.Option(min=0, help="Draws the splits, where the data has none.")]
ValFraction = Annotated[float, typer.Option(help="Fraction of the items drawn for validation.")]
TestFraction = Annotated[float, typer.Option(help="Fraction of the items drawn for the test.")]


@app.command()
def demo(
    out: imports.Out,
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

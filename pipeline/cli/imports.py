"""`dagnn data import`: one command for each layout, made of the configuration.

The options of a command are the keys of the layout's section and those of `dataset` that every layout shares; names,
types, help and defaults are those of the configuration, so that a key is described in one place.
"""

import inspect
from collections.abc import Callable
from dataclasses import asdict, fields
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

import typer

from components.command import WorkOption
from components.locations import WORK
from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.config.section import describe, parse_section

LAYOUTS = {
    "folder": "a table (CSV, TSV, Parquet, Arrow, JSON Lines) beside a folder, tar or zip of images",
    "coco": "MS-COCO, instances and captions",
    "mirflickr25k": "MIRFLICKR-25k, images, tags and annotations",
    "nuswide": "NUS-WIDE, image lists, ground truth, tags, images or low-level features",
    "features": "precomputed matrices, .mat, .npy or .npz",
    "huggingface": "the Parquet or Arrow files of a Hugging Face data set",
}
"""Layout -> what it is, in its command's help."""

SHARED = (
    *("seed", "val_fraction", "test_fraction", "copies", "min_label_count", "label_case", "max_rejected", "incomplete"),
)
"""Keys of `dataset` that are options of every layout."""

Out = Annotated[Path, typer.Argument(help="Folder for the data set; a data set that is there is replaced.")]

app = typer.Typer(help="Import raw data.", no_args_is_help=True)


def _option(section: object, key: str) -> Parameter:
    """The option of one key; a list is given by repeating the option, which has the singular as its name."""
    kind, default = get_type_hints(type(section))[key], getattr(section, key)
    is_list = get_origin(kind) is tuple
    name = f"--{key.removesuffix('s') if is_list else key}".replace("_", "-")
    description = describe(type(section), key) + (" Repeat it for several." if is_list else "")
    if default not in ("", ()):
        description += f" [default: {' '.join(default) if is_list else default}]"
    # None says that the option is not given: then the file of --spec decides, or the configuration's default
    optional: Any = (list[str] if is_list else kind) | None
    option = Parameter(key, Parameter.KEYWORD_ONLY, default=None)
    return option.replace(annotation=Annotated[optional, typer.Option(name, help=description)])


def _command(layout: str) -> Callable[..., None]:
    """The command that imports one layout; typer reads its options off the signature."""
    shared = DatasetConfig()
    own = getattr(shared, layout)
    keys = [entry.name for entry in fields(own)]
    spec_help = f"YAML file with the keys of dataset.{layout}; options override it."
    parameters = [
        Parameter("source", Parameter.KEYWORD_ONLY, annotation=Annotated[Path, typer.Argument(help="Its folder.")]),
        Parameter("out", Parameter.KEYWORD_ONLY, annotation=Out),
        Parameter(
            *("spec", Parameter.KEYWORD_ONLY),
            default=None,
            annotation=Annotated[Path | None, typer.Option(help=spec_help)],
        ),
        *(_option(own, key) for key in keys),
        *(_option(shared, key) for key in SHARED),
        Parameter("work", Parameter.KEYWORD_ONLY, default=WORK, annotation=WorkOption),
    ]

    def command(source: Path, out: Path, spec: Path | None, work: Path, **given: Any) -> None:
        from components.params import load_spec
        from components.steps import dataset

        values = {key: value for key, value in given.items() if value is not None}
        section = asdict(load_spec(spec, type(own))) if spec else {}
        section |= {key: values.pop(key) for key in keys if key in values}
        values |= {"layout": layout, "source": str(source), layout: section}
        dataset.run(params=parse_section(DatasetConfig, values, "dataset"), work=work, dataset_out=out)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = f"Import {LAYOUTS[layout]}. Paths of files are relative to SOURCE."
    return command


for _layout in LAYOUTS:
    app.command(_layout)(_command(_layout))

"""`dagnn data`: make a data set by hand, as the step `dataset` does, and check it."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dagnn_core.config import DatasetConfig, FolderConfig
from dagnn_core.data_check.findings import Finding, Limits
from dagnn_core.errors import CheckRefusedError, InputError

app = typer.Typer(help="Make a data set: render the demo, or import raw data; and check it.", no_args_is_help=True)
import_app = typer.Typer(help="Import raw data.", no_args_is_help=True)
app.add_typer(import_app, name="import")

_DEFAULTS = DatasetConfig()
_LIMITS = Limits()

Out = Annotated[Path, typer.Argument(help="Folder for the data set; a data set that is there is replaced.")]
Seed = Annotated[int, typer.Option(min=0, help="Draws the splits, where the data has none.")]
ValFraction = Annotated[float, typer.Option(help="Fraction of the items drawn for validation.")]
TestFraction = Annotated[float, typer.Option(help="Fraction of the items drawn for the test.")]


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


@app.command()
def check(
    dataset: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    *,
    against: Annotated[
        Path | None, typer.Option(help="Folder of another data set to compare with, such as the training data.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    max_leaked_pictures: Annotated[
        float, typer.Option(min=0, max=1, help="Largest fraction of pictures that splits or data sets share.")
    ] = _LIMITS.leaked_pictures,
    max_leaked_texts: Annotated[
        float, typer.Option(min=0, max=1, help="Largest fraction of texts, with labels, that they share: a warning.")
    ] = _LIMITS.leaked_texts,
    max_label_shift: Annotated[
        float, typer.Option(min=0, help="Largest difference of a label's frequency, Cohen's h: 0.2 is small.")
    ] = _LIMITS.label_shift,
    max_drift: Annotated[
        float, typer.Option(min=0, max=1, help="Largest Kolmogorov-Smirnov distance of lengths, brightness, vectors.")
    ] = _LIMITS.drift,
    max_unseen_words: Annotated[
        float, typer.Option(min=0, max=1, help="Largest fraction of new words beyond those to be expected.")
    ] = _LIMITS.unseen_words,
    min_label_count: Annotated[
        int, typer.Option(min=0, help="Labels on fewer training items are rare: a warning.")
    ] = _LIMITS.label_count,
    near_distance: Annotated[
        int, typer.Option(min=0, max=16, help="Bits of 64 in which hashes of nearly identical pictures may differ.")
    ] = _LIMITS.near_distance,
) -> None:
    """Check a data set: schema, vectors, copies, leaks between splits, labels, and drift against another one.

    Exit status 1 when a finding fails, else 0; warnings do not fail. Differences count where they are significant
    (0.001, corrected for many tests) and larger than their limit, so random halves of one data set pass.
    """
    from components import check_data

    limits = Limits(
        leaked_pictures=max_leaked_pictures,
        leaked_texts=max_leaked_texts,
        label_shift=max_label_shift,
        drift=max_drift,
        unseen_words=max_unseen_words,
        label_count=min_label_count,
        near_distance=near_distance,
    )
    findings = check_data.run(dataset=dataset, against=against, limits=limits)
    if as_json:
        answer = {
            "dataset": str(dataset),
            "against": str(against) if against else None,
            "findings": [asdict(finding) for finding in findings],
        }
        print(json.dumps(answer, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print_findings(findings)
    failed = [finding.name for finding in findings if finding.verdict == "failed"]
    if failed:
        raise CheckRefusedError(f"{dataset}: {len(failed)} of {len(findings)} checks failed: {', '.join(failed)}")


def _print_findings(findings: Sequence[Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    print(f"{'verdict':<8} {'check':<{width}} {'value':>8} {'limit':>8}")
    for finding in findings:
        print(f"{finding.verdict:<8} {finding.name:<{width}} {finding.value:>8.4g} {finding.limit:>8.4g}")
        if finding.verdict != "ok":
            for line in (finding.explanation, "; ".join(finding.examples)):
                print(textwrap.fill(line, 100, initial_indent=" " * 9, subsequent_indent=" " * 9))


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

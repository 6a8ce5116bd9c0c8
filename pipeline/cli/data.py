"""`dagnn data`: put raw data under DVC, fetch it, make a data set by hand, as the step `dataset` does, and check it."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from components.command import WorkOption
from components.locations import WORK
from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.data_check.findings import Finding, Limits
from dagnn_core.errors import CheckFailedError
from dagnn_core.text import cell
from pipeline.cli import imports

app = typer.Typer(help="Raw data under version control; data sets: made, imported, checked.", no_args_is_help=True)
app.add_typer(imports.app, name="import")

_DEFAULTS = DatasetConfig()
_LIMITS = Limits()

EndpointUrl = Annotated[str, typer.Option(help="S3 store. (default: AWS_ENDPOINT_URL, else AWS)")]
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

    Archives are unpacked; a folder of many images becomes one tar beside it (images/ becomes images.tar).
    """
    from components.services.data_versions.adding import add as add_raw_data
    from components.services.storage.s3 import Storage

    added = add_raw_data(name, source, project=Path(), storage=Storage(endpoint_url=endpoint_url))
    typer.echo(f"data/{name}: {added.num_files} files, {added.size / 1e6:.1f} MB, {added.md5}")
    typer.echo(
        f"""keep this version:
    git add data/{name}.dvc data/.gitignore && git commit -m "Add data {name}"
    dvc push
use it (or set both keys in params.yaml, with those of the layout, and run `dvc repro`):
    dvc exp run -S dataset.layout=LAYOUT -S dataset.source=data/{name}   # LAYOUT: folder, coco, ..."""
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
    """Fetch raw data at one version, by digest or by revision; an interrupted fetch resumes."""
    from components.steps import fetch_dataset

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
    """Render the built-in demo: images of scenes, texts about them, correlated labels."""
    from components.steps import dataset

    params = DatasetConfig(
        layout="demo", source=str(spec), seed=seed, val_fraction=val_fraction, test_fraction=test_fraction
    )
    dataset.run(params=params, work=work, dataset_out=out)


@app.command()
def check(
    dataset: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    *,
    against: Annotated[
        Path | None, typer.Option(help="Folder of another data set to compare with, such as the training data.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    max_leaked_images: Annotated[
        float, typer.Option(min=0, max=1, help="Largest fraction of images that splits or data sets share.")
    ] = _LIMITS.leaked_images,
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
    max_relevant_pairs: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of pairs of held-out items with a label in common.")
    ] = _LIMITS.relevant_pairs,
    near_distance: Annotated[
        int, typer.Option(min=0, max=16, help="Bits of 64 in which hashes of nearly identical images may differ.")
    ] = _LIMITS.near_distance,
) -> None:
    """Check a data set: schema, vectors, copies, leaks between splits, labels, and drift against another one.

    Exit status 1 when a finding fails, else 0; warnings do not fail. Differences count where they are significant
    (0.001, corrected for many tests) and larger than their limit, so random halves of one data set pass.
    """
    from components.steps import check_data

    limits = Limits(
        leaked_images=max_leaked_images,
        leaked_texts=max_leaked_texts,
        label_shift=max_label_shift,
        drift=max_drift,
        unseen_words=max_unseen_words,
        label_count=min_label_count,
        relevant_pairs=max_relevant_pairs,
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
        raise CheckFailedError(f"{dataset}: {len(failed)} of {len(findings)} checks failed: {', '.join(failed)}")


def _print_findings(findings: Sequence[Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    print(f"{'verdict':<8} {'check':<{width}} {'value':>8} {'limit':>8}")
    for finding in findings:
        print(f"{finding.verdict:<8} {finding.name:<{width}} {_number(finding.value):>8} {_number(finding.limit):>8}")
        if finding.verdict != "ok":
            for line in (finding.explanation, "; ".join(finding.examples)):
                print(textwrap.fill(cell(line), 100, initial_indent=" " * 9, subsequent_indent=" " * 9))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:.4g}"

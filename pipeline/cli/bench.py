"""`dagnn bench`: how long things take, and how much memory."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from components.git import check_trusted, git, try_git
from components.locations import ARTIFACTS, FEATURES, INDEX, LABEL_GRAPH, MODEL
from dagnn_core.errors import BackendError, InputError
from dagnn_core.text import one_line

app = typer.Typer(help="Measure time and memory.", no_args_is_help=True)

Out = Annotated[Path | None, typer.Option(help="also write the results to this JSON file")]
RowsOut = Annotated[Path | None, typer.Option(help="also write the rows to this JSON file, and a table beside it")]

MIB = 1 << 20
SECONDS_BETWEEN_SAMPLES = 0.1


@app.command("map")
def bench_map(
    items: Annotated[
        list[int] | None, typer.Option("--items", min=2, help="time all metrics of so many pairs alone, with memory")
    ] = None,
    dims: Annotated[
        list[int] | None, typer.Option("--dim", min=1, help="dimension with --items; default: 1,024")
    ] = None,
    out: Out = None,
) -> None:
    """Time the exact MAP of a large gallery, beside other ways; or, with --items, of larger and larger ones."""
    from components.benchmarks.ranking import run, run_sizes
    from components.benchmarks.table import to_table

    if items:
        rows = run_sizes(sizes=items, dims=dims or [1024])
        _report_rows(rows, to_table(rows), out)
    else:
        _report(run(), out)


@app.command("features")
def bench_features(
    model: Annotated[
        str, typer.Option(help="folder of a Hugging Face vision model; vit-small: ViT-S/16 with random weights")
    ] = "vit-small",
    num_images: Annotated[int, typer.Option(min=1, help="JPEG images a run; let one take a minute")] = 512,
    bf16: Annotated[bool, typer.Option("--bf16", help="compute in bfloat16, else in float32")] = False,
    out: Out = None,
) -> None:
    """Compare the speed of extraction, from JPEG images to vectors, with that of the network alone."""
    from components.benchmarks.features import run

    _report(run(model=model, num_images=num_images, precision="bf16" if bf16 else "float32"), out)


@app.command("data")
def bench_data(
    items: Annotated[
        list[int] | None, typer.Option("--items", min=100, help="numbers of items; default: 10^4 and 10^5")
    ] = None,
    out: RowsOut = None,
) -> None:
    """Time import with near copies and data card, data check, and label graph of more and more items."""
    from components.benchmarks.data import run
    from components.benchmarks.table import to_table

    rows = run(sizes=items or [10**4, 10**5])
    _report_rows(rows, to_table(rows), out)


@app.command("train")
def bench_train(  # noqa: PLR0917
    presets: Annotated[list[str] | None, typer.Option("--preset", help="default: aaai21, tpami22 and best")] = None,
    batches: Annotated[
        list[int] | None, typer.Option("--batch", min=2, help="items a step; default: 100, 1,024 and 8,192")
    ] = None,
    items: Annotated[
        list[int] | None, typer.Option("--items", min=2, help="train `best` on so many items on the disk instead")
    ] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="compute in bfloat16, else in float32")] = False,
    seconds: Annotated[float, typer.Option(min=0, help="for each row, at least")] = 15.0,
    out: RowsOut = None,
) -> None:
    """Time training beside the authors' loop: samples, FLOP/s and bytes a second beside the machine's, and memory."""
    from components.benchmarks.table import to_table
    from components.benchmarks.train import run, run_sizes

    if items:
        rows = run_sizes(sizes=items, batch_size=(batches or [128])[0], seconds=seconds)
    else:
        presets, batches = presets or ["aaai21", "tpami22", "best"], batches or [100, 1024, 8192]
        rows = run(presets=presets, batch_sizes=batches, bf16=bf16, seconds=seconds)
    _report_rows(rows, to_table(rows), out)


@app.command("search")
def bench_search(
    sizes: Annotated[
        list[int] | None, typer.Option("--size", min=1000, help="items; default: 10^4, 10^5 and 10^6")
    ] = None,
    dims: Annotated[list[int] | None, typer.Option("--dim", min=1, help="dimension; default: 61 and 512")] = None,
    index: Annotated[Path | None, typer.Option(help="time text queries of this index instead")] = None,
    model: Annotated[Path, typer.Option(help="the model that built it")] = MODEL,
    out: RowsOut = None,
) -> None:
    """Time searches, exact and by cells, beside plain faiss and torch: latency, rate, recall, memory."""
    from components.benchmarks.search import run, run_index, to_markdown

    rows = [run_index(index, model)] if index else run(sizes=sizes or (10**4, 10**5, 10**6), dims=dims or (61, 512))
    _report_rows(rows, to_markdown(rows), out)


@app.command("serve")
def bench_serve(  # noqa: PLR0917
    index: Annotated[Path, typer.Option(help="index whose texts are searched by")] = INDEX,
    model: Annotated[str, typer.Option(help="model that made it")] = str(MODEL),
    items: Annotated[int, typer.Option(min=1, help="as many as the index gets, by repeating its own")] = 100_000,
    seconds: Annotated[float, typer.Option(min=1, help="for each number of clients")] = 10.0,
    minutes: Annotated[float, typer.Option(min=0, help="at 0.8 of the highest rate; 0: not at all")] = 0.0,
    out: Out = None,
) -> None:
    """Time requests to the search service with 1, 8 and 32 clients, then at a steady rate."""
    from components.benchmarks.serve import run

    command = [sys.executable, "-m", "pipeline.cli.main", "serve"]
    _report(run(command=command, index=index, model=model, items=items, seconds=seconds, minutes=minutes), out)


@app.command("quality")
def bench_quality(  # noqa: PLR0917
    variants: Annotated[list[Path], typer.Argument(help="configuration files; their model and train sections count")],
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="one training each; default: three seeds")] = None,
    test: Annotated[bool, typer.Option("--test", help="score on test, for final results; else on val")] = False,
    features: Annotated[Path, typer.Option(help="features artifact")] = FEATURES,
    label_graph: Annotated[Path, typer.Option(help="label graph artifact")] = LABEL_GRAPH,
    out: Annotated[Path, typer.Option(help="folder for the models and the table")] = ARTIFACTS / "quality",
) -> None:
    """Train variants with several seeds and compare them with the first one; resumes after an interruption."""
    from components.benchmarks.quality import run
    from components.services.tracking.mlflow import Tracking
    from dagnn_core.config.section import DEFAULT_SEED

    tracking = Tracking.from_environment()
    table = run(
        features=features,
        label_graph=label_graph,
        variants=variants,
        seeds=seeds or [DEFAULT_SEED + number for number in range(3)],
        split="test" if test else "val",
        tracking=tracking,
        out=out,
    )
    typer.echo(table)


@app.command("cli")
def bench_cli(
    repeats: Annotated[int, typer.Option(min=1, help="the median of so many runs is reported")] = 5,
    out: Out = None,
) -> None:
    """Time `dagnn --help`, and `dvc repro` with nothing to do (after `make demo`)."""
    figures = {}
    for name, command in (("dagnn --help", ["dagnn", "--help"]), ("dvc repro, nothing to do", ["dvc", "repro"])):
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            output = subprocess.run(
                command, capture_output=True, encoding="utf-8", errors="replace", check=False, env=_environment()
            )
            seconds.append(time.perf_counter() - start)
            if output.returncode != 0:
                *_, last = output.stderr.strip().split("\n")
                raise BackendError(f"`{' '.join(command)}` failed: {one_line(last)}")
            if "Running stage" in output.stdout:
                raise InputError("`dvc repro` had something to do", "run `dagnn bench cli` again, now that it is done")
        figures[f"{name}: seconds"] = statistics.median(seconds)
    _report(figures, out)


@app.command("demo")
def bench_demo(out: Out = None) -> None:
    """Run what `make demo` runs, in a copy of this checkout: seconds a stage, and the highest memory."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="dagnn-bench-") as temporary:
        checkout = Path(temporary) / "checkout"
        copy_checkout(Path.cwd(), checkout)
        start = time.perf_counter()
        with _peak_memory() as peak:
            figures |= _time_stages(checkout)
            begin = time.perf_counter()
            subprocess.run(["dagnn", "register"], cwd=checkout, check=True, env=_environment())
            figures["register: seconds"] = time.perf_counter() - begin
        figures["total: seconds"] = time.perf_counter() - start
        figures["peak memory of all processes: MiB"] = peak[0] / MIB
    _report(figures, out)


def copy_checkout(source: Path, target: Path) -> None:
    """Copy the files that git knows or would add, and make the copy a git repository with one commit.

    Raises:
        InputError: `source` is not a git checkout.
    """
    check_trusted(source)
    listing = try_git(source, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listing is None:
        raise InputError(f"{source} is not a git checkout, expected the project's root")
    for name in filter(None, listing.split("\0")):
        if (source / name).is_file():  # it may be deleted and not yet committed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)
    identity = ["-c", "user.name=dagnn", "-c", "user.email=dagnn@localhost", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "Copy"]):
        git(target, *command)


def _time_stages(checkout: Path) -> dict[str, float]:
    """Seconds of each stage of one `dvc repro`, from the lines with which DVC begins them."""
    figures: dict[str, float] = {}
    stage, begin = "dvc", time.perf_counter()
    with subprocess.Popen(
        ["dvc", "repro"],
        cwd=checkout,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env=_environment(),
    ) as dvc:
        assert dvc.stdout is not None
        for line in dvc.stdout:
            sys.stdout.write(line)
            if line.startswith("Running stage "):
                now = time.perf_counter()
                figures[f"{stage}: seconds"] = now - begin
                stage, begin = line.split("'")[1], now
    figures[f"{stage}: seconds"] = time.perf_counter() - begin
    if dvc.returncode != 0:
        raise BackendError(f"`dvc repro` failed in stage {stage}", "the lines above say why")
    return figures


@contextmanager
def _peak_memory() -> Iterator[list[int]]:
    """Watch the resident memory of this process and all below it; the list's one entry is the highest sum, in bytes."""
    import psutil

    peak = [0]
    stop = threading.Event()

    def watch() -> None:
        this = psutil.Process()
        while not stop.wait(SECONDS_BETWEEN_SAMPLES):
            total = 0
            for process in [this, *this.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:  # it has just ended
                    continue
            peak[0] = max(peak[0], total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def _environment() -> dict[str, str]:
    """The environment with this Python's programs first, as the stages need it, and no tracking server."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment["PYTHONUNBUFFERED"] = "1"  # else DVC says late that a stage has begun
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    return environment


def _report_rows(rows: Sequence[Mapping[str, Any]], table: str, out: Path | None) -> None:
    typer.echo(table)
    if out is not None:
        out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        out.with_suffix(".md").write_text(table, encoding="utf-8")


def _report(figures: dict[str, Any], out: Path | None) -> None:
    width = max(map(len, figures))
    for name, value in figures.items():
        typer.echo(f"{name:{width}}  {value:10.4g}" if isinstance(value, float) else f"{name:{width}}  {value!s:>10}")
    if out is not None:
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")

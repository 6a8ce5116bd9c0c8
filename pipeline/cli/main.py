"""`dagnn`: the root of the command line.

The modules of the groups import what a command needs inside the command, so that `dagnn --help` starts at once.
"""

import sys
from pathlib import Path
from typing import NoReturn

import typer

from components.command import run_command
from pipeline.cli import (
    bench,
    clean,
    cluster,
    data,
    embed,
    kubeflow,
    lineage,
    params,
    registry,
    report,
    retrain,
    runs,
    search,
    serve,
    targets,
    tune,
    watch,
)

app = typer.Typer(
    help="Find images by text and texts by image: train, evaluate, register and promote DAGNN models.",
    epilog="Add --debug to any command to see the traceback of a failure.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: loading rich would double the time that it takes
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.add_typer(params.app, name="params")
app.command("run")(kubeflow.run)
app.command("compile")(kubeflow.compile_pipeline)
app.command("images")(kubeflow.images)
app.command("submit")(cluster.submit)
app.command("follow")(cluster.follow)
app.command("logs")(cluster.logs)
app.command("runs")(runs.runs)
app.command("cancel", short_help="Cancel a run on a Kubeflow cluster.")(runs.cancel)
app.command("retry", short_help="Run again what failed in a run on a Kubeflow cluster.")(runs.retry)
app.command("schedules")(runs.schedules)
app.command("retrain", short_help="Train again when there is new data.")(retrain.retrain)
app.command("doctor")(cluster.doctor)
app.add_typer(targets.app, name="targets")
app.command("embed")(embed.embed)
app.command("search", short_help="Find images by text, and texts by image.")(search.search)
app.add_typer(search.app, name="index")
app.command("serve", short_help="Answer searches over HTTP, with a page for the browser.")(serve.serve)
app.command("tune", short_help="Search for values of the configuration that train a better model.")(tune.tune)
app.command("watch", short_help="Summarise the log of queries: drift, nothing relevant, latency.")(watch.watch)
app.command("results")(report.results)
app.add_typer(report.app, name="report")
app.command("compare", short_help="Compare models on the same test split.")(report.compare)
app.command("register", short_help="Register the trained model as the challenger.")(registry.register)
app.command("promote", short_help="Make the challenger champion, unless it is worse.")(registry.promote)
app.command("rollback", short_help="Make the champion before the present one champion again.")(registry.rollback)
app.command("history", short_help="Show every promotion, refusal and rollback.")(registry.history)
app.add_typer(registry.app, name="registry")
app.command("lineage", short_help="Show what a version was made from, and how to rebuild it.")(lineage.lineage)
app.command("clean", short_help="List or remove what interrupted commands have left.")(clean.clean)
app.add_typer(bench.app, name="bench")


def main() -> NoReturn:
    """Run the command that the arguments name."""
    if not sys.flags.safe_path:
        sys.path.append(str(Path.cwd()))  # a user's own encoders are found there, as `python -m` finds them
    run_command(app)


if __name__ == "__main__":  # in an image, which has no entry point `dagnn`
    main()

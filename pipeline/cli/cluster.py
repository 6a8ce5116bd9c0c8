"""`dagnn submit`, `dagnn follow`, `dagnn logs`, `dagnn doctor`: the pipeline on a Kubeflow cluster."""

import json
import logging
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagnn_core.errors import CheckFailedError, InputError
from dagnn_core.text import cell
from pipeline.cli.kubeflow import Image, Nodes, Promote, Seeds

if TYPE_CHECKING:
    from pipeline.doctor import Diagnosis
    from pipeline.graph import WorkersOfSearch
    from pipeline.kubeflow.client import Kubeflow
    from pipeline.target import Target

log = logging.getLogger(__name__)

Host = Annotated[str, typer.Option(envvar="KF_PIPELINES_ENDPOINT", help="URL of Kubeflow Pipelines")]
Namespace = Annotated[
    str,
    typer.Option(envvar="DAGNN_KFP_NAMESPACE", help="yours, where Kubeflow has many users  [default: the target's]"),
]
Token = Annotated[
    Path | None,
    typer.Option(
        envvar="KF_PIPELINES_SA_TOKEN_PATH",
        metavar="FILE",
        help="file with the bearer token; else the token is in DAGNN_KFP_TOKEN",
    ),
]
Cookies = Annotated[
    Path | None, typer.Option(metavar="FILE", help="file with the Cookie header; else it is in DAGNN_KFP_COOKIES")
]
TargetName = Annotated[str, typer.Option(help="cluster: a file in configs/clusters, or the path of one")]
ServiceAccount = Annotated[str | None, typer.Option(help="of the tasks' pods  [default: Kubeflow's]")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object")]


def submit(
    *,
    host: Host = "",
    namespace: Namespace = "",
    token: Token = None,
    cookies: Cookies = None,
    experiment: Annotated[str, typer.Option(help="Kubeflow experiment; made where it is missing")] = "dagnn",
    params: Annotated[Path, typer.Option(help="configuration, all sections")] = Path("params.yaml"),
    target: TargetName = "kind",
    image: Image = None,
    data: Annotated[
        str, typer.Option(help="raw data to fetch: a path under DVC, as data/photos, or s3://bucket/prefix")
    ] = "",
    revision: Annotated[str, typer.Option(help="of the data: branch, tag or commit")] = "HEAD",
    repository: Annotated[str, typer.Option(help="of the data: local path or git URL")] = ".",
    service_account: ServiceAccount = None,
    nodes: Nodes = None,
    seeds: Seeds = None,
    promote: Promote = False,
    tune: Annotated[
        str, typer.Option(metavar="SPACE", help="search instead of training: a file, or shipped: aaai21, best")
    ] = "",
    workers: Annotated[int, typer.Option(min=1, help="trials of the search that train at the same time")] = 2,
    search_name: Annotated[
        str, typer.Option("--name", help="of the search; the same name resumes  [default: that of the space]")
    ] = "",
    check: Annotated[
        bool, typer.Option("--check", help="check the data set before the training, against the champion's")
    ] = False,
    accept_drift: Annotated[
        bool, typer.Option("--accept-drift", help="with --check: although it differs from the champion's")
    ] = False,
    recurring: Annotated[
        str | None, typer.Option(metavar="CRON", help="run at these times (UTC) instead of now, as '30 2 * * MON-FRI'")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="run every task, whatever ran before")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="follow the run; exit status 1 when it fails")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check everything, and make nothing")] = False,
    allow_dirty: Annotated[bool, typer.Option("--allow-dirty", help="although files are not committed")] = False,
    allow_unpushed: Annotated[
        bool, typer.Option("--allow-unpushed", help="do not check that the DVC remote has the data")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the pipeline on a Kubeflow cluster, now or at certain times.

    Everything is checked before anything is made there.
    """
    from components.services.lineage.provenance import git_state
    from pipeline.cluster import require_named
    from pipeline.compiling import write_pipeline
    from pipeline.cron import read_cron
    from pipeline.graph import PipelineOptions
    from pipeline.images import Images, check_commit, pullable, read_images
    from pipeline.placeholders import load_parameters, refuse_placeholders
    from pipeline.raw_data import find_raw_data
    from pipeline.submit import Job, check_clean, connect, disable_caching, version_name
    from pipeline.submit import submit as submit_job
    from pipeline.target import plugins_input, read_target, with_nodes

    if accept_drift and not check:
        raise InputError("--accept-drift is about the check of the data", "add --check")
    if wait and recurring:
        raise InputError("--wait follows a run that starts now, and --recurring starts none", "leave one out")
    cron = read_cron(recurring) if recurring else None
    refuse_placeholders(
        {
            "--experiment": experiment,
            "--image": image,
            "--data": data,
            "--revision": revision,
            "--repository": repository,
            "--service-account": service_account,
            "--name": search_name,
        }
    )
    sections = load_parameters(params, cluster=True)
    cluster = with_nodes(read_target(target), nodes)
    images = pullable(Images(tasks=image, train=image) if image else read_images())
    git = git_state()
    if not allow_dirty:
        check_clean(git)
        if not image:
            check_commit(git["commit"])
    server = server_of(host, namespace or cluster.namespace, token, cookies)
    raw = None
    if data:
        raw = find_raw_data(
            data, target=cluster, revision=revision, repository=repository, check_pushed=not allow_unpushed
        )
    champion_dataset = _champion_dataset(sections["register"].model_name) if check else ""
    options = PipelineOptions(
        raw=raw,
        seeds=tuple(seeds or ()),
        promote=promote,
        check=check,
        champion_dataset=champion_dataset,
        search=_search(tune, workers, search_name, params, sections, cluster) if tune else None,
    )
    arguments = {f"data_{name}": text for name, text in raw._asdict().items() if text} if raw else {}
    given = {"accept_drift": "yes" if accept_drift else "", "champion_dataset": champion_dataset}
    arguments |= {name: text for name, text in given.items() if text}
    require_named(namespace or cluster.namespace, cluster, service_account or "")
    server = connect(server)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "pipeline.yaml"
        write_pipeline(package, images=images, params=sections, target=cluster, options=options)
        if no_cache:
            disable_caching(package)
        version = version_name(package, git)
        now = f"{datetime.now(tz=UTC):%Y-%m-%d %H:%M:%S}"
        job = Job(
            package=package,
            version=version,
            experiment=experiment,
            run=f"dagnn at {cron}" if cron else f"{version} {now}",
            arguments=arguments,
            cron=cron,
            service_account=service_account,
            pipeline_root=cluster.pipeline_root,
            plugins_input=plugins_input(cluster),
        )
        done = submit_job(server, job, dry_run=dry_run)
    facts = {"version": version, "experiment": experiment, **arguments, "run": job.run, "run_id": done.run_id}
    _show_submitted(server, facts, is_schedule=bool(cron), is_dry=dry_run, as_json=as_json)
    if wait and done.run_id:
        follow_run(server, done.run_id)


def _show_submitted(
    server: "Kubeflow", facts: dict[str, str | None], *, is_schedule: bool, is_dry: bool, as_json: bool
) -> None:
    run_id = facts["run_id"]
    page = server.page(f"{'recurringrun' if is_schedule else 'runs'}/details/{run_id}") if run_id else ""
    facts |= {"page": page or None, "mlflow": _mlflow_address()}
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        typer.echo("\n".join(f"{name:17}  {cell(value)}" for name, value in facts.items() if value))
        typer.echo("nothing was made: --dry-run" if is_dry else "", nl=is_dry)


def _champion_dataset(name: str) -> str:
    """URI of the champion's data set; empty where there is no champion, or it does not say."""
    from components.services.lineage.tree import Reference, read_recorded
    from components.services.registry.versions import CHAMPION, find_registered_model
    from components.services.tracking.mlflow import Tracking

    tracking = Tracking.from_environment()
    with tracking.answering():
        registered = find_registered_model(tracking.client, name)
    if registered is None or CHAMPION not in registered.aliases:
        return ""
    uri = read_recorded(tracking, Reference(name)).uris.get("dataset", "")
    if not uri:
        log.warning(
            "the champion of %s does not record where its data set is stored: the new one is checked alone", name
        )
    return uri


def _search(  # noqa: PLR0917
    space: str, workers: int, name: str, params: Path, sections: dict[str, object], target: "Target"
) -> "WorkersOfSearch":
    """The workers of a search; the values that its space fixes go into the sections."""
    from components.space_file import read_base, read_space
    from dagnn_core.config.space import check_search_name
    from pipeline.cli.tune import find_space
    from pipeline.graph import WorkersOfSearch
    from pipeline.placeholders import refuse_placeholders

    if not target.tune_secret:
        raise InputError(
            "the workers of a search share a database, and the target names none",
            "set tune_secret to a secret with its url (docs/tuning.md)",
        )
    path = find_space(space)
    chosen = read_space(path)
    refuse_placeholders(chosen.plain, where=path)
    sections.update(read_base(params, chosen, path))
    check_search_name(name or path.stem)
    return WorkersOfSearch(chosen, name or path.stem, workers)


def follow(
    run_id: Annotated[str, typer.Argument(help="id of the run, as `dagnn submit` printed it")],
    *,
    host: Host = "",
    namespace: Namespace = "",
    token: Token = None,
    cookies: Cookies = None,
) -> None:
    """Follow a run on a Kubeflow cluster to its end; exit status 1 when it fails."""
    server = server_of(host, namespace, token, cookies)
    server.health()  # a wrong address is not waited for
    follow_run(server, run_id)


def logs(
    run_id: Annotated[str, typer.Argument(help="id of the run, as `dagnn submit` printed it")],
    task: Annotated[str, typer.Argument(help="a step, as train  [default: all]", show_default=False)] = "",
    *,
    tail: Annotated[int, typer.Option(min=0, metavar="N", help="last N lines of each log  [default: all]")] = 0,
    attempt: Annotated[
        int, typer.Option(min=0, metavar="N", help="of tasks that were started again  [default: the last]")
    ] = 0,
    follow_on: Annotated[bool, typer.Option("--follow", help="show what is added, until the task or run ends")] = False,
    host: Host = "",
    namespace: Namespace = "",
    token: Token = None,
    cookies: Cookies = None,
) -> None:
    """Show what the tasks of a run on a Kubeflow cluster wrote."""
    from pipeline.logs import follow_logs, show_logs

    def write(text: str) -> None:
        typer.echo(text, nl=False)

    if follow_on and attempt:
        raise InputError("--follow shows the attempts to come, and --attempt one that is there", "leave one out")
    server = server_of(host, namespace, token, cookies)
    if follow_on:
        follow_logs(server, run_id, write, task=task, tail=tail)
    else:
        show_logs(server, run_id, write, task=task, tail=tail, attempt=attempt)


def doctor(
    *,
    host: Host = "",
    namespace: Namespace = "",
    token: Token = None,
    cookies: Cookies = None,
    target: TargetName = "kind",
    service_account: ServiceAccount = None,
    as_json: Json = False,
) -> None:
    """Check versions, credentials, servers, stores, images and secrets; exit status 1 when one fails."""
    from components.services.tracking.mlflow import IMPATIENT, Tracking
    from pipeline.doctor import checks_of, look_at_all
    from pipeline.target import read_target

    cluster = read_target(target)
    namespace = namespace or cluster.namespace
    for name, value in IMPATIENT.items():
        os.environ.setdefault(name, value)
    to_do = checks_of(
        kubeflow=server_of(host, namespace, token, cookies) if host else None,
        namespace=namespace,
        tracking=Tracking.from_environment(),
        target=cluster,
        account=service_account or "",
    )
    checks = []
    for check in look_at_all(to_do):
        checks.append(check)
        if not as_json:
            typer.echo(_rows(check, width=max(map(len, to_do))))
    if as_json:
        typer.echo(json.dumps([check._asdict() for check in checks]))
    failed = [check.name for check in checks if check.status == "failed"]
    if failed:
        raise CheckFailedError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")


def follow_run(server: "Kubeflow", run_id: str) -> None:
    """Show a run to its end: as a table on a terminal, else as lines."""
    from pipeline.follow import follow as follow_until_finished

    if not sys.stderr.isatty():
        follow_until_finished(server, run_id)
        return
    from pipeline.cli.run_table import RunTable

    with RunTable() as table:
        follow_until_finished(server, run_id, show=table)


def server_of(host: str, namespace: str, token: Path | None, cookies: Path | None) -> "Kubeflow":
    """The server that the options name.

    Raises:
        InputError: they name none, or a token or cookies cannot be read.
    """
    from pipeline.kubeflow.client import Kubeflow
    from pipeline.kubeflow.credentials import read_secret

    if not host:
        raise InputError(
            "no server is named, expected the URL of Kubeflow Pipelines", "give --host, or KF_PIPELINES_ENDPOINT"
        )
    read_cookies = read_secret("--cookies", cookies, "DAGNN_KFP_COOKIES")
    return Kubeflow(
        host=host,
        namespace=namespace,
        read_token=read_secret("--token", token, "DAGNN_KFP_TOKEN"),
        cookies=read_cookies() if read_cookies else "",
        ca_file=os.environ.get("SSL_CERT_FILE", ""),
        ui_host=os.environ.get("KF_PIPELINES_UI_ENDPOINT", ""),
    )


def _mlflow_address() -> str | None:
    """The user's own MLflow server: the tasks' address is that inside the cluster."""
    from components.services.tracking.mlflow import Tracking

    tracking = Tracking.from_environment()
    return tracking.address if tracking.uri.startswith(("http://", "https://")) else None


def _rows(check: "Diagnosis", *, width: int) -> str:
    lines = [f"{check.status:7}  {check.name:{width}}  {cell(check.what)}"]
    if check.remedy:
        lines.append(f"{'':7}  {'':{width}}  -> {cell(check.remedy)}")
    return "\n".join(lines)

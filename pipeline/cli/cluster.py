"""`dagnn submit`, `dagnn follow`, `dagnn doctor`: the pipeline on a Kubeflow cluster."""

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagnn_core.errors import CheckRefusedError, InputError
from pipeline.cli.kubeflow import Promote, Seeds

if TYPE_CHECKING:
    from pipeline.doctor import Check
    from pipeline.kubeflow.client import Kubeflow

Host = Annotated[str, typer.Option(envvar="KF_PIPELINES_ENDPOINT", help="URL of Kubeflow Pipelines")]
Namespace = Annotated[str, typer.Option(envvar="DAGNN_KFP_NAMESPACE", help="yours, where Kubeflow has many users")]
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
    image: Annotated[
        str | None, typer.Option(help="NAME@sha256:..., for all tasks  [default: those in infra/images.json]")
    ] = None,
    data: Annotated[
        str, typer.Option(help="raw data to fetch: a path under DVC, as data/photos, or s3://bucket/prefix")
    ] = "",
    revision: Annotated[str, typer.Option(help="of the data: branch, tag or commit")] = "HEAD",
    repository: Annotated[str, typer.Option(help="of the data: local path or git URL")] = ".",
    service_account: Annotated[str | None, typer.Option(help="of the tasks' pods  [default: Kubeflow's]")] = None,
    seeds: Seeds = None,
    promote: Promote = False,
    recurring: Annotated[
        str | None, typer.Option(metavar="CRON", help="run at these times (UTC) instead of now, as '30 2 * * MON-FRI'")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="run every task, whatever ran before")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="follow the run; exit status 1 when it fails")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check everything, and make nothing")] = False,
    allow_dirty: Annotated[bool, typer.Option("--allow-dirty", help="although files are not committed")] = False,
    allow_unpushed: Annotated[
        bool, typer.Option("--allow-unpushed", help="do not look whether the DVC remote has the data")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the pipeline on a Kubeflow cluster, now or at certain times.

    Everything is checked before anything is made there.
    """
    from components.params_file import load_params
    from components.services.provenance import git_state
    from pipeline.compiling import write_pipeline
    from pipeline.cron import read_cron
    from pipeline.doctor import require_secrets
    from pipeline.graph import Shape
    from pipeline.images import Images, check_commit, pullable, read_images
    from pipeline.raw_data import find_raw_data
    from pipeline.submit import Job, check_clean, connect, disable_caching, follow, version_name
    from pipeline.submit import submit as submit_job
    from pipeline.target import read_target

    if wait and recurring:
        raise InputError("--wait follows a run that starts now, and --recurring starts none; leave one out")
    cron = read_cron(recurring) if recurring else None
    sections = load_params(params)
    cluster = read_target(target)
    images = pullable(Images(tasks=image, train=image) if image else read_images())
    git = git_state()
    if not allow_dirty:
        check_clean(git)
        if not image:
            check_commit(git["commit"])
    server = _server(host, namespace, token, cookies)
    raw = None
    if data:
        raw = find_raw_data(data, revision=revision, repository=repository, check_pushed=not allow_unpushed)
    arguments = {f"data_{name}": text for name, text in raw._asdict().items() if text} if raw else {}
    require_secrets(namespace, cluster)
    server = connect(server)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "pipeline.yaml"
        shape = Shape(raw=raw, seeds=tuple(seeds or ()), promote=promote)
        write_pipeline(package, images=images, params=sections, target=cluster, shape=shape)
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
        )
        done = submit_job(server, job, dry_run=dry_run)
    page = server.page(f"{'recurringrun' if cron else 'runs'}/details/{done.run_id}") if done.run_id else None
    facts = {
        "version": version,
        "experiment": experiment,
        **arguments,
        "run": job.run,
        "run_id": done.run_id,
        "page": page,
        "mlflow": cluster.mlflow_uri,
    }
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        typer.echo("\n".join(f"{name:17}  {value}" for name, value in facts.items() if value))
        typer.echo("nothing was made: --dry-run" if dry_run else "", nl=dry_run)
    if wait and done.run_id:
        follow(server, done.run_id)


def follow(
    run_id: Annotated[str, typer.Argument(help="id of the run, as `dagnn submit` printed it")],
    *,
    host: Host = "",
    namespace: Namespace = "",
    token: Token = None,
    cookies: Cookies = None,
) -> None:
    """Follow a run on a Kubeflow cluster to its end; exit status 1 when it fails."""
    from pipeline.submit import follow as follow_run

    server = _server(host, namespace, token, cookies)
    server.health()  # a wrong address is not waited for
    follow_run(server, run_id)


def doctor(
    *,
    host: Host = "",
    namespace: Namespace = "",
    token: Token = None,
    cookies: Cookies = None,
    target: TargetName = "kind",
    as_json: Json = False,
) -> None:
    """Check versions, credentials, servers, stores, images and secrets; exit status 1 when one fails."""
    from components.services.tracking import Tracking
    from pipeline.doctor import checks_of, look
    from pipeline.target import read_target

    to_do = checks_of(
        kubeflow=_server(host, namespace, token, cookies) if host else None,
        namespace=namespace,
        tracking=Tracking.from_environment(),
        target=read_target(target),
    )
    checks = [look(name, check) for name, check in to_do.items()]
    typer.echo(json.dumps([check._asdict() for check in checks]) if as_json else _table(checks))
    failed = [check.name for check in checks if check.status == "failed"]
    if failed:
        raise CheckRefusedError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")


def _server(host: str, namespace: str, token: Path | None, cookies: Path | None) -> "Kubeflow":
    from pipeline.kubeflow.client import Kubeflow
    from pipeline.kubeflow.credentials import read_secret

    if not host:
        raise InputError(
            "no server is named, expected the URL of Kubeflow Pipelines; give --host, or KF_PIPELINES_ENDPOINT"
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


def _table(checks: "list[Check]") -> str:
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.status:7}  {check.name:{width}}  {check.what}")
        if check.remedy:
            lines.append(f"{'':7}  {'':{width}}  -> {check.remedy}")
    return "\n".join(lines)

"""`dagnn retrain`: train again when there is new data."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.locations import RETRAINING
from dagnn_core.errors import CheckFailedError, InputError
from pipeline.cli.cluster import Cookies, Host, Json, Namespace, ServiceAccount, Token, follow_run, server_of, submit
from pipeline.cli.kubeflow import Image, ParamsFile, Promote

if TYPE_CHECKING:
    from components.services.promotion.side_by_side import SideBySide
    from pipeline.kubeflow.client import Kubeflow
    from pipeline.retraining import Retraining


def retrain(
    *,
    data: Annotated[str, typer.Option(help="raw data under DVC, as data/photos")],
    revision: Annotated[str, typer.Option(help="branch, tag or commit; of a branch, its newest commit")] = "HEAD",
    repository: Annotated[str, typer.Option(help="of the data: local path or git URL")] = ".",
    params: ParamsFile = Path("params.yaml"),
    promote: Promote = False,
    accept_drift: Annotated[
        bool, typer.Option("--accept-drift", help="although the data differs from the champion's beyond the limits")
    ] = False,
    against: Annotated[
        Path | None, typer.Option(help="the champion's data set  [default: looked for, else made again]")
    ] = None,
    work: Annotated[Path, typer.Option(help="folder of retrainings under way")] = RETRAINING,
    target: Annotated[str, typer.Option(help="cluster on which it is done: as for `dagnn submit`")] = "",
    host: Host = "",
    namespace: Namespace = "",
    token: Token = None,
    cookies: Cookies = None,
    image: Image = None,
    service_account: ServiceAccount = None,
    allow_dirty: Annotated[
        bool, typer.Option("--allow-dirty", help="with --target: although files are not committed")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="with --target: follow the run")] = False,
    as_json: Json = False,
) -> None:
    """Train on the newest version of data, compare with the champion, register; nothing new: say so, and end.

    For cron, a CI job or a CronJob of Kubernetes: run it again whenever you like. Data that was trained on is not
    trained on again; what was interrupted resumes; a second start beside the first ends. Exit status 1 when the data
    fails its check, the model is below the floors, or the gate refuses it.
    """
    from components.params_file import load_params
    from components.services.notification import Webhook
    from components.services.tracking.mlflow import Tracking
    from dagnn_core.locks import BusyError
    from pipeline.retraining import Request
    from pipeline.retraining import retrain as retrain_here

    if "://" in data:
        raise InputError(
            f"{data} has no versions, expected a path under DVC, as data/photos", "`dagnn data add` makes one"
        )
    if target:
        if against:
            raise InputError("--against is for a retraining on this machine", "leave it out, or --target")
        from pipeline.target import read_target

        server = server_of(host, namespace or read_target(target).namespace, token, cookies)
        if _is_to_be_submitted(
            server, data, revision, repository=repository, params=params, promote=promote, wait=wait, as_json=as_json
        ):
            submit(
                host=host,
                namespace=namespace,
                token=token,
                cookies=cookies,
                params=params,
                target=target,
                image=image,
                data=data,
                revision=revision,
                repository=repository,
                service_account=service_account,
                promote=promote,
                check=True,
                accept_drift=accept_drift,
                wait=wait,
                allow_dirty=allow_dirty,
                as_json=as_json,
            )
        return
    if wait or image or service_account or allow_dirty:
        raise InputError(
            "--wait, --image, --service-account and --allow-dirty are for a retraining on a cluster", "add --target"
        )
    request = Request(
        data=data,
        revision=revision,
        repository=repository,
        params=load_params(params),
        promote=promote,
        accept_drift=accept_drift,
        against=against,
        work=work,
    )
    try:
        done = retrain_here(request, tracking=Tracking.from_environment(), webhook=Webhook.from_environment())
    except BusyError as error:
        facts = {"outcome": "under way", "name": request.name, "data": data, "revision": revision}
        typer.echo(json.dumps(facts) if as_json else f"under way: {error.what}")
        return
    if as_json:
        typer.echo(json.dumps(done._asdict() | {"comparison": [asdict(entry) for entry in done.comparison]}))
    else:
        for line in _table(done.comparison):
            typer.echo(line)
        typer.echo(_said(done))
    if done.outcome == "refused":
        raise CheckFailedError(f"{done.name} version {done.version} is not promoted: {done.reason}")


def _is_to_be_submitted(
    kubeflow: "Kubeflow",
    data: str,
    revision: str,
    *,
    repository: str,
    params: Path,
    promote: bool,
    wait: bool,
    as_json: bool,
) -> bool:
    """Whether neither a version nor a run under way is of this data; says which one is, and with `wait` follows it."""
    from components.params_file import load_params
    from components.services.data_versions.repository import resolve
    from components.services.registry.versions import find_trained_on
    from components.services.tracking.mlflow import Tracking
    from pipeline.retraining import read_verdict
    from pipeline.runs import find_under_way
    from pipeline.submit import connect

    name, tracking = load_params(params)["register"].model_name, Tracking.from_environment()
    md5 = resolve(repository, revision, data).lineage.md5
    known = find_trained_on(tracking, name, md5)
    if known is not None:
        verdict = read_verdict(tracking, name, str(known.version))
        if promote and not verdict:
            raise InputError(
                f"{name} version {known.version} was trained on this data, {md5}, and nothing is decided about it yet",
                f"run `dagnn promote {name} --version {known.version} --target ...`",
            )
        facts = {"outcome": "nothing new", "name": name, "version": str(known.version), "md5": md5, "reason": verdict}
        decided = f" ({verdict})" if verdict else ""
        said = f"nothing new: {name} version {known.version} was trained on this data, {md5}{decided}"
        typer.echo(json.dumps(facts) if as_json else said)
        return False
    server = connect(kubeflow)
    run_id = find_under_way(server, "data_md5", md5)
    if run_id is None:
        return True
    facts = {"outcome": "under way", "name": name, "md5": md5, "run_id": run_id}
    typer.echo(json.dumps(facts) if as_json else f"under way: run {run_id} trains on this data, {md5}")
    if wait:
        follow_run(server, run_id)
    return False


def _said(done: "Retraining") -> str:
    version = f"{done.name} version {done.version}"
    match done.outcome:
        case "nothing new":
            decided = f" ({done.reason})" if done.reason else ""
            return f"nothing new: {version} was trained on this data, {done.md5}{decided}"
        case "promoted":
            return f"champion: {version} ({done.reason})"
        case _:
            return f"registered: {version}, alias challenger"


def _table(comparison: "Sequence[SideBySide]") -> Iterator[str]:
    """Both models on each test split, with the difference and its bounds."""
    if not comparison:
        return
    yield f"{'test split':<17} {'items':>6}  {'model':<10} {'map_i2t':>8} {'map_t2i':>8} {'map_mean':>8}"
    for entry in comparison:
        place = f"{entry.data:<17} {entry.num_items:>6,}"
        for name, metrics in (("challenger", entry.challenger), ("champion", entry.champion)):
            if metrics:
                yield f"{place}  {name:<10} " + " ".join(f"{value:8.4f}" for value in metrics.values())
                place = " " * len(place)
        for direction, found in entry.differences.items():
            yield f"{place}  {direction}: {found['mean']:+.4f}, from {found['low']:+.4f} to {found['high']:+.4f}"
        if entry.fault:
            yield f"{place}  champion not measured: {entry.fault}"

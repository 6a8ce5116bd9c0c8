"""`dagnn register`, `promote`, `rollback`, `history` and `registry copy`: the model registry."""

import json
import math
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.locations import MODEL, REPORT
from dagnn_core.config.register import RegisterConfig
from dagnn_core.errors import CheckFailedError, InputError
from dagnn_core.text import cell
from pipeline.cli.cluster import Cookies, Host, Namespace, ServiceAccount, Token, server_of
from pipeline.cli.kubeflow import Image
from pipeline.cli.promotion import PromotionPlace, promote_there

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from components.services.promotion.gate import Check
    from components.services.promotion.promotion import Event, Promotion

app = typer.Typer(no_args_is_help=True)

WIDTH = 100  # columns of a history

Name = Annotated[str | None, typer.Argument(help="registered model; default: register.model_name")]
Params = Annotated[str, typer.Option(help="params.yaml, or the section `register` as JSON")]
Why = Annotated[str, typer.Option("--reason", "--why", help="your own words, for the record")]
Adopt = Annotated[bool, typer.Option("--adopt", help="accept a champion that somebody has set by hand")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object")]


@app.callback()
def registry() -> None:
    """Copy versions between registries."""


@app.command()
def copy(
    reference: Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="version, as dagnn@champion or dagnn/7")],
    to: Annotated[str, typer.Option(metavar="URI", help="the other registry, as MLFLOW_TRACKING_URI would name it")],
    as_json: Json = False,
) -> None:
    """Copy a version into another registry, as from dev to prod: files, tags, card, report and lineage.

    Every file of the copy is fetched and compared. It becomes the challenger there; the same model again keeps its
    version. DAGNN_TO_USERNAME and DAGNN_TO_PASSWORD, or DAGNN_TO_TOKEN, are the account there, where it is another one.
    """
    from components.services.lineage.tree import parse_reference
    from components.services.registry.copying import copy_version, other_registry
    from components.services.registry.versions import read_versions
    from components.services.tracking.mlflow import Tracking

    source, wanted = Tracking.from_environment(), parse_reference(reference)
    with source.answering():
        registered, versions = read_versions(source, wanted.name)
    number = wanted.version or str(registered.aliases.get(wanted.alias, ""))
    done = copy_version(source, _find(versions, wanted.name, number, reference), other_registry(source, to))
    if as_json:
        print(json.dumps(done._asdict()))
        return
    print(f"{'copied' if done.is_new else 'there already'}  {done.name} version {done.version}, alias challenger")
    print(f"from    {done.source}")
    print(f"model   {done.digest}")


def _find(versions: "dict[str, ModelVersion]", name: str, number: str, reference: str) -> "ModelVersion":
    if number not in versions:
        raise InputError(f"there is no {reference} (versions of {name}: {', '.join(sorted(versions, key=int))})")
    return versions[number]


def register(
    model: Annotated[Path, typer.Option(help="model artifact")] = MODEL,
    report: Annotated[Path, typer.Option(help="report artifact of this model")] = REPORT,
    params: Params = "params.yaml",
    as_json: Json = False,
) -> None:
    """Make a trained model and its report a version in the MLflow registry, with alias `challenger`."""
    from components.params import load_section
    from components.services.registry.versions import CHALLENGER
    from components.services.tracking.mlflow import Tracking
    from components.steps import register as step

    tracking = Tracking.from_environment()
    name, version = step.run(model=model, report=report, params=load_section(params, RegisterConfig), tracking=tracking)
    if as_json:
        print(json.dumps({"name": name, "version": version, "alias": CHALLENGER, "tracking_uri": tracking.address}))
        return
    print(f"registered  {name} version {version}, alias {CHALLENGER}")
    print(f"open        {tracking.browse}")
    print(f'load        mlflow.pyfunc.load_model("models:/{name}@{CHALLENGER}")')


def promote(
    name: Name = None,
    *,
    version: Annotated[str | None, typer.Option(help="version; default: the one with alias challenger")] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="its data set artifact; default: artifacts/dataset, else fetched by DVC")
    ] = None,
    why: Why = "",
    adopt: Adopt = False,
    allow_dirty: Annotated[
        bool,
        typer.Option(
            "--allow-dirty",
            help="accept code or dvc.lock that were not committed; recorded; with --target: images of another commit",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="decide only: move and record nothing")] = False,
    params: Params = "params.yaml",
    target: Annotated[
        str, typer.Option(help="cluster on which it is done, that of the training: as for `dagnn submit`")
    ] = "",
    host: Host = "",
    namespace: Namespace = "",
    token: Token = None,
    cookies: Cookies = None,
    image: Image = None,
    service_account: ServiceAccount = None,
    wait: Annotated[bool, typer.Option("--wait", help="with --target: follow the run; exit status as without")] = False,
    as_json: Json = False,
) -> None:
    """Make a version champion when it passes the gate (register.gate in params.yaml); exit status 1 when it does not.

    The gate: complete lineage and committed code, floors of MAP, no significant drop below the champion on the same
    test data, neither overall nor for rare labels and short texts, a load test in a fresh process, no pickle, card and
    licence, no leaks in the data.

    With --target, it runs on the cluster that trained the version, where its data set is stored.
    """
    from components.params import load_section
    from components.services.notification import Webhook
    from components.services.tracking.mlflow import Tracking
    from components.steps import promote as step

    config = load_section(params, RegisterConfig)
    if target:
        if dataset or dry_run:
            raise InputError("--dataset and --dry-run are for a promotion on this machine", "leave out --target")
        from pipeline.placeholders import refuse_placeholders
        from pipeline.target import read_target

        refuse_placeholders({"register": asdict(config)}, where=Path(params))
        cluster = read_target(target)
        server = server_of(host, namespace or cluster.namespace, token, cookies)
        promote_there(
            config,
            PromotionPlace(server, cluster, image, service_account, any_commit=allow_dirty),
            name=name or config.model_name,
            version=version,
            reason=why,
            adopt=adopt,
            wait=wait,
            as_json=as_json,
        )
        return
    if wait or image or service_account:
        raise InputError("--wait, --image and --service-account are for a promotion on a cluster", "add --target")
    promotion = step.run(
        name=name or config.model_name,
        version=version,
        params=config,
        dataset=dataset,
        why=why,
        adopt=adopt,
        allow_dirty=allow_dirty,
        dry_run=dry_run,
        tracking=Tracking.from_environment(),
        webhook=Webhook.from_environment(),
    )
    if as_json:
        print(json.dumps(_promotion_object(promotion, dry_run=dry_run)))
    else:
        for line in _promotion_lines(promotion, dry_run=dry_run):
            print(line)
    if not promotion.decision.accepted:
        raise CheckFailedError(
            f"{promotion.name} version {promotion.version} is not promoted: {promotion.decision.reason}"
        )


def rollback(
    name: Name = None,
    *,
    to: Annotated[str | None, typer.Option(help="a former champion; default: the one before the present")] = None,
    why: Why = "",
    adopt: Adopt = False,
    params: Params = "params.yaml",
    as_json: Json = False,
) -> None:
    """Make the champion before the present one champion again; exit status 1 when its files are gone."""
    from components.params import load_section
    from components.services.notification import Event, Webhook, notify
    from components.services.promotion.promotion import rollback as roll_back
    from components.services.tracking.mlflow import Tracking

    name = name or load_section(params, RegisterConfig).model_name
    tracking, webhook = Tracking.from_environment(), Webhook.from_environment()
    facts: dict[str, str | None] = {"model": name, "who": tracking.who, "registry": tracking.address}
    try:
        done = roll_back(tracking, name=name, to=to, why=why, adopt=adopt)
    except CheckFailedError as error:
        notify(webhook, Event(kind="refused", text=f"dagnn: {error}", facts=facts | {"reason": str(error)}))
        raise
    if done.champion != done.replaced:
        text = f"dagnn: {name} is rolled back to version {done.champion}, after {_version(done.replaced)}"
        facts |= {"champion": done.champion, "before": done.replaced, "reason": why}
        notify(webhook, Event(kind="rolled back", text=f"{text}: {why}" if why else text, facts=facts))
    if as_json:
        print(json.dumps(done._asdict()))
    elif done.champion == done.replaced:
        print(f"champion: version {done.champion} of {done.name}, as before")
    else:
        print(f"champion: version {done.champion} of {done.name}, after {_version(done.replaced)}")


def history(
    name: Name = None,
    params: Params = "params.yaml",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object a line")] = False,
) -> None:
    """Show every promotion, refusal and rollback of a model: when, who, what, and why."""
    from components.params import load_section
    from components.services.promotion.promotion import read_history
    from components.services.registry.versions import CHAMPION
    from components.services.tracking.mlflow import Tracking

    name = name or load_section(params, RegisterConfig).model_name
    past = read_history(Tracking.from_environment(), name=name)
    for remark in past.remarks:
        print(f"warning: {remark}", file=sys.stderr)
    if as_json:
        for event in past.events:
            print(json.dumps(_event_object(event)))
        return
    for line in _event_lines(past.events):
        print(line)
    print(f"{CHAMPION}: {_version(past.champion)}")


def _event_object(event: "Event") -> dict[str, object]:
    values = event._asdict()
    return {
        "entry": values.pop("entry"),
        "when": values.pop("when").isoformat(timespec="milliseconds"),
        "from": values.pop("source"),
        "to": values.pop("target"),
        "figures": values.pop("metrics"),
        **values,
    }


def _event_lines(events: "Sequence[Event]") -> Iterator[str]:
    if not events:
        return
    longest = min(24, max(len(event.who) for event in events))
    columns = f"{{:>3}}  {{:16}}  {{:{longest}}}  {{:11}}  {{:>4}}  {{:>4}}  {{:>8}}  "
    yield columns.format("#", "when (UTC)", "who", "what", "from", "to", "map_mean") + "why"
    for event in events:
        row = columns.format(
            event.entry,
            f"{event.when:%Y-%m-%d %H:%M}",
            cell(event.who)[:longest],
            event.what,
            event.source or "-",
            event.target or "-",
            _number(event.metrics.get("map_mean")),
        )
        reasons = textwrap.wrap(cell(event.why), WIDTH - len(row), break_on_hyphens=False) or [""]
        yield (row + reasons[0]).rstrip()
        yield from (" " * len(row) + line for line in reasons[1:])


def _version(version: str | None) -> str:
    return f"version {version}" if version else "none"


def _promotion_object(promotion: "Promotion", *, dry_run: bool) -> dict[str, object]:
    return {
        "name": promotion.name,
        "version": promotion.version,
        "champion": promotion.champion,
        "accepted": promotion.decision.accepted,
        "reason": promotion.decision.reason,
        "dry_run": dry_run,
        "checks": [_check_object(check) for check in promotion.checks],
        "figures": dict(promotion.metrics),
    }


def _check_object(check: "Check") -> dict[str, object]:
    """JSON has no NaN and no infinity."""
    finite = check.value is not None and math.isfinite(check.value)
    return check._asdict() | {"value": check.value if finite else None}


def _promotion_lines(promotion: "Promotion", *, dry_run: bool) -> Iterator[str]:
    """A table of the checks, with explanations of those that did not simply pass."""
    against = f"champion {promotion.champion}" if promotion.champion else "no champion"
    yield f"{promotion.name} version {promotion.version}, {against}"
    if promotion.checks:
        width = max(len(check.name) for check in promotion.checks)
        yield f"{'verdict':<14}  {'check':<{width}}  {'value':>9}  {'limit':>9}"
        for check, following in zip(promotion.checks, (*promotion.checks[1:], None), strict=True):
            numbers = f"{_limit(check.value):>9}  {_limit(check.limit):>9}"
            yield f"{check.verdict:<14}  {check.name:<{width}}  {numbers}".rstrip()
            shared = following is not None and following.explanation == check.explanation  # shown once, below the last
            if check.verdict != "passed" and not shared:
                for line in textwrap.wrap(cell(check.explanation), WIDTH - 16, break_on_hyphens=False):
                    yield " " * 16 + line
    if promotion.decision.accepted:
        would = "would become " if dry_run else ""
        yield f"{would}champion: version {promotion.version} ({promotion.decision.reason})"


def _limit(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"

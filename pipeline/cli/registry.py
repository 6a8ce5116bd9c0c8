"""`dagnn register`, `promote`, `rollback` and `history`: the model registry."""

import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagnn_core.config import RegisterConfig
from dagnn_core.errors import CheckRefusedError

if TYPE_CHECKING:
    from components.services.promotion import Event, Promotion

WIDTH = 100  # columns of a history

Name = Annotated[str | None, typer.Argument(help="registered model; default: register.model_name")]
Params = Annotated[str, typer.Option(help="params.yaml, or the section `register` as JSON")]
Why = Annotated[str, typer.Option(help="your reason, for the record")]
Adopt = Annotated[bool, typer.Option("--adopt", help="accept a champion that somebody has set by hand")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object")]


def register(
    model: Annotated[Path, typer.Option(help="model artifact")] = Path("artifacts/model"),
    report: Annotated[Path, typer.Option(help="report artifact of this model")] = Path("artifacts/report"),
    params: Params = "params.yaml",
    as_json: Json = False,
) -> None:
    """Make a trained model and its report a version in the MLflow registry, with alias `challenger`."""
    from components import register as step
    from components.params import load_section
    from components.services.registry import CHALLENGER
    from components.services.tracking import Tracking

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
    why: Why = "",
    adopt: Adopt = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="decide only: move and record nothing")] = False,
    params: Params = "params.yaml",
    as_json: Json = False,
) -> None:
    """Make a version champion when it is not worse than the present one; exit status 1 when it is."""
    from components.params import load_section
    from components.services.promotion import promote as decide_and_move
    from components.services.tracking import Tracking

    config = load_section(params, RegisterConfig)
    promotion = decide_and_move(
        Tracking.from_environment(),
        name=name or config.model_name,
        version=version,
        tolerance=config.tolerance,
        why=why,
        adopt=adopt,
        dry_run=dry_run,
    )
    print(_as_json(promotion) if as_json else _as_table(promotion, dry_run=dry_run))
    if not promotion.decision.accepted:
        raise CheckRefusedError(
            f"{promotion.name} version {promotion.challenger.version} is not promoted: {promotion.decision.reason}"
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
    from components.services.promotion import rollback as roll_back
    from components.services.tracking import Tracking

    name = name or load_section(params, RegisterConfig).model_name
    done = roll_back(Tracking.from_environment(), name=name, to=to, why=why, adopt=adopt)
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
    from components.services.promotion import read_history
    from components.services.registry import CHAMPION
    from components.services.tracking import Tracking

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
            event.who[:longest],
            event.what,
            event.source or "-",
            event.target or "-",
            _figure(event.figures.get("map_mean")),
        )
        reasons = textwrap.wrap(event.why, WIDTH - len(row), break_on_hyphens=False) or [""]
        yield (row + reasons[0]).rstrip()
        yield from (" " * len(row) + line for line in reasons[1:])


def _version(version: str | None) -> str:
    return f"version {version}" if version else "none"


def _as_json(promotion: "Promotion") -> str:
    return json.dumps(
        {
            "name": promotion.name,
            "accepted": promotion.decision.accepted,
            "reason": promotion.decision.reason,
            "challenger": promotion.challenger._asdict(),
            "champion": promotion.champion and promotion.champion._asdict(),
        }
    )


def _as_table(promotion: "Promotion", *, dry_run: bool) -> str:
    from components.services.registry import METRICS

    challenger, champion, decision = promotion.challenger, promotion.champion, promotion.decision
    lines = [f"{promotion.name:10}{'version ' + challenger.version:>12}{_heading(promotion):>16}{'change':>10}"]
    for metric in METRICS:
        new, old = getattr(challenger, metric), getattr(champion, metric, None)
        change = f"{new - old:+.4f}" if new is not None and old is not None else "-"
        lines.append(f"{metric:10}{_figure(new):>12}{_figure(old):>16}{change:>10}")
    if decision.accepted:
        would = "would become " if dry_run else ""
        lines.append(f"{would}champion: version {challenger.version} ({decision.reason})")
    return "\n".join(lines)


def _heading(promotion: "Promotion") -> str:
    return f"champion, {promotion.champion.version}" if promotion.champion else "no champion"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"

"""`dagnn register` and `dagnn promote`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagnn_core.config import RegisterConfig
from dagnn_core.errors import CheckRefusedError

if TYPE_CHECKING:
    from components.services.registry import Promotion

Params = Annotated[str, typer.Option(help="params.yaml, or the section `register` as JSON")]
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
    name: Annotated[str | None, typer.Argument(help="registered model; default: register.model_name")] = None,
    version: Annotated[str | None, typer.Option(help="version; default: the one with alias challenger")] = None,
    params: Params = "params.yaml",
    as_json: Json = False,
) -> None:
    """Make a version champion when it is not worse than the present one; exit status 1 when it is."""
    from components.params import load_section
    from components.services.registry import promote as decide_and_move
    from components.services.tracking import Tracking

    config = load_section(params, RegisterConfig)
    promotion = decide_and_move(
        Tracking.from_environment(), name=name or config.model_name, version=version, tolerance=config.tolerance
    )
    print(_as_json(promotion) if as_json else _as_table(promotion))
    if not promotion.decision.accepted:
        raise CheckRefusedError(
            f"{promotion.name} version {promotion.challenger.version} is not promoted: {promotion.decision.reason}"
        )


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


def _as_table(promotion: "Promotion") -> str:
    from components.services.registry import METRICS

    challenger, champion, decision = promotion.challenger, promotion.champion, promotion.decision
    lines = [f"{promotion.name:10}{'version ' + challenger.version:>12}{_heading(promotion):>16}{'change':>10}"]
    for metric in METRICS:
        new, old = getattr(challenger, metric), getattr(champion, metric, None)
        change = f"{new - old:+.4f}" if new is not None and old is not None else "-"
        lines.append(f"{metric:10}{_figure(new):>12}{_figure(old):>16}{change:>10}")
    if decision.accepted:
        lines.append(f"champion: version {challenger.version} ({decision.reason})")
    return "\n".join(lines)


def _heading(promotion: "Promotion") -> str:
    return f"champion, {promotion.champion.version}" if promotion.champion else "no champion"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"

"""Step `promote`: a registered version becomes champion, when it passes the gate.

It is the last task of a Kubeflow pipeline, and the command `dagnn promote`; DVC has no stage of it.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from components.services.notification import Event, Webhook, notify
from components.services.promotion.evidence import examine
from components.services.promotion.gate import GateResult, judge
from components.services.promotion.promotion import Promotion, promote
from components.services.registry.versions import mark_finished
from components.services.tracking.mlflow import Tracking
from dagnn_core.config.register import RegisterConfig

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def run(
    *,
    name: str,
    version: str | None,
    params: RegisterConfig,
    dataset: Path | None,
    why: str = "",
    adopt: bool = False,
    allow_dirty: bool = False,
    dry_run: bool = False,
    tracking: Tracking,
    webhook: Webhook | None = None,
) -> Promotion:
    """Examine a version on the test split of the data that it was trained on, and make it champion if it passes.

    Every outcome is a record of the ledger.

    Args:
        name: name of the registered model.
        version: the version; None for the one with alias `challenger`.
        params: the limits.
        dataset: the data set artifact; None: `artifacts/dataset` where it is the one, else DVC fetches it.
        why: the user's own words, for the record.
        adopt: accept an alias that somebody has moved by hand.
        allow_dirty: accept a version whose code, parameters or `dvc.lock` were not committed; the record says so.
        dry_run: decide only: move and record nothing.
        tracking: where the registry is.
        webhook: is told of the outcome, after it is recorded.

    Raises:
        InputError: no such model, version or alias; `dataset` is not the version's, or cannot be fetched.
        BackendError: the server, the store or the disk failed.
    """

    def pass_gate(challenger: "ModelVersion", champion: "ModelVersion | None") -> GateResult:
        with tempfile.TemporaryDirectory() as folder:
            evidence = examine(tracking, challenger, champion, dataset=dataset, config=params.gate, folder=Path(folder))
        return judge(evidence, params.gate, allow_dirty=allow_dirty)

    done = promote(tracking, name=name, version=version, examine=pass_gate, why=why, adopt=adopt, dry_run=dry_run)
    if not dry_run:
        mark_finished(tracking, name, done.version, "promote")
        if done.champion != done.version:  # else it was the champion before
            notify(webhook, _event(done, tracking))
    return done


def _event(done: Promotion, tracking: Tracking) -> Event:
    accepted, reason = done.decision
    after = f", after version {done.champion}" if done.champion else ""
    verdict = f"is champion{after}" if accepted else "is refused"
    return Event(
        kind="promoted" if accepted else "refused",
        text=f"dagnn: {done.name} version {done.version} {verdict}: {reason}",
        facts={
            "model": done.name,
            "version": done.version,
            "champion": done.version if accepted else done.champion,
            "before": done.champion,
            "reason": reason,
            "who": tracking.who,
            "registry": tracking.address,
        },
    )

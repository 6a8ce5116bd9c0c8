"""Step `record_outcome`: how a Kubeflow run ended, in the log, in MLflow, and at a webhook where there is one.

It is the run's exit handler: it comes last whatever happened before, and what it cannot do is a warning.
"""

import json
import logging

from components.services.notification import Event, Webhook, notify
from components.services.tracking.mlflow import Tracking
from dagnn_core.errors import BackendError
from dagnn_core.redaction import redact

log = logging.getLogger(__name__)


def run(*, pipeline_run: str, state: str, error: str, webhook: Webhook | None, tracking: Tracking) -> None:
    """Record the final state of a run.

    Args:
        pipeline_run: the run's id.
        state: SUCCEEDED, FAILED, CANCELED or UNKNOWN.
        error: what failed; empty where nothing did.
        webhook: is told; None: there is none.
        tracking: the MLflow runs of this run's trainings get the tags `pipeline_state` and `pipeline_error`.
    """
    error = redact(error)
    outcome = {"pipeline_run": pipeline_run, "state": state, "error": error}
    log.info("outcome %s", json.dumps(outcome))
    _tag_runs(tracking, pipeline_run, {"pipeline_state": state, "pipeline_error": error})
    text = f"dagnn: run {pipeline_run} ended: {state}" + (f": {error}" if error else "")
    notify(webhook, Event(kind="run failed" if state == "FAILED" else "run ended", text=text, facts=outcome))


def _tag_runs(tracking: Tracking, pipeline_run: str, tags: dict[str, str]) -> None:
    try:
        with tracking.answering():
            for run_id in tracking.runs_of_pipeline(pipeline_run):
                for tag, value in tags.items():
                    tracking.client.set_tag(run_id, tag, value)
    except BackendError as error:
        log.warning("the outcome is not in MLflow: %s", error)

"""Step `record_outcome`: how a Kubeflow run ended, in the log, in MLflow, and at a webhook where there is one.

It is the run's exit handler: it comes last whatever happened before, and what it cannot do is a warning.
"""

import json
import logging

import requests

from components.services.storage.patience import Patience, passing_failure, passing_status
from components.services.tracking.mlflow import Tracking
from dagnn_core.errors import BackendError
from dagnn_core.redaction import redact

log = logging.getLogger(__name__)

SECONDS = 10


def run(*, pipeline_run: str, state: str, error: str, webhook: str, tracking: Tracking) -> None:
    """Record the final state of a run.

    Args:
        pipeline_run: the run's id.
        state: SUCCEEDED, FAILED, CANCELED or UNKNOWN.
        error: what failed; empty where nothing did.
        webhook: gets a JSON object with `text` by POST, as chat programs take it; empty: none. It is a secret: anybody
            who knows it can write there.
        tracking: the MLflow runs of this run's trainings get the tags `pipeline_state` and `pipeline_error`; its
            patience serves the webhook too.
    """
    error = redact(error)
    outcome = {"pipeline_run": pipeline_run, "state": state, "error": error}
    log.info("outcome %s", json.dumps(outcome))
    _tag_runs(tracking, pipeline_run, {"pipeline_state": state, "pipeline_error": error})
    if webhook:
        text = f"dagnn: run {pipeline_run} ended: {state}" + (f": {error}" if error else "")
        _post(webhook, {"text": text} | outcome, tracking.patience)


def _tag_runs(tracking: Tracking, pipeline_run: str, tags: dict[str, str]) -> None:
    try:
        with tracking.answering():
            for run_id in tracking.runs_of_pipeline(pipeline_run):
                for tag, value in tags.items():
                    tracking.client.set_tag(run_id, tag, value)
    except BackendError as error:
        log.warning("the outcome is not in MLflow: %s", error)


def _post(webhook: str, content: dict[str, str], patience: float) -> None:
    def send() -> requests.Response:
        answer = requests.post(webhook, json=content, timeout=SECONDS)
        if passing_status(answer.status_code):
            raise requests.HTTPError(response=answer)
        return answer

    try:
        answer = Patience("the webhook", patience).call(send, _passing_failure)
    except requests.HTTPError as error:
        log.warning("the webhook answers %d", error.response.status_code)
        return
    except (requests.RequestException, ValueError) as error:
        # the error's own words may hold the address
        log.warning("the webhook cannot be reached (%s)", type(error).__name__)
        return
    if not answer.ok:
        log.warning("the webhook answers %d", answer.status_code)


def _passing_failure(error: BaseException) -> str | None:
    """What has failed, where that may pass, without the address that the error's own words may hold."""
    failure = passing_failure(error)
    return type(error).__name__ if failure and not isinstance(error, requests.HTTPError) else failure

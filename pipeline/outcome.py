"""How a pipeline run ended, decided inside its exit handler.

What the server tells an exit handler is often another state than the run's, and never an error. So the handler asks the
server's API for the tasks themselves; where that does not answer, it looks for what the last task leaves in MLflow. It
runs in an image without kfp.
"""

import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import requests
import urllib3

from components.services.registry.versions import has_finished
from components.services.tracking.mlflow import Tracking
from dagnn_core.errors import BackendError
from pipeline.kubeflow.runs import Task, fold, state_of, whole_spec
from pipeline.task import last_words

log = logging.getLogger(__name__)

MAX_BYTES = 16 << 20  # of an answer; of a longer log, the end
TOKEN_FILE = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105  # a path, where Kubeflow mounts its tokens
_OWN_TASK = "record_outcome"


class Outcome(NamedTuple):
    """How a run ended."""

    state: str
    """SUCCEEDED, FAILED, CANCELED or UNKNOWN."""
    error: str = ""
    """What failed; empty where nothing did or nothing is known."""


@dataclass(frozen=True, kw_only=True)
class RunServer:
    """The API of Kubeflow Pipelines, as a pod reaches it.

    Every method raises `requests.RequestException` where the API does not answer in time, or refuses.
    """

    url: str
    connect_timeout: float = 3.0
    """Seconds."""
    read_timeout: float = 5.0
    """Seconds without a byte."""
    total_timeout: float = 10.0
    """Seconds for a whole answer."""
    patience: float = 30.0
    """Seconds for which tasks may still be listed as running: the server learns of their end a little later."""
    pause: float = 3.0
    """Seconds before it is asked again."""

    def run(self, run_id: str) -> Any:
        """The run, as JSON."""
        return json.loads(self._get(f"/apis/v2beta1/runs/{quote(run_id, safe='')}"))

    def spec(self, pipeline_id: str, version_id: str) -> Any:
        """The compiled pipeline of a version, as JSON."""
        path = f"/apis/v2beta1/pipelines/{quote(pipeline_id, safe='')}/versions/{quote(version_id, safe='')}"
        return whole_spec(json.loads(self._get(path)))

    def log(self, run_id: str, pod: str) -> str:
        """The log of a pod."""
        path = f"/apis/v1alpha1/runs/{quote(run_id, safe='')}/nodes/{quote(pod, safe='')}/log"
        return self._get(path).decode(errors="replace")

    def _get(self, path: str) -> bytes:
        deadline = time.monotonic() + self.total_timeout
        with requests.Session() as session:
            session.trust_env = False  # no proxy and no .netrc gets between the token and this address
            session.headers.update(_authorization())
            with session.get(
                self.url.rstrip("/") + path,
                timeout=(self.connect_timeout, self.read_timeout),
                allow_redirects=False,  # the token is for this address alone
                verify=os.environ.get("SSL_CERT_FILE") or True,
                stream=True,
            ) as answer:
                if answer.status_code != requests.codes.ok:
                    raise requests.HTTPError(f"it answers {answer.status_code}")
                content = b""
                try:
                    while chunk := answer.raw.read1(1 << 16, decode_content=True):
                        content = (content + chunk)[-MAX_BYTES:]
                        if time.monotonic() > deadline:
                            raise requests.Timeout(f"no whole answer within {self.total_timeout:g} s")
                except urllib3.exceptions.HTTPError as error:
                    raise requests.ConnectionError(error) from error
        return content


def find_outcome(
    pipeline_run: str, *, last_task: str, said: Outcome, server: RunServer | None, tracking: Tracking
) -> Outcome:
    """Decide how a run ended, from its tasks, else from what its last task left behind.

    Args:
        pipeline_run: the run's id.
        last_task: step that ends the chain, `register` or `promote`.
        said: what the server told the exit handler; a failure counts where nothing contradicts it.
        server: None: there is none to ask.
        tracking: where the registry is.
    """
    if server is not None:
        try:
            if outcome := _of_tasks(server, pipeline_run):
                return outcome
            log.warning("Kubeflow at %s does not list how all tasks ended", server.url)
        except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("Kubeflow at %s does not tell how the tasks ended (%s)", server.url, _reason(error))
    try:
        if has_finished(tracking, pipeline_run, last_task):
            return Outcome("SUCCEEDED")
    except BackendError as error:
        log.warning("MLflow does not tell whether %s ended: %s", last_task, error)
    return said if said.state == "FAILED" else Outcome("UNKNOWN")


def _of_tasks(server: RunServer, run_id: str) -> Outcome | None:
    """How the tasks ended; None where some have not."""
    deadline = time.monotonic() + server.patience
    spec: Mapping[str, Any] | None = None
    while True:
        run = server.run(run_id)
        spec = _spec(server, run) if spec is None else spec
        tasks = [task for task in fold(run, spec) if task.name != _OWN_TASK]
        state = _state(run, tasks)
        if state == "FAILED":
            return Outcome(state, "; ".join(_cause(server, run_id, task) for task in tasks if task.state == "FAILED"))
        if state == "CANCELED":
            ended = ", ".join(task.label for task in tasks if task.state == "CANCELED")
            return Outcome(state, f"canceled during {ended}" if ended else "")
        if state or time.monotonic() + server.pause > deadline:
            return Outcome(state) if state else None
        time.sleep(server.pause)


def _spec(server: RunServer, run: Mapping[str, Any]) -> Mapping[str, Any]:
    """The compiled pipeline of a run; empty where the server does not tell."""
    reference = run.get("pipeline_version_reference") or {}
    try:
        return server.spec(reference["pipeline_id"], reference["pipeline_version_id"])  # type: ignore[no-any-return]
    except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _state(run: Mapping[str, Any], tasks: list[Task]) -> str:
    """State of a run whose exit handler is running; empty where the tasks do not tell."""
    if state_of({**run, "state": "FAILED"}) == "CANCELED":
        return "CANCELED"
    states = {task.state for task in tasks}
    if "FAILED" in states:
        return "FAILED"
    return "SUCCEEDED" if states and states <= {"SUCCEEDED", "CACHED"} else ""


def _cause(server: RunServer, run_id: str, task: Task) -> str:
    """Why a task failed: its own last words in the log of its pod, as `dagnn follow` shows them."""
    for pod in task.attempts[-1].pods if task.attempts else ():
        try:
            words = last_words(task.name, server.log(run_id, pod))
        except requests.RequestException:
            continue  # a pod has one of several names, and its log may be gone
        return f"{task.failed_label}: {words}" if words else task.failed_label
    return task.failed_label


def _authorization() -> dict[str, str]:
    """Kubeflow's own token, where the pod has one; it is read for each request, since it is renewed.

    The service account's token for Kubernetes itself is not sent: it is not made for this server.
    """
    file = Path(os.environ.get("KF_PIPELINES_SA_TOKEN_PATH") or TOKEN_FILE)
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return {}
    return {"Authorization": f"Bearer {token}"} if token.isascii() and token.isprintable() and token else {}


def _reason(error: Exception) -> str:
    return str(error) if type(error) in (requests.HTTPError, requests.Timeout) else type(error).__name__

"""MLflow tracking: one trained model is one run, which `train` opens and `evaluate` and `register` resume.

Everything goes through an explicit `MlflowClient`: the fluent functions keep global state and consume MLFLOW_RUN_ID.
MLflow takes a second to import, so it is imported when a server is first needed.
"""

import getpass
import logging
import os
import re
import socket
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from components.output import is_debugging
from components.services.storage.patience import Patience, patience_of_environment
from components.services.tracking.patience import end_silent_transfers, passing_failure_of_mlflow
from components.services.tracking.tags import KUBEFLOW_RUN, PIPELINE_RUN, Lineage
from components.urls import no_url, split_url
from dagnn_core.artifacts import Artifact, rerun
from dagnn_core.disk import writing
from dagnn_core.errors import ArtifactError, BackendError, InputError, causes
from dagnn_core.locks import hold_lock
from dagnn_core.records import read_history
from dagnn_core.redaction import redact, redact_all
from dagnn_core.text import one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, Metric
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from sqlalchemy import Connection

log = logging.getLogger(__name__)

DEFAULT_URI = "sqlite:///mlflow.db"
DEFAULT_EXPERIMENT = "dagnn"
RECREATED_FROM = "dagnn.recreated_from"
REQUEST = "dagnn.request"  # tag with a random value: finds again what was made by a request whose answer was lost

PARENT, NAME = "mlflow.parentRunId", "mlflow.runName"
"""Tags by which MLflow knows the run that a run belongs to, and what it is called."""

EVERY_EPOCH = "val_map_mean"
"""A metric that every epoch of a training has."""

PROBE_SECONDS = 5
MAKING_SECONDS = 120.0
"""For which a process waits for another one that makes a new database."""
MAKING_KEY = 7205759403792  # of the lock in PostgreSQL for that: any number that no other program takes
COLLISIONS = ("database is locked", "UNIQUE constraint failed", "duplicate key value", "Duplicate entry")
"""What SQLite, PostgreSQL and MySQL say where two processes write at once, also through MLflow's server."""
ATTEMPTS_AT_COLLISIONS = 6
MAX_DIGEST = 36  # characters of a data set's digest that MLflow takes
MAX_PARAM = 6000  # and of a parameter

DIRECT_TRANSFER = ("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD")
"""Variables that decide whether MLflow's client moves large files by addresses of the store, past the server."""
IMPATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""Variables of a command that only looks: seconds without a byte, and retries."""

# MLflow reads these when it is imported, or when it needs them; what the user has set stays
_ENVIRONMENT = {
    **dict.fromkeys(DIRECT_TRANSFER, "false"),  # unset, a server with S3 behind it sends clients to the store itself
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",  # seconds without a byte
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",  # else it exports a uv.lock that it finds in the current folder
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_TRACEBACKS = ("mlflow.store.db", "sqlalchemy.pool")
"""Loggers that show an exception with its traceback, which then reaches us all the same."""
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_MAX_RETRIES = "5"  # without patience: a server that restarts within a minute is waited for

T = TypeVar("T")


class Run:
    """An MLflow run that takes metrics and files; a server lost while it is open costs one warning, not the work."""

    def __init__(
        self,
        client: "MlflowClient",
        run_id: str,
        address: str,
        *,
        logged: frozenset[tuple[str, int]] = frozenset(),
    ) -> None:
        self.run_id = run_id
        self._logged = logged
        self._client = client
        self._address = address
        self._lost = False

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Add the metrics of one step (an epoch, for training), unless the run has that step from before."""
        if any((name, step) in self._logged for name in metrics):
            return
        self._send(self._client.log_batch, metrics=_metrics(metrics, step), synchronous=True)

    def log_dataset(self, dataset: "Dataset", *, context: str) -> None:
        """Name a data set that the run used, and what for: `training`, `test`."""
        from mlflow.entities import DatasetInput, InputTag

        tags = [InputTag("mlflow.data.context", context)]
        self._send(self._client.log_inputs, datasets=[DatasetInput(dataset, tags)])

    def log_directory(self, path: Path, name: str) -> None:
        """Attach the files of a directory to the run, under a folder `name`."""
        self._send(self._client.log_artifacts, local_dir=str(path), artifact_path=name)

    def finish(self, status: str) -> None:
        """Close the run: FINISHED, FAILED or KILLED."""
        self._send(self._client.set_terminated, status=status)

    def close_lost(self, alive: Collection[str]) -> None:
        """Close the runs below this one whose processes were killed, as KILLED.

        Args:
            alive: ids of runs that processes are at.
        """
        self._send(self._close_lost, alive=alive)

    def _close_lost(self, run_id: str, *, alive: Collection[str]) -> None:
        experiment = self._client.get_run(run_id).info.experiment_id
        below = f"tags.`{PARENT}` = '{run_id}' and attributes.status = 'RUNNING'"
        for lost in self._client.search_runs([experiment], below):
            if lost.info.run_id not in alive:
                self._client.set_terminated(lost.info.run_id, status="KILLED")

    def _send(self, call: Callable[..., object], **arguments: object) -> None:
        if self._lost:
            return
        try:
            despite_collisions(lambda: call(self.run_id, **arguments))
        except (*_failures(), *_store_failures()) as error:
            self._lost = True
            log.warning(
                "MLflow at %s failed: %s; the work continues, but run %s gets no more metrics and files",
                self._address,
                _reason(error),
                self.run_id,
            )


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where runs are tracked: the server's or database's URI, the experiment, and a run to adopt."""

    uri: str = DEFAULT_URI
    experiment: str = DEFAULT_EXPERIMENT
    injected_run_id: str | None = None
    """A run that somebody else, as Kubeflow, has opened for this task (MLFLOW_RUN_ID): a training adopts it."""
    account: str | None = None
    """The account on the server (MLFLOW_TRACKING_USERNAME)."""
    option: str = "MLFLOW_TRACKING_URI"
    """What sets the URI, for messages."""
    login: tuple[str, str] = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    """The variables that set the account, for messages."""
    patience: float = 0.0
    """Seconds to wait for a server that does not answer (see `patience`); 0: MLflow's own few retries are all."""

    def __post_init__(self) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        os.environ.setdefault(_RETRIES, "0" if self.patience else _MAX_RETRIES)  # they would multiply
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it tells of every single retry
        for name in _TRACEBACKS:
            logging.getLogger(name).setLevel(logging.NOTSET if is_debugging() else logging.CRITICAL)

    @classmethod
    def from_environment(cls) -> "Tracking":
        """As the variables MLFLOW_... of the same names say; by default, SQLite in the current folder."""
        return cls(
            uri=os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI,
            experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT,
            injected_run_id=os.environ.get("MLFLOW_RUN_ID") or None,
            account=os.environ.get("MLFLOW_TRACKING_USERNAME") or None,
            patience=patience_of_environment(),
        )

    @property
    def address(self) -> str:
        """The URI without credentials, fit to be shown."""
        return redact(self.uri)

    @cached_property
    def who(self) -> str:
        """Who acts, for records: the account on the server, else user and machine."""
        if self.account:
            return self.account
        try:
            user = getpass.getuser()
        except (OSError, KeyError):  # a container runs as a number without a name
            user = str(os.getuid())
        return f"{user}@{socket.gethostname()}"

    @property
    def browse(self) -> str:
        """What to type or open to see the runs and the registry in a browser."""
        return self.address if self._is_http else f"mlflow ui --backend-store-uri {self.address}"

    @cached_property
    def client(self) -> "MlflowClient":
        """A client of the server, which has answered once; its methods wait for a server that stops to answer.

        Raises:
            BackendError: it does not answer within seconds and `patience`, or the database cannot be used.
        """
        from mlflow import MlflowClient

        with self.answering():
            # MLflow itself would try again for minutes, with a database even for an hour
            if self._is_http:
                split_url(self.uri, name=self.option)
                end_silent_transfers()
                self._waiting.call(lambda: _probe_server(self.uri), passing_failure_of_mlflow)
            elif self._is_database:
                _probe_database(self.uri)
            return self._waiting.of(MlflowClient(self.uri), passing_failure_of_mlflow)

    def repository(self, uri: str) -> "ArtifactRepository":
        """Where MLflow keeps files; its methods wait like those of `client`."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return self._waiting.of(get_artifact_repository(uri, tracking_uri=self.uri), passing_failure_of_mlflow)

    def make_once(self, find: Callable[[], T | None], make: Callable[[], T]) -> T:
        """Make on the server what has no name of its own, with patience, but not twice.

        Args:
            find: returns what an attempt has made whose answer was lost; None for nothing.
            make: makes it.
        """
        return self._waiting.make_once(find, make, passing_failure_of_mlflow)

    def server_version(self) -> str:
        """Version of a server, which has let us look for experiments, too.

        Raises:
            BackendError: it cannot be reached, or refuses.
        """
        with self.answering():
            self.client.search_experiments(max_results=1)
            answer = _ask_server(self.uri, "/version")
            answer.raise_for_status()
            return str(answer.text).strip()

    def check_exists(self) -> None:
        """See that a local database is there, which `client` would make: a reader has nothing to read in a new one.

        Raises:
            InputError: it is not.
        """
        file = _sqlite_file(self.uri)
        if file and not file.is_file():
            raise InputError(
                f"{self.address} does not exist",
                "go to the folder that has it, set MLFLOW_TRACKING_URI, or run `dagnn register` first",
            )

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turn a failure of the server, the database or the store of files in the body into one clear line.

        Raises:
            BackendError: one of them failed.
        """
        try:
            yield
        except _store_failures() as error:
            raise BackendError(
                f"the store of MLflow's files, to which {self.address} leads, cannot be used: {_reason(error)}",
                "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and MLFLOW_S3_ENDPOINT_URL as it needs, and try again",
            ) from error
        except _failures() as error:
            if _not_permitted(error):
                raise BackendError(
                    f"MLflow at {self.address} does not permit this: {_reason(error)}",
                    f"set {' and '.join(self.login)} of an account that may do it",
                ) from error
            raise self._failure(error) from error

    @contextmanager
    def training_run(
        self,
        *,
        params: Mapping[str, Any],
        ancestors: Mapping[str, str],
        git: Mapping[str, Any],
        execution: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        request: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Iterator[Run]:
        """Open a run for a training: `run_id` where this server knows it, else the injected one, else a new one.

        It ends FINISHED, FAILED when the body raises, KILLED when the user interrupts.

        Args:
            params: name of a section of the configuration -> the section.
            ancestors: kind of artifact -> content digest, of everything that the training reads.
            git: commit of the checkout, and whether it is dirty.
            execution: image and run of the pipeline, as far as they are known.
            run_id: the run that an interrupted training had opened.
            request: by which `find_run` finds a new run, even if this process ends before it knows the run's id.
            tags: further ones; `PARENT` and `NAME` say where MLflow shows the run, and as what.

        Raises:
            InputError: the injected run does not exist, or belongs to a training with other parameters.
            BackendError: the server cannot be reached.
        """
        flat = _flatten({name: asdict(section) for name, section in params.items()})
        with self.answering():
            run = self._adopt(run_id, flat) or Run(self.client, self._create_run(request), self.address)
            lineage = Lineage(digests=ancestors, git=git, execution=execution or {})
            self._describe(run, flat, ancestors, {**lineage.tags(), **(tags or {})})
        log.info("MLflow run %s (%s)", run.run_id, self.address)
        try:
            yield run
        except BaseException as error:
            run.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        run.finish("FINISHED")

    def runs_of_pipeline(self, pipeline_run: str) -> list[str]:
        """Ids of the runs, in this experiment, that a pipeline run has opened."""
        experiment = self.client.get_experiment_by_name(self.experiment)
        if experiment is None:
            return []
        tag = f"tags.{PIPELINE_RUN} = '{pipeline_run}'"
        return [str(found.info.run_id) for found in self.client.search_runs([experiment.experiment_id], tag)]

    def run_of_kubeflow(self, pipeline_run: str, experiment_id: str = "") -> str | None:
        """Id of the run that Kubeflow's own MLflow integration has opened for a pipeline run; None: it opened none.

        Args:
            pipeline_run: the run's id.
            experiment_id: where to look; empty: in `experiment`.
        """
        if not experiment_id:
            experiment = self.client.get_experiment_by_name(self.experiment)
            if experiment is None:
                return None
            experiment_id = experiment.experiment_id
        tag = f"tags.`{KUBEFLOW_RUN}` = '{pipeline_run}'"
        found = self.client.search_runs([experiment_id], tag, max_results=1)
        return str(found[0].info.run_id) if found else None

    @contextmanager
    def resumed_run(self, model: Artifact) -> Iterator[Run]:
        """Open the run that trained a model; where this server does not know it, recreate it from the model's files.

        The run's status stays what training made it.

        Raises:
            ArtifactError: the model does not say which run trained it.
            BackendError: the server cannot be reached.
        """
        original = model.provenance.get("mlflow_run_id")
        if not original:
            raise ArtifactError(f"{model.path}/manifest.json names no MLflow run", rerun("--force train"))
        with self.answering():
            resumable = self._can_resume(original)
            run_id = original if resumable else self._recreated(original) or self._recreate(model, original)
            run = Run(self.client, run_id, self.address)
        yield run

    @cached_property
    def _waiting(self) -> Patience:
        return Patience(f"MLflow at {self.address}", self.patience if self._is_http else 0)

    def _failure(self, error: Exception) -> BackendError:
        """What a failure of MLflow means to the user."""
        words = " ".join(map(str, causes(error)))
        if _DIRECT.search(words):
            host = _HOST.search(words)  # the whole would show a signed address
            return unreachable_store(self.address, f"{host[1]} cannot be reached" if host else _reason(error))
        if found := _SILENT.search(words):
            limit = os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]
            seconds = found["seconds"] or limit
            more = ", or set a higher MLFLOW_HTTP_REQUEST_TIMEOUT" if seconds == limit else ""
            return BackendError(
                f"MLflow at {self.address} moved no byte for {seconds} s",
                f"check that the server and the store of its files are not overloaded, and run again{more}",
            )
        if _sqlite_file(self.uri):
            remedies = (remedy for sign, remedy in _SQLITE_REMEDIES.items() if sign in words)
            remedy = next(remedies, "end the program that uses the file, or move a damaged file away")
        elif _ANSWERED.search(words):
            remedy = "the server's log says why; check that it reaches its database and the store of its files"
        else:
            unset = f" (unset, it is {DEFAULT_URI})" if self.option == Tracking.option else ""
            remedy = f"start the server or correct {self.option}{unset}"
        return BackendError(f"MLflow at {self.address} cannot be used: {_reason(error)}", remedy)

    @property
    def _is_http(self) -> bool:
        return self._scheme in ("http", "https")

    @property
    def _is_database(self) -> bool:
        from mlflow.store.db.db_types import DATABASE_ENGINES

        return self._scheme.split("+")[0] in DATABASE_ENGINES

    @cached_property
    def _scheme(self) -> str:
        return self.uri.partition(":")[0].lower()

    @cached_property
    def _experiment_id(self) -> str:
        found = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            file = _sqlite_file(self.uri)
            # a server has its own place for files; those of a local database lie beside it
            location = (file.parent / "mlartifacts").resolve().as_uri() if file else None
            return self._create_experiment(location)
        if found.lifecycle_stage != "active":
            raise InputError(
                f"the MLflow experiment {self.experiment!r} was deleted",
                f"run `mlflow experiments restore -x {found.experiment_id}` or set another MLFLOW_EXPERIMENT_NAME",
            )
        return str(found.experiment_id)

    def _create_experiment(self, location: str | None) -> str:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.create_experiment(self.experiment, artifact_location=location)
        except MlflowException as error:  # another training was faster, or our own request whose answer was lost
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = self.client.get_experiment_by_name(self.experiment)
            if found is None:
                raise
            return str(found.experiment_id)

    def _create_run(self, request: str | None = None) -> str:
        experiment, request = self._experiment_id, request or uuid4().hex
        return self.make_once(
            lambda: self._find_run(request),
            lambda: str(self.client.create_run(experiment, tags={REQUEST: request}).info.run_id),
        )

    def find_run(self, request: str) -> str | None:
        """Id of the run that was opened by a request; None: there is none.

        Raises:
            BackendError: the server cannot be reached.
        """
        with self.answering():
            return self._find_run(request)

    def _find_run(self, request: str) -> str | None:
        found = self.client.search_runs([self._experiment_id], f"tags.`{REQUEST}` = '{request}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def knows(self, run_id: str) -> bool:
        """Whether the server has this run, and it was not deleted."""
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return False
            raise

    def _can_resume(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return self.knows(run_id)
        except MlflowException as error:
            # what a server with accounts answers about a run that it does not have, unless an administrator asks
            if error.error_code == "PERMISSION_DENIED":
                return False
            raise

    def _adopt(self, run_id: str | None, params: Mapping[str, str]) -> Run | None:
        resumes = run_id is not None and self.knows(run_id)
        if run_id is None or not resumes:
            run_id = self.injected_run_id
            if run_id is None:
                return None
            if not self.knows(run_id):
                raise InputError(
                    f"MLFLOW_RUN_ID is {run_id}, a run that {self.address} does not have",
                    "correct MLFLOW_TRACKING_URI, or unset MLFLOW_RUN_ID for a new run",
                )
        known = self.client.get_run(run_id).data
        for name, value in known.params.items():
            if params.get(name, value) != value:
                raise InputError(
                    f"MLflow run {run_id} was made with {name} = {value}, got {params[name]}",
                    "unset MLFLOW_RUN_ID for a new run",
                )
        self.client.update_run(run_id, status="RUNNING")
        # a training that resumes repeats the epochs since its last checkpoint; with several seeds each has its prefix
        names = [name for name in known.metrics if name.split("/")[-1] == EVERY_EPOCH] if resumes else []
        history = [metric for name in names for metric in self.client.get_metric_history(run_id, name)]
        return Run(self.client, run_id, self.address, logged=frozenset((metric.key, metric.step) for metric in history))

    def _describe(
        self, run: Run, params: Mapping[str, str], ancestors: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        from mlflow.entities import Param, RunTag

        self.client.log_batch(
            run.run_id,
            params=[Param(name, value) for name, value in params.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
            synchronous=True,
        )
        if "dataset" in ancestors:
            raw = {"md5": ancestors["raw"]} if "raw" in ancestors else {}
            run.log_dataset(split_of_data("train", ancestors["dataset"], raw), context="training")

    def _recreated(self, original: str) -> str | None:
        found = self.client.search_runs(
            [self._experiment_id], filter_string=f"tags.`{RECREATED_FROM}` = '{original}'", max_results=1
        )
        return str(found[0].info.run_id) if found else None

    def _recreate(self, model: Artifact, original: str) -> str:
        run = Run(self.client, self._create_run(), self.address)
        ancestors, git = model.recorded("ancestors"), model.recorded("git")
        lineage = Lineage(digests=ancestors, git=git, execution=model.provenance.get("execution", {}))
        self._describe(run, _flatten(model.recorded("params")), ancestors, lineage.tags())
        for number, epoch in enumerate(read_history(model.file("history.jsonl"), model.remedy), start=1):
            step = int(epoch.pop("epoch", number))
            self.client.log_batch(run.run_id, metrics=_metrics(epoch, step), synchronous=True)
        self.client.set_terminated(run.run_id, status="FINISHED")
        # last, so that a recreation that was interrupted is not taken for a whole one
        self.client.set_tag(run.run_id, RECREATED_FROM, original)
        log.info("%s does not know MLflow run %s, so it was recreated as %s", self.address, original, run.run_id)
        return run.run_id


def split_of_data(
    split: str, content_digest: str, raw: Mapping[str, str], *, schema: str | None = None, profile: str | None = None
) -> "Dataset":
    """One split of a data set artifact as MLflow has data sets; `mlflow.data.get_source` tells where it is from.

    MLflow takes data of one name and one digest for the same. The digest is DVC's of the raw data, where it is known;
    the name tells apart what was made from them.

    Args:
        split: train, val or test.
        content_digest: of the artifact.
        raw: what is known of the version of its raw data.
        schema: columns, as JSON.
        profile: counts, as JSON.
    """
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.entities import Dataset

    return Dataset(
        name=f"{split}-{content_digest[:12]}",
        digest=raw.get("md5", content_digest)[:MAX_DIGEST],
        source_type="code",
        source=CodeDatasetSource(redact_all({"content_digest": content_digest, **raw})).to_json(),
        schema=schema,
        profile=profile,
    )


def unreachable_store(server: str, reason: str) -> BackendError:
    """The error about a store of MLflow's files that this machine cannot use itself."""
    return BackendError(
        f"the store that MLflow at {server} names for its files cannot be used from here: {reason}",
        f"set {' and '.join(DIRECT_TRANSFER)} to false (in a target: mlflow_direct_s3) to go through MLflow's server, "
        "or open a way to the store",
    )


def _metrics(metrics: Mapping[str, float], step: int) -> "list[Metric]":
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(name, float(value), now, step) for name, value in metrics.items()]


def _flatten(sections: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in sections.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = redact(str(value))[:MAX_PARAM]
    return flat


def despite_collisions(call: Callable[[], object]) -> None:
    """Call; again where another process that wants to write the same at the same moment had it refused.

    Args:
        call: a request to MLflow that may be repeated after it was refused.
    """
    for attempt in range(ATTEMPTS_AT_COLLISIONS):
        try:
            call()
        except _failures() as error:
            if not any(sign in str(error) for sign in COLLISIONS) or attempt == ATTEMPTS_AT_COLLISIONS - 1:
                raise
            time.sleep(0.1 * 2**attempt)
        else:
            return


def _probe_server(uri: str) -> None:
    from requests import HTTPError

    answer = _ask_server(uri, "/health")
    if answer.status_code >= 500:
        raise HTTPError(f"it answers {answer.status_code} {answer.reason}", response=answer)


def _ask_server(uri: str, path: str) -> Any:
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    return http_request(  # type: ignore[no-untyped-call]
        credentials, path, "GET", max_retries=1, timeout=PROBE_SECONDS, raise_on_status=False
    )


def _probe_database(uri: str) -> None:
    from sqlalchemy import NullPool, create_engine, make_url

    try:
        make_url(uri)
    except ValueError:  # of a port; its words may have a part of a password
        raise no_url(uri, name="MLFLOW_TRACKING_URI") from None
    file = _sqlite_file(uri)
    if file is None:
        with create_engine(uri, poolclass=NullPool).connect() as connection:
            if connection.dialect.name == "postgresql":
                _make_tables(uri, connection)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    if _is_new(file):
        _make_database(uri, file)
    _lock_database(uri)


def _lock_database(uri: str) -> None:
    from sqlalchemy import NullPool, create_engine

    with create_engine(uri, poolclass=NullPool, connect_args={"timeout": PROBE_SECONDS}).connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # takes the lock of a writer


def _make_tables(uri: str, connection: "Connection") -> None:
    """Make the tables of a new PostgreSQL database, one process at a time: MLflow's lock holds on one machine only."""
    from sqlalchemy import inspect

    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{MAKING_SECONDS:g}s'")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MAKING_KEY})")
    if not inspect(connection).has_table("alembic_version"):
        _open_store(uri)


def _open_store(uri: str) -> None:
    """Make the tables that MLflow lacks in a database, and its default experiment."""
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(uri, DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)  # type: ignore[no-untyped-call]
    store.engine.dispose()


def _make_database(uri: str, file: Path) -> None:
    """Make the tables of a new SQLite database, which appears whole: MLflow itself takes seconds for them.

    Two processes of MLflow that begin at the same moment disturb each other, and one that is killed leaves a database
    that none can use.
    """
    from sqlalchemy import make_url

    file = file.absolute()  # as errors of the lock name it
    lock = file.with_name(f"{file.name}.lock")
    draft = file.with_name(f"{file.name}.new")
    making = hold_lock(
        lock,
        busy="another process makes the tables of a new database",
        remedy="end it if it hangs, and run again",
        elsewhere="set MLFLOW_TRACKING_URI to a database on another disk",
        seconds=MAKING_SECONDS,
    )
    with writing(file), making:
        try:
            if not _is_new(file):  # the process that was waited for has made it
                return
            draft.unlink(missing_ok=True)  # of a killed one
            address = make_url(uri).set(database=str(draft)).render_as_string(hide_password=False)
            _lock_database(address)  # MLflow would try again for minutes
            _open_store(address)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)


def _is_new(file: Path) -> bool:
    return not file.exists() or file.stat().st_size == 0


def _sqlite_file(uri: str) -> Path | None:
    """The file of a database of SQLite; None: it is another one, or in memory, or named by a URI of SQLite's own."""
    from sqlalchemy import make_url

    if not uri.startswith("sqlite:"):
        return None
    name = make_url(uri).database or ":memory:"
    return None if name.startswith((":memory:", "file:")) else Path(name)


def _failures() -> tuple[type[Exception], ...]:
    """What MLflow raises when a server, a database or a disk fails."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError, ImportError)  # the last: no driver for this kind of database


def _store_failures() -> tuple[type[Exception], ...]:
    """What S3 raises where MLflow's server does not stand before it."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return (Boto3Error, BotoCoreError, ClientError)


def _not_permitted(error: Exception) -> bool:
    # calls about files raise what `requests` raises, or repeat its words
    code = getattr(error, "error_code", None)
    return code in ("PERMISSION_DENIED", "UNAUTHENTICATED") or bool(re.search(r"\b40[13] Client Error", str(error)))


# what SQLite says -> what the user can do
_SQLITE_REMEDIES = {
    "disk is full": "free some space on the disk of the file and run again",
    "disk I/O error": "check the disk of the file, its free space and `ulimit -f`, and run again",
    "readonly database": "change the permissions of the file and of its folder",
    "unable to open database file": "check that its folder can be written, and that `ulimit -n` is not used up",
}
# MLflow hands on failures of transfers as words alone
_DIRECT = re.compile(r"Failed to download \d+ chunk|Failed to upload at least one part")
_HOST = re.compile(r"host='([^']+)'")
_SILENT = re.compile(r"[Rr]ead timed out\.?(?: \(read timeout=(?P<seconds>[\d.]+)\))?|TimeoutError\('[^']*timed out'\)")
_ANSWERED = re.compile(
    r"\bit answers 5\d\d|\b5\d\d Server Error|\btoo many 5\d\d error|\berror code 5\d\d\b|\bINTERNAL_ERROR\b"
)


def _reason(error: Exception) -> str:
    *_, root = causes(error)
    # "connection refused" is clearer than what three libraries have wrapped around it
    return one_line(root if isinstance(root, OSError | sqlite3.Error) else error)

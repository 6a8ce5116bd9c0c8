"""A Kubeflow Pipelines server, spoken to with kfp's generated client, `kfp_server_api`.

`kfp.Client` wraps the same client, but knows no time-outs, follows redirects to a login page as if it were the answer,
prints, and has four retries and five tracebacks for a server that is not there.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import kfp_server_api
from urllib3 import Retry

from components.urls import split_url
from dagnn_core.errors import BackendError, DagnnError, InputError
from dagnn_core.redaction import redact
from pipeline.kubeflow.errors import LoginError, ServerFailedError, answering, is_missing
from pipeline.kubeflow.runs import whole_spec

_PAGE = 10
_LONG_PAGE = 50
_LOG = "/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log"  # version 2 of the API has none
_NO_LOG = (400, 404, 500)  # what servers answer for a log that is not there


class Health(NamedTuple):
    """What a server says of itself."""

    version: str
    """As `2.17.0`; empty where it does not say."""
    multi_user: bool


class NewRun(NamedTuple):
    """A run of a version of a pipeline."""

    name: str
    experiment_id: str
    pipeline_id: str
    version_id: str
    arguments: Mapping[str, str]
    service_account: str | None
    """Of the tasks' pods; None: Kubeflow's."""
    pipeline_root: str = ""
    """Where the artifacts go; empty: where the server's configuration says."""
    plugins_input: Mapping[str, Mapping[str, object]] = {}
    """What the server's plugins are told, by their names."""


@dataclass(frozen=True, kw_only=True)
class Kubeflow:
    """A server's API, for one user and namespace.

    Every method raises `InputError` where the server refuses the request as such, `BackendError` where it refuses
    the user, and `ServerFailedError` where it cannot be reached, does not answer in time or fails.
    """

    host: str
    """URL of the API or of the user interface before it, as https://kubeflow.example.org/pipeline."""
    namespace: str = ""
    """The user's, on a server with many users."""
    read_token: Callable[[], str] | None = field(default=None, repr=False)
    """Gives the bearer token; it is asked before each request, since tokens in files are renewed."""
    cookies: str = field(default="", repr=False)
    ca_file: str = ""
    """Certificates to trust; empty: those of the package `certifi`."""
    ui_host: str = ""
    """URL of the user interface; empty: `host`."""
    connect_timeout: float = 5.0
    """Seconds."""
    read_timeout: float = 60.0
    """Seconds."""
    pause: float = 0.5
    """Seconds before the second repetition of a request; doubles with each one."""

    def __post_init__(self) -> None:
        parts = split_url(self.host, name="--host or KF_PIPELINES_ENDPOINT")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                f"{redact(self.host)!r} is not the address of a Kubeflow server, expected a URL as "
                "https://kubeflow.example.org/pipeline",
                "correct --host or KF_PIPELINES_ENDPOINT",
            )
        if parts.username or parts.password:
            raise InputError(f"{self.address} has credentials in its URL", "give a token or cookies instead")
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it tells of every single retry

    @property
    def address(self) -> str:
        """The URL, fit to be shown."""
        return redact(self.host).rstrip("/")

    def page(self, path: str) -> str:
        """URL of a page of the user interface; empty where the server has none, as at the API's own port."""
        return f"{(self.ui_host or self.address).rstrip('/')}/#/{path}" if self.ui_host or self._has_page else ""

    def health(self) -> Health:
        """Version and mode; any user may ask."""
        api = kfp_server_api.HealthzServiceApi(self._client)
        # the version is not in the API's description, so the generated client would drop it
        answer = self._ask(lambda **options: api.healthz_service_get_healthz(**options).data, _preload_content=False)
        try:
            said = json.loads(answer)
            return Health(_version(str(said.get("tag_name", ""))), bool(said["multi_user"]))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise self._not_kubeflow() from error

    def check_access(self) -> None:
        """See that the server takes the credentials, and lets the user read in the namespace."""
        api = kfp_server_api.ExperimentServiceApi(self._client)
        self._ask(api.experiment_service_list_experiments, page_size=1, **self._in_namespace)

    def find_pipeline(self, name: str) -> str | None:
        """Id of a pipeline; None where there is none of this name."""
        api = kfp_server_api.PipelineServiceApi(self._client)
        found = self._find(api.pipeline_service_list_pipelines, "pipelines", name, self._in_namespace)
        return found and str(found.pipeline_id)

    def find_version(self, pipeline_id: str, name: str) -> str | None:
        """Id of a pipeline's version; None where there is none of this name."""
        api = kfp_server_api.PipelineServiceApi(self._client)
        found = self._find(
            api.pipeline_service_list_pipeline_versions, "pipeline_versions", name, {"pipeline_id": pipeline_id}
        )
        return found and str(found.pipeline_version_id)

    def find_experiment(self, name: str) -> str | None:
        """Id of an experiment; None where there is none of this name.

        Raises:
            InputError: it is archived.
        """
        api = kfp_server_api.ExperimentServiceApi(self._client)
        found = self._find(api.experiment_service_list_experiments, "experiments", name, self._in_namespace)
        if found and found.storage_state == "ARCHIVED":
            raise InputError(f"the experiment {name!r} is archived", "restore it, or name another with --experiment")
        return found and str(found.experiment_id)

    def find_recurring_run(self, experiment_id: str, pipeline_id: str, name: str) -> str | None:
        """Id of a pipeline's recurring run that is enabled; None where there is none of this name."""
        api = kfp_server_api.RecurringRunServiceApi(self._client)
        found = self._find(
            api.recurring_run_service_list_recurring_runs,
            "recurring_runs",
            name,
            {"experiment_id": experiment_id},
            wanted=lambda run: run.status == "ENABLED" and _pipeline_of(run) == pipeline_id,
        )
        return found and str(found.recurring_run_id)

    def find_version_name(self, pipeline_id: str, version_id: str) -> str | None:
        """Name of a pipeline's version; None where it was deleted."""
        api = kfp_server_api.PipelineServiceApi(self._client)
        try:
            return str(self._ask(api.pipeline_service_get_pipeline_version, pipeline_id, version_id).display_name)
        except InputError as error:
            if is_missing(error):
                return None
            raise

    def list_runs(self, experiment_id: str | None) -> Iterator[dict[str, Any]]:
        """Runs that are not archived, newest first, as JSON.

        Args:
            experiment_id: whose runs; None: those of all experiments.
        """
        api = kfp_server_api.RunServiceApi(self._client)
        owner = {"experiment_id": experiment_id} if experiment_id else self._in_namespace
        predicate = {"operation": "NOT_EQUALS", "key": "storage_state", "stringValue": "ARCHIVED"}
        return self._entries(api.run_service_list_runs, "runs", {**owner, "filter": _filter(predicate)})

    def list_recurring_runs(self) -> Iterator[dict[str, Any]]:
        """Recurring runs of all experiments, newest first, as JSON."""
        api = kfp_server_api.RecurringRunServiceApi(self._client)
        return self._entries(api.recurring_run_service_list_recurring_runs, "recurringRuns", self._in_namespace)

    def terminate_run(self, run_id: str) -> None:
        """Ask the server to end a run; it ends later."""
        self._ask(kfp_server_api.RunServiceApi(self._client).run_service_terminate_run, run_id)

    def retry_run(self, run_id: str) -> None:
        """Start a failed run again where it failed."""
        self._ask(kfp_server_api.RunServiceApi(self._client).run_service_retry_run, run_id)

    def enable_recurring_run(self, recurring_run_id: str, *, enabled: bool) -> None:
        """Have a recurring run start runs, or none."""
        api = kfp_server_api.RecurringRunServiceApi(self._client)
        change = (
            api.recurring_run_service_enable_recurring_run
            if enabled
            else api.recurring_run_service_disable_recurring_run
        )
        self._ask(change, recurring_run_id)

    def delete_recurring_run(self, recurring_run_id: str) -> None:
        """Delete a recurring run; the runs that it started stay."""
        api = kfp_server_api.RecurringRunServiceApi(self._client)
        self._ask(api.recurring_run_service_delete_recurring_run, recurring_run_id)

    def create_pipeline(self, name: str, description: str) -> str:
        """Make a pipeline without versions; its id."""
        api = kfp_server_api.PipelineServiceApi(self._client)
        pipeline = kfp_server_api.V2beta1Pipeline(
            name=name, display_name=name, description=description, **self._in_namespace
        )
        return str(self._ask(api.pipeline_service_create_pipeline, pipeline).pipeline_id)

    def upload_version(self, pipeline_id: str, package: Path, name: str) -> str:
        """Make a version of a pipeline of a compiled one; its id."""
        api = kfp_server_api.PipelineUploadServiceApi(self._client)
        made = self._ask(api.upload_pipeline_version, str(package), name=name, pipelineid=pipeline_id)
        return str(made.pipeline_version_id)

    def create_experiment(self, name: str) -> str:
        """Make an experiment; its id."""
        api = kfp_server_api.ExperimentServiceApi(self._client)
        experiment = kfp_server_api.V2beta1Experiment(display_name=name, **self._in_namespace)
        return str(self._ask(api.experiment_service_create_experiment, experiment).experiment_id)

    def create_run(self, run: NewRun) -> str:
        """Start a run; its id."""
        api = kfp_server_api.RunServiceApi(self._client)
        made = self._ask(api.run_service_create_run, kfp_server_api.V2beta1Run(**_fields(run)))
        return str(made.run_id)

    def create_recurring_run(self, run: NewRun, cron: str) -> str:
        """Start a run whenever a schedule says, one at a time, without those that were missed; its id.

        Args:
            run: what to start.
            cron: with six fields, the first for seconds, in UTC.
        """
        api = kfp_server_api.RecurringRunServiceApi(self._client)
        schedule = kfp_server_api.V2beta1CronSchedule(cron=cron)
        recurring_run = kfp_server_api.V2beta1RecurringRun(
            **_fields(run),
            mode="ENABLE",
            max_concurrency="1",
            no_catchup=True,
            trigger=kfp_server_api.V2beta1Trigger(cron_schedule=schedule),
        )
        made = self._ask(api.recurring_run_service_create_recurring_run, recurring_run)
        return str(made.recurring_run_id)

    def get_run(self, run_id: str) -> dict[str, Any]:
        """A run with the nodes of its workflow, as JSON; `runs.fold` makes tasks of them."""
        api = kfp_server_api.RunServiceApi(self._client)
        return self._ask_json(api.run_service_get_run, run_id)

    def get_spec(self, pipeline_id: str, version_id: str) -> dict[str, Any]:
        """The compiled pipeline of a version, with its platforms' parts as `platforms`."""
        api = kfp_server_api.PipelineServiceApi(self._client)
        version = self._ask_json(api.pipeline_service_get_pipeline_version, pipeline_id, version_id)
        return whole_spec(version)

    def read_log(self, run_id: str, pod: str) -> str | None:
        """What a pod of a run wrote, so far; None where it wrote nothing yet, or its log is no longer there."""
        try:
            return self._get_text(_LOG, {"run_id": run_id, "pod": pod})
        except (InputError, ServerFailedError) as error:
            cause = error.__cause__
            if isinstance(cause, kfp_server_api.ApiException) and cause.status in _NO_LOG:
                return None
            raise

    @cached_property
    def _has_page(self) -> bool:
        try:
            self._get_text("/", {})
        except DagnnError as error:
            return isinstance(error, LoginError)
        return True

    @property
    def _in_namespace(self) -> dict[str, str]:
        return {"namespace": self.namespace} if self.namespace else {}

    @cached_property
    def _client(self) -> kfp_server_api.ApiClient:
        configuration = kfp_server_api.Configuration(host=self.host.rstrip("/"))
        configuration.ssl_ca_cert = self.ca_file or None
        configuration.retries = Retry(
            total=3,
            redirect=0,  # to a login page: the credentials are not taken
            status_forcelist=(502, 503, 504),
            allowed_methods=("GET",),  # what may exist is not created again
            backoff_factor=self.pause,
            raise_on_redirect=False,
            raise_on_status=False,
        )
        read_token = self.read_token
        if read_token is not None:
            configuration.api_key_prefix["authorization"] = "Bearer"
            configuration.api_key["authorization"] = "read before each request"
            configuration.refresh_api_key_hook = lambda config: config.api_key.update(authorization=read_token())
        return kfp_server_api.ApiClient(configuration, cookie=self.cookies or None)

    def _ask(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        has_credentials = bool(self.read_token or self.cookies)
        with answering(self.address, namespace=self.namespace, has_credentials=has_credentials):
            return function(*arguments, _request_timeout=(self.connect_timeout, self.read_timeout), **options)

    def _ask_json(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> dict[str, Any]:
        """The answer as it is: the generated client's objects drop and rename fields."""
        answer = self._ask(function, *arguments, _preload_content=False, **options).data
        try:
            return dict(json.loads(answer))
        except (ValueError, TypeError) as error:
            raise self._not_kubeflow() from error

    def _not_kubeflow(self) -> InputError:
        return InputError(
            f"{self.address} answers, but not as Kubeflow Pipelines does; expected the address of its API or user "
            "interface, as https://kubeflow.example.org/pipeline",
            "correct --host or KF_PIPELINES_ENDPOINT",
        )

    def _entries(self, function: Callable[..., Any], kind: str, options: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """The entries of a list through all its pages, newest first."""
        page_token = ""
        while True:
            page = self._ask_json(
                function, sort_by="created_at desc", page_size=_LONG_PAGE, page_token=page_token, **options
            )
            yield from page.get(kind) or []
            page_token = page.get("next_page_token") or ""
            if not page_token:
                return

    def _get_text(self, path: str, parameters: Mapping[str, str]) -> str:
        """An answer of text, from a path that the API's description does not have."""
        answer = self._ask(
            self._client.call_api,
            path,
            "GET",
            dict(parameters),
            header_params={"Accept": "text/plain, text/html"},
            auth_settings=["Bearer"],
            _preload_content=False,
            _return_http_data_only=True,
        )
        return answer.data.decode(errors="replace")  # type: ignore[no-any-return]

    def _find(
        self,
        function: Callable[..., Any],
        kind: str,
        name: str,
        options: Mapping[str, str],
        wanted: Callable[[Any], bool] = lambda entry: True,
    ) -> Any:
        """The entry of a list that has a name, through all its pages."""
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        page_token = ""
        while True:
            page = self._ask(
                function,
                filter=_filter(predicate),
                page_size=_PAGE,
                page_token=page_token,
                **options,
            )
            for entry in getattr(page, kind) or []:
                if entry.display_name == name and wanted(entry):
                    return entry
            page_token = page.next_page_token
            if not page_token:
                return None


def check_versions(sdk: str, server: str) -> None:
    """See that a server understands what this SDK compiles: fields that it does not know are errors there.

    Args:
        sdk: version of kfp.
        server: version of the server; empty where it does not say.

    Raises:
        BackendError: the SDK is of a later minor version.
    """
    if server and _minor(sdk) > _minor(server):
        major, minor = _minor(server)
        raise BackendError(
            f"the server is Kubeflow Pipelines {server}, older than kfp {sdk} here, whose pipelines it may not "
            f"understand",
            f'upgrade the server, or pin "kfp>={major}.{minor},<{major}.{minor + 1}" (and kfp-server-api, '
            "kfp-pipeline-spec and kfp-kubernetes likewise)",
        )


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _version(tag: str) -> str:
    found = re.search(r"\d+\.\d+(\.\d+)?\S*", tag)
    return found[0] if found else ""


def _pipeline_of(entry: Any) -> str:
    reference = entry.pipeline_version_reference
    return str(reference.pipeline_id) if reference else ""


def _filter(predicate: Mapping[str, str]) -> str:
    return quote(json.dumps({"predicates": [predicate]}))  # the server unescapes it twice


def _fields(run: NewRun) -> dict[str, Any]:
    """What runs and recurring runs have in common."""
    return {
        "display_name": run.name,
        "experiment_id": run.experiment_id,
        "pipeline_version_reference": kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=run.pipeline_id, pipeline_version_id=run.version_id
        ),
        "runtime_config": kfp_server_api.V2beta1RuntimeConfig(
            parameters=dict(run.arguments), pipeline_root=run.pipeline_root or None
        ),
        "service_account": run.service_account,
        "plugins_input": {name: dict(values) for name, values in run.plugins_input.items()} or None,
    }

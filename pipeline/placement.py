"""What the tasks need on a cluster: resources, retries, addresses, and credentials, which are references alone."""

from kfp import dsl, kubernetes

from components.services.storage.patience import ENVIRONMENT as PATIENCE
from components.services.tracking.mlflow import DIRECT_TRANSFER
from pipeline.step_table import STEPS, Step
from pipeline.target import Target

_FIRST_WAIT = 30  # seconds between the first attempt at a task and the second
_WAIT_FACTOR = 2
_QUEUE_SECONDS = 86_400  # for which an attempt's pod may wait for a node
_RUN_ID = "metadata.labels['pipeline/runid']"  # Kubeflow's; a parameter with it would keep tasks from being cached


def place(task: dsl.PipelineTask, name: str, target: Target) -> None:
    """Tell Kubernetes what a task needs.

    Args:
        task: the task.
        name: of its step.
        target: the cluster.
    """
    needs = STEPS[name]
    resources = getattr(target, needs.size)
    task.set_cpu_request(resources.cpu_request).set_cpu_limit(resources.cpu_limit)
    task.set_memory_request(resources.memory_request).set_memory_limit(resources.memory_limit)
    _limit_time(task, needs, getattr(target, f"{needs.size}_seconds"))
    if needs.size != "light":  # processes that decode images hand them over in shared memory
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", "Memory", target.shared_memory)  # noqa: S108
    kubernetes.use_field_path_as_env(task, "DAGNN_PIPELINE_RUN", _RUN_ID)
    if needs.mlflow:
        _reach_mlflow(task, target)
    if needs.s3:
        _reach_s3(task, target)
    if needs.mlflow or needs.s3:
        task.set_env_variable(PATIENCE, str(target.backend_patience))
    if name == "train":
        _give_gpus(task, target)
    if name == "record_outcome":
        task.set_env_variable("DAGNN_KUBEFLOW_URL", target.kubeflow_url)
        if target.webhook_secret:
            kubernetes.use_secret_as_env(task, target.webhook_secret, {"url": "DAGNN_WEBHOOK_URL"})


def _limit_time(task: dsl.PipelineTask, needs: Step, seconds: int) -> None:
    """Limit the time of each attempt at a task, and give all of its attempts together the time that they may need.

    `backoff_max_duration` is Argo's `maxDuration`: counted from the first attempt's start, it ends whatever runs then.
    """
    kubernetes.set_timeout(task, seconds)
    if not needs.retries:
        return
    waits = sum(_FIRST_WAIT * _WAIT_FACTOR**attempt for attempt in range(needs.retries))
    total = (seconds + _QUEUE_SECONDS) * (needs.retries + 1) + waits
    task.set_retry(
        needs.retries,
        backoff_duration=f"{_FIRST_WAIT}s",
        backoff_factor=_WAIT_FACTOR,
        backoff_max_duration=f"{total}s",
    )


def _reach_mlflow(task: dsl.PipelineTask, target: Target) -> None:
    task.set_env_variable("MLFLOW_TRACKING_URI", target.mlflow_uri)
    task.set_env_variable("MLFLOW_EXPERIMENT_NAME", target.experiment)
    for name in DIRECT_TRANSFER:
        task.set_env_variable(name, str(target.mlflow_direct_s3).lower())
    if target.mlflow_secret:
        keys = {"username": "MLFLOW_TRACKING_USERNAME", "password": "MLFLOW_TRACKING_PASSWORD"}
        kubernetes.use_secret_as_env(task, target.mlflow_secret, keys)


def _reach_s3(task: dsl.PipelineTask, target: Target) -> None:
    task.set_env_variable("AWS_DEFAULT_REGION", target.s3_region)
    if target.s3_endpoint_url:
        task.set_env_variable("AWS_ENDPOINT_URL_S3", target.s3_endpoint_url)
        for direction in ("REQUEST_CHECKSUM_CALCULATION", "RESPONSE_CHECKSUM_VALIDATION"):
            task.set_env_variable(f"AWS_{direction}", "when_required")  # other stores refuse AWS's newer checksums
    if target.s3_secret:
        keys = {"access-key": "AWS_ACCESS_KEY_ID", "secret-key": "AWS_SECRET_ACCESS_KEY"}
        kubernetes.use_secret_as_env(task, target.s3_secret, keys)


def _give_gpus(task: dsl.PipelineTask, target: Target) -> None:
    if not target.gpu.count:
        return
    # both: the type alone asks for none
    task.set_accelerator_type(target.gpu.type).set_accelerator_limit(target.gpu.count)
    for label in target.gpu.node_selector:
        kubernetes.add_node_selector(task, *label.split("=", 1))
    if target.gpu.toleration:
        kubernetes.add_toleration(task, key=target.gpu.toleration, operator="Exists", effect="NoSchedule")

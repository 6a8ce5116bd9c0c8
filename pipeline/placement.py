"""Tell Kubeflow what a task's pod asks for: `pipeline.pods` says it, kfp's functions write it into the pipeline."""

from kfp import dsl, kubernetes

from pipeline.pods import CA_FOLDER, WRITABLE, PodRequest, task_request
from pipeline.step_table import STEPS
from pipeline.target import Target
from pipeline.trainer.manifests import NODES, POD, POD_UID, TEMPLATE, write_template

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
    request = task_request(name, target)
    resources = request.resources
    task.set_cpu_request(resources.cpu_request).set_cpu_limit(resources.cpu_limit)
    task.set_memory_request(resources.memory_request).set_memory_limit(resources.memory_limit)
    if request.gpus:
        kind, count = request.gpus
        task.set_accelerator_type(kind).set_accelerator_limit(count)  # both: the type alone asks for none
    _limit_time(task, request.seconds, STEPS[name].retries)
    _choose_nodes(task, request)
    _mount(task, request)
    _describe(task, request)
    for variable, value in request.env.items():
        task.set_env_variable(variable, value)
    kubernetes.use_field_path_as_env(task, "DAGNN_PIPELINE_RUN", _RUN_ID)
    if name == "train" and target.num_processes > 1:
        task.set_env_variable(TEMPLATE, write_template(target))
        kubernetes.use_field_path_as_env(task, POD, "metadata.name")
        kubernetes.use_field_path_as_env(task, POD_UID, "metadata.uid")
    if name == "record_outcome" and target.num_processes > 1:
        task.set_env_variable(NODES, str(target.train.nodes))
    for variable, (secret, key) in request.secret_env.items():
        kubernetes.use_secret_as_env(task, secret, {key: variable})


def _limit_time(task: dsl.PipelineTask, seconds: int, retries: int) -> None:
    """Limit the time of each attempt at a task, and give all of its attempts together the time that they may need.

    `backoff_max_duration` is Argo's `maxDuration`: counted from the first attempt's start, it ends whatever runs then.
    """
    kubernetes.set_timeout(task, seconds)
    if not retries:
        return
    waits = sum(_FIRST_WAIT * _WAIT_FACTOR**attempt for attempt in range(retries))
    total = (seconds + _QUEUE_SECONDS) * (retries + 1) + waits
    task.set_retry(
        retries,
        backoff_duration=f"{_FIRST_WAIT}s",
        backoff_factor=_WAIT_FACTOR,
        backoff_max_duration=f"{total}s",
    )


def _choose_nodes(task: dsl.PipelineTask, request: PodRequest) -> None:
    for key, value in request.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for key, taint, effect in request.tolerations:
        operator = "Exists" if taint is None else "Equal"
        kubernetes.add_toleration(task, key=key, operator=operator, value=taint, effect=effect or None)


def _mount(task: dsl.PipelineTask, request: PodRequest) -> None:
    if request.shared_memory:
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", "Memory", request.shared_memory)  # noqa: S108
    if request.scratch.size:
        kubernetes.add_ephemeral_volume(
            task,
            volume_name="scratch",
            mount_path=WRITABLE,
            access_modes=["ReadWriteOnce"],
            size=request.scratch.size,
            storage_class_name=request.scratch.storage_class or None,
        )
    if request.ca.name:
        kubernetes.use_config_map_as_volume(task, request.ca.name, CA_FOLDER)


def _describe(task: dsl.PipelineTask, request: PodRequest) -> None:
    for key, value in request.labels.items():
        kubernetes.add_pod_label(task, key, value)
    for key, value in request.annotations.items():
        kubernetes.add_pod_annotation(task, key, value)
    if request.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(request.image_pull_secrets))

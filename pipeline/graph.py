"""The Kubeflow pipeline: its tasks, and what flows between them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Model
from kfp.dsl.base_component import BaseComponent

from components.locations import CACHE, SCRATCH, WORK
from dagnn_core.artifacts import canonical_json
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.config.section import section_json
from dagnn_core.config.space import Space
from dagnn_core.errors import InputError
from dagnn_core.redaction import without_credentials
from pipeline.images import Images
from pipeline.placement import place
from pipeline.pods import WRITABLE
from pipeline.step_table import STEPS
from pipeline.steps import build_steps
from pipeline.target import Target

Start = Callable[..., dsl.PipelineTask]
"""Makes a task of a step's name and its inputs."""

_PROCESSES = Images(tasks="none", train="none")  # kfp wants a name, which nothing looks up


class RawDataVersion(NamedTuple):
    """Raw data that a run begins with: under DVC, known by its md5, or a folder in S3 as it is.

    The fields are parameters of the pipeline, named `data_...`.
    """

    md5: str = ""
    """DVC's digest."""
    remote: str = ""
    """`s3://bucket/prefix` of the DVC remote."""
    endpoint_url: str = ""
    """Of the store of either, as tasks reach it; empty: AWS."""
    repository: str = ""
    """Where the digest was found: path or URL of the DVC repository, ..."""
    revision: str = ""
    """... commit ..."""
    path: str = ""
    """... and path; all three for the record."""
    uri: str = ""
    """`s3://bucket/prefix` of a folder that is not under DVC."""


class WorkersOfSearch(NamedTuple):
    """A search for values of the configuration, by several workers that share a database."""

    space: Space
    name: str
    """In the database; the same name again resumes."""
    workers: int
    """Trials that train at the same time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineOptions:
    """What is chosen before a run and shapes the graph; all else is a parameter of the pipeline."""

    raw: RawDataVersion | None = None
    """Raw data to begin with; None: `dataset.source` is in the image, or on this machine."""
    seeds: tuple[int, ...] = ()
    """Instead of `train.seed`; with each of several a model is trained, and the best on val is registered."""
    promote: bool = False
    """Whether the run ends with the promotion of the registered version."""
    search: WorkersOfSearch | None = None
    """In place of the training and all that follows."""
    check: bool = False
    """Whether the data set is checked before it is trained on."""
    champion_dataset: str = ""
    """URI of the champion's data set, which it is checked against; empty: there is none."""

    def __post_init__(self) -> None:
        if self.search and (self.seeds or self.promote):
            raise InputError(
                "a search trains with the seeds of its space, and registers no model", "leave out --seed and --promote"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError(
                f"seeds must differ, got {', '.join(map(str, self.seeds))}", "leave out what is there twice"
            )


class Extraction(NamedTuple):
    """How the features are extracted."""

    num_tasks: int
    """That share the images and texts; with 1 there is nothing to share."""
    by_range: bool
    """Whether these tasks read in the store what they need of the data set, which Kubeflow then does not bring them."""


class Outputs(NamedTuple):
    """What a run on this machine ends with: the model, its report, and the registered version."""

    model: Model
    report: Artifact
    name: str
    version: str


def build_pipeline(
    *,
    images: Images | None,
    params: Mapping[str, object],
    target: Target | None = None,
    options: PipelineOptions = PipelineOptions(),  # frozen
) -> BaseComponent:
    """The pipeline; its parameters are texts, with one for each section of `params.yaml`, as JSON.

    Args:
        images: references of the container images that the tasks run in; None: in processes of this machine.
        params: the sections; they become the defaults, so that a submitted run shows them and can override them.
        target: the cluster; None: this machine, where no outcome is recorded and the pipeline has `Outputs`.
        options: what else the graph has.
    """
    defaults = _defaults(params, target, options)
    start = starter(images, target)
    features = params["features"]
    assert isinstance(features, FeaturesConfig)
    extraction = Extraction(features.shards, by_range=target is not None and target.has_artifacts_in_s3)

    def dagnn(*values: Any) -> Outputs | None:
        given = dict(zip(defaults, values, strict=True))
        if target is None:
            return _chain(start, given, options, extraction)
        last = "tune" if options.search else "promote" if options.promote else "register"
        outcome = start("record_outcome", last_task=last)
        with dsl.ExitHandler(outcome):
            if options.search:
                _search(start, given, options, options.search, extraction)
            else:
                _chain(start, given, options, extraction)  # kfp lets nothing out of an exit handler
        return None

    # kfp reads the pipeline's parameters from the signature: it shall have those that this graph uses
    dagnn.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=text, annotation=str)
            for name, text in defaults.items()
        ],
        return_annotation=Outputs if target is None else Signature.empty,
    )
    decorate = dsl.pipeline(
        name="dagnn",
        description="From raw images and texts to a registered model",
        pipeline_root=(target and target.pipeline_root) or None,
    )
    pipeline: BaseComponent = decorate(dagnn)
    return pipeline


def starter(images: Images | None, target: Target | None) -> Callable[..., dsl.PipelineTask]:
    """A function that makes a task of a step's name and inputs, with all that does not depend on the graph.

    Args:
        images: references of the container images that the tasks run in; None: in processes of this machine.
        target: the cluster; None: this machine.
    """
    step = build_steps(images or _PROCESSES)

    def start(name: str, /, **inputs: Any) -> dsl.PipelineTask:
        task = step[name](**inputs).set_display_name(STEPS[name].title)
        task.set_caching_options(STEPS[name].cached)
        if images:
            task.set_env_variable("DAGNN_IMAGE", images.of(name))
        if target:
            place(task, name, target)
        return task

    return start


def _defaults(params: Mapping[str, object], target: Target | None, options: PipelineOptions) -> dict[str, str]:
    """The parameters of the pipeline."""
    scratch = Path(WRITABLE, "dagnn") if target else SCRATCH
    defaults = {name: without_credentials(section_json(section)) for name, section in params.items()}
    defaults |= {"model_name": "", "cache": str(scratch / CACHE.name), "work": str(scratch / WORK.name)}
    if options.raw:
        defaults |= {f"data_{name}": text for name, text in options.raw._asdict().items()}
    if options.check:
        defaults["accept_drift"] = ""
        if options.champion_dataset:
            defaults["champion_dataset"] = options.champion_dataset
    if options.search:
        for name in ("evaluate", "register", "model_name"):
            del defaults[name]
        return defaults | {"space": canonical_json(options.search.space.plain), "search": options.search.name}
    if len(options.seeds) <= 1:
        defaults["seed"] = "".join(map(str, options.seeds))
    if target:
        defaults["checkpoints"] = target.checkpoints
    return defaults


def _prepare(
    start: Start, given: Mapping[str, Any], options: PipelineOptions, extraction: Extraction, champion_data: Any = None
) -> dict[str, Any]:
    """The tasks from raw data to what a training reads.

    Args:
        start: makes a task.
        given: the parameters of the pipeline.
        options: what the graph has.
        extraction: how the features are extracted.
        champion_data: what the data set is checked against, where the champion has any.

    Returns:
        The artifacts `dataset`, `features` and `label_graph`.
    """
    source = {}
    if options.raw:
        fetched = start("fetch_dataset", **{name: given[f"data_{name}"] for name in options.raw._fields})
        fetched.set_caching_options(bool(options.raw.md5))  # what lies at a URI may change
        source = {"raw": fetched.outputs["raw_out"]}
    made = start("dataset", params=given["dataset"], work=given["work"], **source).outputs
    data = made["dataset_out"]
    checks = []
    if options.check:
        against = {"against": champion_data} if champion_data else {}
        checks = [start("check_data", dataset=data, accept_drift=given["accept_drift"], **against)]
    read, parts = {"dataset": data}, {}
    if extraction.num_tasks > 1:
        if extraction.by_range:
            # the digest keeps Kubeflow from taking for cached what was made of something else
            read = {"dataset_uri": made["uri"], "dataset_digest": made["digest"]}
        with dsl.ParallelFor([str(index) for index in range(extraction.num_tasks)]) as index:
            shard = start("extract_shard", **read, params=given["features"], index=index).after(*checks)
        parts = {"shards": dsl.Collected(shard.outputs["shard_out"])}
    extracted = start("extract_features", **read, params=given["features"], cache=given["cache"], **parts).after(
        *checks
    )
    graph = start("build_label_graph", dataset=data, params=given["label_graph"]).after(*checks)
    return {
        "dataset": data,
        "features": extracted.outputs["features_out"],
        "label_graph": graph.outputs["label_graph_out"],
    }


def _search(
    start: Start, given: Mapping[str, Any], options: PipelineOptions, search: WorkersOfSearch, extraction: Extraction
) -> None:
    """All tasks, from raw data to the end of a search."""
    made = _prepare(start, given, options, extraction, _champion_data(given))
    if not search.space.has_label_graph:
        del made["dataset"]  # it may be large, and every worker would fetch it
    with dsl.ParallelFor([str(number) for number in range(1, search.workers + 1)]) as worker:
        start(
            "tune",
            **made,
            space=given["space"],
            label_graph_params=given["label_graph"],
            model_params=given["model"],
            params=given["train"],
            name=given["search"],
            worker=worker,
            work=given["work"],
        )


def _chain(start: Start, given: Mapping[str, Any], options: PipelineOptions, extraction: Extraction) -> Outputs:
    """All tasks, from raw data to the registry.

    Args:
        start: makes a task.
        given: the parameters of the pipeline.
        options: what the graph has.
        extraction: how the features are extracted.
    """
    champion_data = _champion_data(given)
    made = _prepare(start, given, options, extraction, champion_data)
    data, features = made["dataset"], made["features"]
    training = {
        "features": features,
        "label_graph": made["label_graph"],
        "model_params": given["model"],
        "params": given["train"],
        "work": given["work"],
        "checkpoints_uri": given.get("checkpoints", ""),
    }
    if len(options.seeds) > 1:
        # a training in a loop is not tried again by back ends that overlook its retries (kubeflow/pipelines#13897)
        with dsl.ParallelFor([str(seed) for seed in options.seeds]) as seed:
            trained = start("train", **training, seed=seed)
        trained = start("select_model", models=dsl.Collected(trained.outputs["model_out"]))
    else:
        trained = start("train", **training, seed=given["seed"])
    model = trained.outputs["model_out"]
    evaluated = start("evaluate", dataset=data, features=features, model=model, params=given["evaluate"])
    report = evaluated.outputs["report_out"]
    naming = {"params": given["register"], "model_name": given["model_name"]}
    registered = start("register", model=model, report=report, **naming)
    if champion_data:
        registered.after(start("compare", dataset=data, model=model, champion_dataset=champion_data, **naming))
    version = registered.outputs
    if options.promote:
        start("promote", name=version["name"], version=version["version"], dataset=data, params=given["register"])
    return Outputs(model=model, report=report, name=version["name"], version=version["version"])


def _champion_data(given: Mapping[str, Any]) -> Any:
    """The champion's data set; None where the run names none."""
    if "champion_dataset" not in given:
        return None
    imported = dsl.importer(artifact_uri=given["champion_dataset"], artifact_class=Dataset, reimport=False)
    imported.set_display_name("Champion's data set")
    return imported.output

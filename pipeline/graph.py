"""The Kubeflow pipeline: the six tasks, and what flows between them."""

from collections.abc import Mapping
from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Model
from kfp.dsl.base_component import BaseComponent

from dagnn_core.config import section_json
from pipeline.images import Images
from pipeline.steps import build_steps

DISPLAY_NAMES = {
    "dataset": "Data set",
    "extract_features": "Features",
    "build_label_graph": "Label graph",
    "train": "Train",
    "evaluate": "Evaluate",
    "register": "Register",
}


class Outputs(NamedTuple):
    """What a run ends with: the model, its report, and the registered version."""

    model: Model
    report: Artifact
    name: str
    version: str


def build_pipeline(*, images: Images, params: Mapping[str, object]) -> BaseComponent:
    """The pipeline, with one parameter for each section of `params.yaml`, as JSON text.

    Args:
        images: references of the container images that the tasks run in.
        params: the sections; they become the defaults, so that a submitted run shows them and can override them.
    """
    step = build_steps(images)
    default = {name: section_json(section) for name, section in params.items()}

    @dsl.pipeline(name="dagnn", description="From raw pictures and sentences to a registered model")  # type: ignore[untyped-decorator]
    def dagnn(  # noqa: PLR0917  # kfp calls it with positions
        dataset: str = default["dataset"],
        features: str = default["features"],
        label_graph: str = default["label_graph"],
        model: str = default["model"],
        train: str = default["train"],
        evaluate: str = default["evaluate"],
        register: str = default["register"],
        cache: str = ".dagnn/cache",
        work: str = ".dagnn/work",
    ) -> Outputs:
        data = step["dataset"](params=dataset, work=work)
        data_out = data.outputs["dataset_out"]
        extracted = step["extract_features"](dataset=data_out, params=features, cache=cache)
        features_out = extracted.outputs["features_out"]
        graph = step["build_label_graph"](dataset=data_out, params=label_graph)
        trained = step["train"](
            features=features_out,
            label_graph=graph.outputs["label_graph_out"],
            model_params=model,
            params=train,
            work=work,
        )
        model_out = trained.outputs["model_out"]
        evaluated = step["evaluate"](dataset=data_out, features=features_out, model=model_out, params=evaluate)
        report_out = evaluated.outputs["report_out"]
        registered = step["register"](model=model_out, report=report_out, params=register)
        registered.set_caching_options(False)  # the registry is outside: a cached version number may be gone
        for task in (data, extracted, graph, trained, evaluated, registered):
            task.set_display_name(DISPLAY_NAMES[task.name.replace("-", "_")])
        return Outputs(
            model=model_out,
            report=report_out,
            name=registered.outputs["name"],
            version=registered.outputs["version"],
        )

    return dagnn

"""DAGNN: multi-label cross-modal retrieval, as a library.

The public names, each with its documentation where it is defined:

- artifacts, opened with `NAME.read(folder)`: `Dataset`, `Features`, `LabelGraph`, and `TrainedModel`, which embeds new
  images and texts;
- configuration, one class for each section of `params.yaml` that a library user needs: `ModelConfig`, `TrainConfig`;
- training: `read_split` and `graph_tensors` make tensors of artifacts, `build_network` makes an untrained network,
  `train` trains one;
- search: `SearchIndex` finds the items of a collection that fit a text or an image;
- retrieval: `rank_gallery` ranks the items of one modality for queries of the other, `evaluate_retrieval` measures;
- errors: `DagnnError` is the base of all, `InputError` and `ArtifactError` say what is wrong with the input.

    from pathlib import Path
    from dagnn_core import TrainedModel, rank_gallery

    model = TrainedModel.read(Path("artifacts/model"))
    images = model.encode_images([path.read_bytes() for path in paths])
    ranking = rank_gallery(model.encode_texts(["a boat on the sea at night"]), images)

Each name is imported when it is first used: `import dagnn_core` loads neither torch nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagnn_core.config.model import ModelConfig as ModelConfig
    from dagnn_core.config.train import TrainConfig as TrainConfig
    from dagnn_core.data.dataset import Dataset as Dataset
    from dagnn_core.errors import ArtifactError as ArtifactError
    from dagnn_core.errors import DagnnError as DagnnError
    from dagnn_core.errors import InputError as InputError
    from dagnn_core.features.features import Features as Features
    from dagnn_core.label_graph.label_graph import LabelGraph as LabelGraph
    from dagnn_core.model.embedder import TrainedModel as TrainedModel
    from dagnn_core.model.kinds import build_network as build_network
    from dagnn_core.retrieval.metrics import evaluate_retrieval as evaluate_retrieval
    from dagnn_core.retrieval.metrics import rank_gallery as rank_gallery
    from dagnn_core.search.index import SearchIndex as SearchIndex
    from dagnn_core.training.inputs import graph_tensors as graph_tensors
    from dagnn_core.training.inputs import read_split as read_split
    from dagnn_core.training.loop import train as train

_MODULES = {
    "ArtifactError": "errors",
    "DagnnError": "errors",
    "Dataset": "data.dataset",
    "Features": "features.features",
    "InputError": "errors",
    "LabelGraph": "label_graph.label_graph",
    "ModelConfig": "config.model",
    "SearchIndex": "search.index",
    "TrainConfig": "config.train",
    "TrainedModel": "model.embedder",
    "build_network": "model.kinds",
    "evaluate_retrieval": "retrieval.metrics",
    "graph_tensors": "training.inputs",
    "rank_gallery": "retrieval.metrics",
    "read_split": "training.inputs",
    "train": "training.loop",
}
"""Public name -> the module of this package that has it."""

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value  # the next time it is found without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

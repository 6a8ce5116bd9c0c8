"""The tasks of the Kubeflow pipeline: one row for each step.

A new step is its module in `components/steps`, its thin function in `pipeline/steps.py`, its row here, and its place in
`pipeline/graph.py`.
"""

from typing import Literal, NamedTuple


class Step(NamedTuple):
    """What the pipeline knows of a step."""

    title: str
    """Shown in Kubeflow's page."""
    size: Literal["light", "heavy", "train"]
    """Which resources and time limit of the target it gets."""
    retries: int = 2
    """Further attempts after a lost pod; 0 where doing it twice is not as good as once."""
    cached: bool = True
    """Whether its result is a function of its inputs, and may come from Kubeflow's cache."""
    mlflow: bool = False
    """Whether it needs the tracking server."""
    s3: bool = False
    """Whether it needs the S3 store itself; artifacts are Kubeflow's business."""
    by_range: bool = False
    """Whether it reads a part of the data set in the store, where the target's tasks can."""


STEPS = {
    "fetch_dataset": Step("Raw data", "light", s3=True),
    "dataset": Step("Data set", "heavy"),
    "check_data": Step("Check", "heavy"),
    "extract_shard": Step("Features, a part", "heavy", by_range=True),
    "extract_features": Step("Features", "heavy", by_range=True),  # where it joins parts
    "build_label_graph": Step("Label graph", "heavy"),
    "train": Step("Train", "train", retries=3, mlflow=True, s3=True),  # a retry is cheap: it resumes
    "tune": Step("Search", "train", retries=3, cached=False, mlflow=True),  # a retry resumes
    "select_model": Step("Best model", "light"),
    "evaluate": Step("Evaluate", "heavy", mlflow=True),
    "compare": Step("Compare", "heavy", cached=False, mlflow=True),
    "register": Step("Register", "light", cached=False, mlflow=True),  # the same model again keeps its version
    "promote": Step("Promote", "heavy", retries=0, cached=False, mlflow=True),  # every try is a record
    "record_outcome": Step("Outcome", "light", retries=0, cached=False, mlflow=True),
}

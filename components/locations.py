"""Folders of a project, relative to its root: where commands put what they make, and look for it."""

from pathlib import Path

DATA = Path("data")
"""Raw data; DVC tracks what lies in it."""

ARTIFACTS = Path("artifacts")
"""What the DVC stages make, one folder for each kind of artifact."""
DATASET = ARTIFACTS / "dataset"
FEATURES = ARTIFACTS / "features"
LABEL_GRAPH = ARTIFACTS / "label_graph"
MODEL = ARTIFACTS / "model"
REPORT = ARTIFACTS / "report"

INDEX = Path("index")
"""What `dagnn search` looks in."""

# what may be deleted between runs
SCRATCH = Path(".dagnn")
WORK = SCRATCH / "work"
"""Unfinished work, from which an interrupted step resumes."""
CACHE = SCRATCH / "cache"
"""Vectors of images and texts, which later runs use again."""
RUNS = SCRATCH / "runs"
"""Runs of the pipeline on this machine: artifacts and logs."""
RETRAINING = SCRATCH / "retrain"
"""Retrainings under way, from which `dagnn retrain` resumes."""
ADDING = SCRATCH / "add"
"""Raw data on its way into `DATA`."""
FETCHED = SCRATCH / "datasets"
"""Data sets that were fetched to judge a model, by content digest."""
MODELS = SCRATCH / "models"
"""Models of registered versions that were fetched to be used, by content digest."""
INDICES = SCRATCH / "indices"
"""Indices that were fetched from S3 to be used, by content digest."""
INDEX_WORK = SCRATCH / "index"
"""Finished shards of an index that is being built."""

"""Step `tune`: search values of `label_graph`, `model` and `train` that give the highest validation MAP.

All trials share the features. What a trial trains is what `train` trains with the same values and seed, to the bit, so
the model itself is not kept. The test split is never read.
"""

import logging
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from components.services.lineage.provenance import provenance
from components.services.tracking.mlflow import NAME, PARENT, Run, Tracking
from components.services.tuning.study import Draw, PrunedError, Study, open_study
from dagnn_core.artifacts import Artifact, digest_of_values, write_artifact, write_json
from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.config.section import section_json
from dagnn_core.config.space import Sections, Space, apply
from dagnn_core.data.dataset import Dataset
from dagnn_core.devices import choose_device, describe_machine
from dagnn_core.disk import writing
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.features import Features
from dagnn_core.label_graph.build import write_label_graph
from dagnn_core.label_graph.label_graph import KIND as LABEL_GRAPH
from dagnn_core.label_graph.label_graph import LabelGraph
from dagnn_core.nn.label_graphs import GraphTensors
from dagnn_core.reports.tuning.page import render_page
from dagnn_core.reports.tuning.search import Search, Trial
from dagnn_core.training.inputs import check_same_dataset, graph_tensors, read_split
from dagnn_core.training.loop import MetricLogger, train
from dagnn_core.training.split import MIN_ITEMS_PER_BATCH, Split
from dagnn_core.work import work_folder

log = logging.getLogger(__name__)

PAGE, RECORD = "tuning.html", "tuning.json"
"""Files of a search: a page for people, and all trials for programs."""
SEARCH = "dagnn.search"
"""Tag of the runs of a search: its name."""

_RUN = "mlflow_run"
_MAX_EPOCHS = 1_000_000  # the epochs of a trial's second seed are counted from here on
_DIGITS = 12  # of a digest, in a message
_CHATTY = ("components.services.tracking", "dagnn_core.training")  # a line for each trial says enough


def run(
    *,
    features: Path,
    label_graph: Path,
    dataset: Path | None,
    space: Space,
    base: Sections,
    name: str,
    storage: str,
    tracking: Tracking,
    work: Path,
    search_out: Path,
    num_trials: int | None = None,
) -> Search:
    """Train trials until the search has as many as it shall have, together with other processes that run the same.

    A search that was interrupted, or whose processes were killed, resumes: finished trials stay, and a trial that was
    lost is trained again from its last checkpoint, where `work` still has it.

    Args:
        features: features artifact.
        label_graph: label graph artifact of the same data set; not read where the space has a key of it.
        dataset: dataset artifact; read where the space has a key of the label graph alone, else it may be None.
        space: what to search.
        base: the sections that the trials have in common, as `space.over` makes them.
        name: of the search in the storage.
        storage: path of a file, or URL of a database, that all processes of the search share.
        tracking: gets a run for the search, and below it one for each trial.
        work: folder for the checkpoints of unfinished trials.
        search_out: folder for `tuning.html` and `tuning.json`, which are written again.
        num_trials: instead of the space's.

    Returns:
        The search with all its trials so far, those of other processes included.

    Raises:
        ArtifactError: an input is missing or damaged, or they do not belong together.
        InputError: the val split is too small, `search_out` is no folder, the storage has another search of this name,
            or no trial has finished.
        BackendError: the storage, the tracking server or the disk failed.
    """
    data = Features.read(features, verify=True)
    _check_val_split(data)
    _make_folder(search_out)
    device = choose_device(base["train"].device, key="train.device")
    if base["train"].deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    assert dataset is not None or not space.has_label_graph
    graphs = _Graphs.of(data, dataset if space.has_label_graph else None, label_graph)
    record = provenance(
        "tune", *base.values(), parents=[data.artifact, graphs.source], machine=describe_machine(device)
    )
    identity = {
        "values to search": digest_of_values({key: asdict(values) for key, values in space.searched.items()}),
        "values of the configuration": digest_of_values(
            {part: section_json(section) for part, section in base.items()}
        ),
        "seeds": ", ".join(map(str, space.options.seeds)),
        "features": data.artifact.content_digest,
        graphs.source.kind.replace("_", " "): graphs.source.content_digest,
    }
    identity = {part: text[:_DIGITS] if part != "seeds" else text for part, text in identity.items()}
    own = replace(tracking, injected_run_id=None)  # a search has many runs
    origin = {key: record[key] for key in ("ancestors", "git", "execution")}
    open_run = partial(own.training_run, **origin)
    num_trials = num_trials or space.options.trials
    with open_study(storage, name, searched=space.searched, prune=space.options.prune) as study:
        study.check_identity(identity, first=space.present(base))
        find = partial(_find, study, space, name)
        known = study.shared(_RUN) or own.find_run(study.key)
        with open_run(params=base, run_id=known, request=study.key, tags={NAME: name, SEARCH: name}) as parent:
            study.share(_RUN, parent.run_id)
            trials = _Trials(
                space=space,
                base=base,
                graphs=graphs,
                train_split=read_split(data, "train", device=device),
                val_split=read_split(data, "val", device=device),
                study=study,
                open_run=open_run,
                tags={PARENT: parent.run_id, SEARCH: name},
                work=work / f"tune-{digest_of_values({'name': name, **identity})[:_DIGITS]}",
            )
            try:
                with _quiet():
                    study.work(
                        trials.train, num_trials=num_trials, ended=partial(_tell, find, parent, num_trials=num_trials)
                    )
            except KeyboardInterrupt:
                log.info("%s: %s", name, find().summary())
                raise
            parent.close_lost(study.runs())
            search = replace(find(), importance=study.importance())
            _write(search_out, search, space)
            parent.log_directory(search_out, "tuning")
            _check_any_finished(search)
    log.info("%s: %s; %s", name, search.summary(), search_out / PAGE)
    return search


@dataclass(frozen=True, kw_only=True)
class _Graphs:
    """The label graph of a trial: the artifact that was given, or one made from the data set by the trial's section."""

    source: Artifact
    """The artifact that they come from: label graph or data set."""
    dataset: Dataset | None
    known: dict[str, GraphTensors]
    """Section as JSON, or empty for the one that all trials share -> graph."""

    @classmethod
    def of(cls, features: Features, dataset: Path | None, label_graph: Path) -> "_Graphs":
        if dataset is None:
            graph = LabelGraph.read(label_graph, verify=True)
            check_same_dataset(features, graph)
            return cls(source=graph.artifact, dataset=None, known={"": graph_tensors(graph)})
        source = Dataset.read(dataset, verify=True)
        if features.artifact.provenance.get("ancestors", {}).get("dataset") != source.artifact.content_digest:
            raise ArtifactError(f"{features.artifact.path} was not made from {dataset}", features.artifact.remedy)
        return cls(source=source.artifact, dataset=source, known={})

    def graph(self, config: LabelGraphConfig) -> GraphTensors:
        key = section_json(config) if self.dataset else ""
        if key not in self.known:
            assert self.dataset is not None
            with tempfile.TemporaryDirectory(prefix="dagnn-") as folder:
                out = Path(folder) / LABEL_GRAPH
                with write_artifact(out, kind=LABEL_GRAPH, provenance={}) as draft:
                    write_label_graph(draft, self.dataset, config)
                self.known[key] = graph_tensors(LabelGraph.read(out))
        return self.known[key]


@dataclass(frozen=True, kw_only=True)
class _Trials:
    """What all trials of this process share."""

    space: Space
    base: Sections
    graphs: _Graphs
    train_split: Split
    val_split: Split
    study: Study
    open_run: Callable[..., AbstractContextManager[Run]]
    tags: Mapping[str, str]
    """Of the runs of all trials."""
    work: Path
    """What the folders of checkpoints begin with."""

    def train(self, draw: Draw) -> float:
        """Mean validation MAP of a trial over its seeds."""
        sections = apply(self.base, draw.values)
        known = self.study.value_of(draw.values)
        if known is not None:  # the same again would give the same
            return known
        graph, seeds = self.graphs.graph(sections["label_graph"]), self.space.options.seeds
        pruned: PrunedError | None = None
        values: list[float] = []
        tags = {**self.tags, NAME: f"trial {draw.number}"}
        with self.open_run(params=sections, run_id=draw.run_id, tags=tags) as tracked:
            draw.keep_run(tracked.run_id)
            try:
                for index, seed in enumerate(seeds):
                    prefix = f"seed_{seed}/" if len(seeds) > 1 else ""
                    logger = _EpochLogger(draw, tracked, first_step=index * _MAX_EPOCHS, prefix=prefix)
                    values.append(self._train_once(draw, sections, graph, seed, logger))
            except PrunedError as error:  # no failure of the run
                pruned = error
            else:
                tracked.log_metrics({"best_val_map_mean": statistics.mean(values)})
        if pruned:
            raise pruned
        return statistics.mean(values)

    def _train_once(
        self, draw: Draw, sections: Mapping[str, Any], graph: GraphTensors, seed: int, logger: MetricLogger
    ) -> float:
        folder = self.work.with_name(f"{self.work.name}-{draw.origin}-{seed}")
        with work_folder(folder, busy="another process trains this trial"):
            try:
                result = train(
                    train_split=self.train_split,
                    val_split=self.val_split,
                    graph=graph,
                    model_config=sections["model"],
                    config=replace(sections["train"], seed=seed),
                    checkpoint=folder / "checkpoint.safetensors",
                    logger=logger,
                )
            except PrunedError as error:
                ended = error
            except (torch.OutOfMemoryError, MemoryError) as error:
                raise InputError("there is not enough memory for these values") from error
            else:
                return result.val_metrics["val_map_mean"]
        raise ended  # outside, so that the folder goes


class _EpochLogger:
    """Sends the metrics of a training to its run and, to be judged, to the search."""

    def __init__(self, draw: Draw, tracked: Run, *, first_step: int, prefix: str) -> None:
        self._draw = draw
        self._tracked = tracked
        self._first_step = first_step
        self._prefix = prefix

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Take the metrics of epoch `step`.

        Raises:
            PrunedError: the trial is to end.
        """
        self._tracked.log_metrics({f"{self._prefix}{name}": value for name, value in metrics.items()}, step)
        self._draw.report(metrics["val_map_mean"], self._first_step + step)


def _check_val_split(data: Features) -> None:
    count = len(data.pairs("val"))
    if count < MIN_ITEMS_PER_BATCH:
        raise InputError(
            f"the val split has {count} items with image and text, expected at least {MIN_ITEMS_PER_BATCH}: a search "
            "compares trials on it",
            "correct the splits of the data set, or dataset.val_fraction where they are drawn",
        )


def _find(study: Study, space: Space, name: str) -> Search:
    return Search(
        name=name,
        seeds=space.options.seeds,
        trials=study.trials(),
        fixed=space.fixed,
        importance={},
    )


def _tell(find: Callable[[], Search], parent: Run, trial: Trial, *, num_trials: int) -> None:
    """Say how a trial ended, and what is the best so far."""
    search = find()
    outcome = {
        "finished": f"val MAP {trial.val_map or 0:.4f}",
        "pruned": f"pruned at val MAP {trial.val_map or 0:.4f} after {trial.num_epochs} epochs",
        "failed": f"failed: {trial.reason}",
    }
    done = len(search.trials) - search.count("running")
    best = f"; best {search.best.val_map:.4f} in trial {search.best.number}" if search.best else ""
    log.info(
        "%d of %d: trial %d, %s, %.1f s%s", done, num_trials, trial.number, outcome[trial.state], trial.seconds, best
    )
    if trial.state == "finished" and search.best:
        metrics = {"trial_val_map_mean": trial.val_map or 0.0, "best_val_map_mean": search.best.val_map or 0.0}
        parent.log_metrics(metrics, trial.number)


def _make_folder(out: Path) -> None:
    """Make the folder for the results, and see that it can be written: they come after hours."""
    try:
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=out).close()
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{out} cannot be a folder: it or what it lies in is a file", "name another --out") from error


def _write(out: Path, search: Search, space: Space) -> None:
    with tempfile.TemporaryDirectory(dir=out, prefix=".") as draft:  # another process may write the same
        write_json(Path(draft) / RECORD, search.record())
        with writing(out / PAGE):
            Path(draft, PAGE).write_text(render_page(search, searched=space.searched), encoding="utf-8")
        for name in (RECORD, PAGE):
            Path(draft, name).replace(out / name)


def _check_any_finished(search: Search) -> None:
    if search.best or search.count("running"):
        return
    reasons = [trial.reason for trial in search.trials if trial.reason]
    why = f" (the last one: {reasons[-1]})" if reasons else ""
    raise InputError(
        f"no trial of the search {search.name} has finished: {search.summary()}{why}",
        "correct the space, and give the search another --name",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the lines of single epochs off the screen; warnings stay."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)

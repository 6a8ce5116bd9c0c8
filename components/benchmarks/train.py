"""The program behind `dagnn bench train`: the training loop beside the authors' one, and beside what a machine can do.

The data are random, of the shape of MIRFlickr: images of 4,096 and texts of 1,386 dimensions, 24 labels. `ours` is
`dagnn_core.training.loop.train_epoch`. `naive` is the loop of the authors' public code, with the same network and
objective: a data set that gives one item at a time, a loader that stacks them, plain Adam, and the loss read at every
step. The two take turns, and each turn begins with the rates of the machine: the products of large float32 matrices,
and the bytes that adding one large array to another moves. Ratios are medians over the turns, so that other load on the
machine moves them little.

Two bounds: what a step takes if its matrix products run at the rate of large ones, the optimizer moves its bytes at the
rate of the addition, and nothing else takes time; and what its own products and the optimizer take, run by themselves:
of a small batch, the products are slower than large ones whatever is around them.
"""

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from components.benchmarks.memory import peak_of
from components.benchmarks.table import Row
from dagnn_core.config.model import ModelConfig
from dagnn_core.config.section import DEFAULT_SEED, parse_section
from dagnn_core.config.train import TrainConfig
from dagnn_core.label_graph.cooccurrence import conditional_probabilities, normalize_adjacency, threshold_adjacency
from dagnn_core.losses.batch import Batch
from dagnn_core.model.kinds import build_network, compute_losses
from dagnn_core.nn.label_graphs import GraphTensors
from dagnn_core.training.checkpoint import TrainingState
from dagnn_core.training.disk_matrix import DiskMatrix
from dagnn_core.training.kept_memory import kept_memory
from dagnn_core.training.loop import new_state, train_epoch
from dagnn_core.training.split import Split

IMAGE_DIM, TEXT_DIM, NUM_LABELS, LABEL_DIM = 4096, 1386, 24, 300  # MIRFlickr
LABELS_PER_ITEM = 3.8
DISK_IMAGE_DIM, DISK_TEXT_DIM = 2048, 512
ITEMS_PER_TURN = 2000  # at least one step
MIN_TURNS = 3
MATRIX_SIZE = 2048  # of the products that give the machine's rate
ARRAY_ENTRIES = 1 << 26  # of the arrays whose addition gives its memory's rate
MIB, GIGA = 1 << 20, 1e9
ADAM_PASSES = 7  # reads weights, gradients and two moments; writes weights and moments
AVERAGE_PASSES = 3  # reads weights and their average; writes the average

NOT_MEASURED = "not measured"
aten = torch.ops.aten


class Machine(NamedTuple):
    """What a device does at best, measured just now."""

    flops: float
    """FLOP/s of a float32 matrix product."""
    bytes: float
    """Bytes a second that an addition reads and writes."""


def run(*, presets: Sequence[str], batch_sizes: Sequence[int], bf16: bool, seconds: float) -> list[Row]:
    """Time the training of some presets at some batch sizes, on the CPU and on a GPU.

    Args:
        presets: of the sections `model` and `train`.
        batch_sizes: items a step.
        bf16: whether ours computes in bf16.
        seconds: of the turns of a row, at least; there are at least 3.

    Returns:
        A row for each device, preset and batch size; of a GPU that is not there one that says so.
    """
    rows: list[Row] = []
    for device in ("cpu", "cuda"):
        if device == "cuda" and not torch.cuda.is_available():
            rows.append({"device": device, "samples/s": NOT_MEASURED})
            continue
        for preset in presets:
            for batch_size in batch_sizes:
                rows.append(_measure(preset, batch_size, torch.device(device), bf16=bf16, seconds=seconds))
    return rows


def run_sizes(*, sizes: Sequence[int], batch_size: int, seconds: float, folder: Path | None = None) -> list[Row]:
    """Time epochs of `best` over more and more items, whose features lie on the disk.

    Args:
        sizes: numbers of items.
        batch_size: items a step.
        seconds: of training, at least; at least one whole epoch.
        folder: where the features are written for the while; 10 kB an item.

    Returns:
        A row for each size: samples a second, microseconds of CPU time a sample, which other load on the machine moves
        less, and the highest memory of the process beyond the page cache.
    """
    return [_measure_size(size, batch_size, seconds, folder) for size in sizes]


def _measure(preset: str, batch_size: int, device: torch.device, *, bf16: bool, seconds: float) -> Row:
    model = parse_section(ModelConfig, {"preset": preset}, "model")
    config = parse_section(TrainConfig, {"preset": preset, "batch_size": batch_size, "epochs": 10**6}, "train")
    split = _random_split(batch_size * max(1, ITEMS_PER_TURN // batch_size), device)
    one_batch = _random_split(batch_size, device)
    graph = _random_graph(split.labels.cpu().numpy())
    with _peak_memory(device) as ours_peak, kept_memory():
        state = new_state(split, graph, model, config)
        train_epoch(state, one_batch, model, config)
    with _peak_memory(device) as naive_peak:
        naive = _Naive(split, graph, model, config)
        naive.train(1)
    flops = _count_flops(state, one_batch, model)
    moved = _optimizer_bytes(state)
    config = replace(config, precision="bf16" if bf16 else "float32")
    products = _Products.of(state, one_batch, model)
    rates: dict[str, list[float]] = {
        name: [] for name in ("ours", "naive", "matrix", "memory", "share", "own share", "times", "optimizer")
    }
    start = time.perf_counter()
    while len(rates["ours"]) < MIN_TURNS or time.perf_counter() - start < seconds:
        machine = _machine(device)
        with kept_memory():
            train_epoch(state, one_batch, model, config)  # takes the memory
            ours = _rate(len(split.labels), device, lambda: train_epoch(state, split, model, config))
            products_alone = 1 / _rate(1, device, products.run)
            optimizer_alone = 1 / _rate(1, device, lambda: _step(state))
        theirs = _rate(len(split.labels), device, lambda: naive.train(None))
        needed = ours / batch_size  # seconds to share of a step
        turn = (
            *(ours, theirs, machine.flops, machine.bytes),
            needed * (flops / machine.flops + moved / machine.bytes),
            needed * (products_alone + optimizer_alone),
            *(ours / theirs, moved / optimizer_alone),
        )
        for name, value in zip(rates, turn, strict=True):
            rates[name].append(value)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "preset": preset,
        "precision": config.precision,
        "batch": float(batch_size),
        "samples/s": medians["ours"],
        "naive: samples/s": medians["naive"],
        "times the naive rate": medians["times"],
        "GFLOP a step": flops / GIGA,
        "GFLOP/s": medians["ours"] / batch_size * flops / GIGA,
        "of the matrix rate": statistics.median(
            rate / batch_size * flops / matrix for rate, matrix in zip(rates["ours"], rates["matrix"], strict=True)
        ),
        "matrix rate: GFLOP/s": medians["matrix"] / GIGA,
        "optimizer: GB a step": moved / GIGA,
        "optimizer: GB/s": medians["optimizer"] / GIGA,
        "memory rate: GB/s": medians["memory"] / GIGA,
        "of the bound": medians["share"],
        "of its own products and optimizer": medians["own share"],
        "peak memory: MiB": ours_peak() / MIB,
        "naive: peak memory: MiB": naive_peak() / MIB,
        "turns": float(len(rates["ours"])),
    }


def _measure_size(size: int, batch_size: int, seconds: float, folder: Path | None) -> Row:
    model = parse_section(ModelConfig, {"preset": "best"}, "model")
    config = parse_section(TrainConfig, {"preset": "best", "batch_size": batch_size, "epochs": 10**6}, "train")
    rng = np.random.default_rng(DEFAULT_SEED)
    labels = _random_labels(size, rng)
    present = torch.ones(size, dtype=torch.bool)
    with tempfile.TemporaryDirectory(prefix="dagnn-bench-", dir=folder) as temporary:
        matrices = [
            DiskMatrix(
                _write_random(Path(temporary) / f"{name}.npy", (size, dim), rng), np.arange(size), torch.device("cpu")
            )
            for name, dim in (("image", DISK_IMAGE_DIM), ("text", DISK_TEXT_DIM))
        ]
        split = Split(matrices[0], matrices[1], torch.from_numpy(labels), present, present)
        with peak_of("RssAnon") as peak, kept_memory():
            state = new_state(split, _random_graph(labels), model, config)
            spent, spent_cpu, trained = 0.0, 0.0, 0
            while spent < seconds:
                start, start_cpu = time.perf_counter(), time.process_time()
                train_epoch(state, split, model, config)
                spent += time.perf_counter() - start
                spent_cpu += time.process_time() - start_cpu
                trained += size
    return {
        "items": float(size),
        "features: GB": size * (DISK_IMAGE_DIM + DISK_TEXT_DIM) * 4 / GIGA,
        "batch": float(batch_size),
        "samples/s": trained / spent,
        "CPU microseconds a sample": spent_cpu / trained * 1e6,
        "peak memory beyond the page cache: MiB": peak() / MIB,
    }


@dataclass
class _Items(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """One item at a time, as the authors' data set gives it."""

    split: Split

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.split.features("image")[row], self.split.features("text")[row], self.split.labels[row]

    def __len__(self) -> int:
        return len(self.split.labels)


class _Naive:
    """The loop of the authors' public code, with our network and objective."""

    def __init__(self, split: Split, graph: GraphTensors, model: ModelConfig, config: TrainConfig) -> None:
        torch.manual_seed(config.seed)
        self.model, self.device = model, split.device
        self.network = build_network(model, image_dim=IMAGE_DIM, text_dim=TEXT_DIM, graph=graph).to(split.device)
        self.network.train()
        betas = config.adam_beta1, config.adam_beta2
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.lr, betas=betas)
        items = _Items(split._replace(image=split.features("image").cpu(), text=split.features("text").cpu()))
        self.loader = DataLoader(items, batch_size=config.batch_size, shuffle=True)

    def train(self, num_steps: int | None) -> float:
        """Train for some steps, None: an epoch; the mean loss."""
        total = 0.0
        for step, parts in enumerate(self.loader):
            if step == num_steps:
                break
            image, text, labels = (part.to(self.device) for part in parts)
            every = torch.arange(len(image), device=self.device)
            batch = Batch(image, text, labels, labels, len(image), len(image), every, every)
            self.optimizer.zero_grad()
            losses = compute_losses(self.network, batch, self.model)
            losses.total.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += losses.total.item()
        return total / (step + 1)


def _random_split(num_items: int, device: torch.device) -> Split:
    """Features that are half zeros, as those behind a ReLU, and labels that are visible in neither."""
    rng = np.random.default_rng(DEFAULT_SEED)
    image, text = (torch.from_numpy(_random_features((num_items, dim), rng)) for dim in (IMAGE_DIM, TEXT_DIM))
    labels = torch.from_numpy(_random_labels(num_items, rng))
    present = torch.ones(num_items, dtype=torch.bool)
    return Split(image.to(device), text.to(device), labels.to(device), present, present)


def _random_features(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
    features = rng.standard_normal(shape, dtype=np.float32)
    return np.maximum(features, 0, out=features)


def _random_labels(num_items: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
    labels = (rng.random((num_items, NUM_LABELS), dtype=np.float32) < LABELS_PER_ITEM / NUM_LABELS).astype(np.float32)
    labels[0] = 1  # every label occurs
    return labels


def _write_random(path: Path, shape: tuple[int, int], rng: np.random.Generator) -> np.memmap[Any, np.dtype[np.float32]]:
    """Features in a file, mapped; the same block again and again, since to draw more would take too long."""
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    block = _random_features((min(shape[0], 10_000), shape[1]), rng)
    for start in range(0, shape[0], len(block)):
        file[start : start + len(block)] = block[: shape[0] - start]
    file.flush()
    mapped: np.memmap[Any, np.dtype[np.float32]] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def _random_graph(labels: np.ndarray[Any, np.dtype[np.float32]]) -> GraphTensors:
    present = labels.astype(np.int64)
    counts = present.T @ present
    conditional = conditional_probabilities(counts * (1 - np.eye(NUM_LABELS, dtype=np.int64)), counts.diagonal())
    adjacency = threshold_adjacency(conditional, threshold=0.4, edge_weight=0.5, self_loop=1.0)
    embeddings = torch.randn(NUM_LABELS, LABEL_DIM, generator=torch.Generator().manual_seed(DEFAULT_SEED))
    edges, normalized = (
        torch.tensor(matrix, dtype=torch.float32) for matrix in (adjacency, normalize_adjacency(adjacency))
    )
    return GraphTensors(embeddings, edges, normalized, threshold=0.4)


def _count_flops(state: TrainingState, split: Split, model: ModelConfig) -> int:
    """FLOP of the matrix products of one step, forward and backward."""
    rows = torch.arange(len(split.labels))
    with FlopCounterMode(display=False) as counter:
        losses = compute_losses(state.network, split.batch(rows, reconstructed=False), model)
        torch.autograd.backward(losses.total)
    state.optimizer.zero_grad()
    flops: int = counter.get_total_flops()
    return flops


def _optimizer_bytes(state: TrainingState) -> int:
    """Bytes that a step of the optimizer, and of the average of the weights, reads and writes at least."""
    weights = sum(parameter.nbytes for parameter in state.network.parameters())
    return weights * (ADAM_PASSES + (AVERAGE_PASSES if state.average is not None else 0))


def _step(state: TrainingState) -> None:
    """The optimizer's step and the average's, with the gradients that are there."""
    state.optimizer.step()
    if state.average is not None:
        state.average.update_parameters(state.network)


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The matrix products of a step, to be run again by themselves."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Callable[..., object], Sequence[Any], Tensor]] = []

    @classmethod
    def of(cls, state: TrainingState, split: Split, model: ModelConfig) -> "_Products":
        """Those of one step, whose gradients stay."""
        products = cls()
        with products:
            losses = compute_losses(
                state.network, split.batch(torch.arange(len(split.labels)), reconstructed=False), model
            )
            torch.autograd.backward(losses.total)
        return products

    @torch.no_grad()
    def run(self) -> None:
        """Compute all of them again, into the same results."""
        for product, arguments, result in self.calls:
            product(*arguments, out=result)

    def __torch_dispatch__(
        self, function: Any, _: Any, arguments: Sequence[Any] = (), options: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*arguments, **(options or {}))
        if function in (aten.mm.default, aten.addmm.default, aten.bmm.default):
            self.calls.append((function.overloadpacket.out, arguments, result))
        return result


def _machine(device: torch.device) -> Machine:
    matrix = torch.rand(MATRIX_SIZE, MATRIX_SIZE, device=device)
    product = torch.empty_like(matrix)
    one, other = (torch.zeros(ARRAY_ENTRIES, device=device) for _ in range(2))
    products, additions = (
        max(_rate(1, device, call) for _ in range(3))
        for call in (lambda: torch.mm(matrix, matrix, out=product), lambda: one.add_(other))
    )
    return Machine(flops=products * 2 * MATRIX_SIZE**3, bytes=additions * 3 * one.nbytes)


def _rate(num_items: int, device: torch.device, call: Callable[[], object]) -> float:
    """Items a second."""
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return num_items / (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _peak_memory(device: torch.device) -> Iterator[Callable[[], int]]:
    """How much the body takes at most, in bytes; on a CPU the memory of the process, on a GPU that of torch."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
        return
    with peak_of("VmRSS") as peak:
        yield peak

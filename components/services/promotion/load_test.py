"""Load a version as a server would: in a fresh process, with its own code alone and pickled objects forbidden."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.services.promotion.gate import LoadTest
from components.services.promotion.rescoring import Sample
from dagnn_core.errors import InputError

SECONDS = 600
_PROCESS = Path(__file__).with_name("load_test_process.py")
# the process runs code from the registry: it gets no way into stores and servers, nor to this project
_WITHHELD = ("AWS_", "DAGNN_", "DVC_", "KFP_", "MLFLOW_", "PYTHON")


def load_test(stored: Path, sample: Sample) -> LoadTest:
    """Load the files of a version in a process of its own, let it embed a sample, and measure that.

    Args:
        stored: the MLflow model.
        sample: queries, and the embeddings that this process has computed for them.

    Raises:
        InputError: it cannot be loaded, fails, or does not answer in ten minutes.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD)}
    with tempfile.TemporaryDirectory() as directory:
        request, answer = Path(directory, "request.json"), Path(directory, "answer.json")
        request.write_text(json.dumps(list(sample.rows)), encoding="utf-8")
        environment |= {
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_TRACKING_URI": f"sqlite:///{directory}/none.db",
        }
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-W", "ignore", str(_PROCESS), str(stored.resolve()), str(request), str(answer)],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(f"the version did not embed {len(sample.rows)} queries in {SECONDS} seconds") from error
        if done.returncode != 0:
            last = [line for line in done.stderr.splitlines() if line.strip()][-1:] or [f"status {done.returncode}"]
            raise InputError(f"the version does not work in a fresh process: {last[0].strip()}", "register it again")
        measured = json.loads(answer.read_text(encoding="utf-8"))
    return LoadTest(
        served_difference=_difference(np.array(measured["embeddings"]), sample.embeddings.astype(np.float64)),
        latency_p50_ms=float(np.percentile(measured["latencies_ms"], 50)),
        latency_p95_ms=float(np.percentile(measured["latencies_ms"], 95)),
        peak_memory_mib=measured["peak_memory_mib"],
    )


def _difference(served: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    if served.shape != expected.shape:
        return float("inf")
    lengths = np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1)
    return float(np.abs((served - expected) / lengths).max())

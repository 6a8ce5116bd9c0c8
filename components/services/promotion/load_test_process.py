"""The process of a load test: `python -I load_test_process.py STORED REQUEST ANSWER`.

It imports nothing of this project but what is stored with the version.
"""

import json
import resource
import sys
import time
from pathlib import Path


def main(stored: str, request: str, answer: str) -> None:
    """Load the model in STORED, embed the rows of REQUEST together and one by one, and write ANSWER."""
    # an editable install would put the project on the path
    sys.path[:] = [entry for entry in sys.path if not Path(entry, "dagnn_core").exists()]
    import mlflow.pyfunc

    rows = json.loads(Path(request).read_text(encoding="utf-8"))
    model = mlflow.pyfunc.load_model(stored)
    model.predict(model.input_example)
    embeddings = model.predict(rows)
    latencies = []
    for row in rows:
        begin = time.perf_counter()
        model.predict([row])
        latencies.append(1000 * (time.perf_counter() - begin))
    measured = {
        "embeddings": embeddings.tolist(),
        "latencies_ms": latencies,
        "peak_memory_mib": _peak_memory_mib(),
    }
    Path(answer).write_text(json.dumps(measured), encoding="utf-8")


def _peak_memory_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, getrusage counts the memory of the process that started this one, too
        [kib] = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(kib) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


if __name__ == "__main__":
    main(*sys.argv[1:])

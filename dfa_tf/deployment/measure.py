"""Latency of a TF Lite file on this machine's CPU, and the operations it consists of."""

import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

WARM_UP_RUNS, TIMED_RUNS = 5, 50
BENCHMARK_TOOL = "litert-benchmark"


def measure(path: str | os.PathLike) -> dict:
    """Measures a TF Lite file.

    Returns:
        The entries of export.json: "latency_ms" with one and two threads, "litert_benchmark_ms",
        "ops" and "outside_xnnpack".
    """
    all_operations, outside_xnnpack = operations(path)
    return {
        "latency_ms": {f"threads_{n}": latency(path, n) for n in (1, 2)},
        "litert_benchmark_ms": litert_benchmark(path),
        "ops": all_operations,
        "outside_xnnpack": outside_xnnpack,
    }


def latency(path: str | os.PathLike, threads: int) -> dict[str, float]:
    """Returns the "median" and the 90th percentile "p90" of the time for one image.

    Times are in milliseconds, over TIMED_RUNS runs that follow WARM_UP_RUNS untimed ones.
    """
    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    times = []
    for _ in range(WARM_UP_RUNS + TIMED_RUNS):
        start = time.perf_counter()
        interpreter.invoke()
        times.append(1000 * (time.perf_counter() - start))
    timed = times[WARM_UP_RUNS:]
    return {
        "median": round(float(np.median(timed)), 4),
        "p90": round(float(np.percentile(timed, 90)), 4),
    }


def litert_benchmark(path: str | os.PathLike, threads: int = 1) -> dict[str, float] | None:
    """Measures the latency with LiteRT's own benchmark tool.

    Returns:
        {"median", "p95"} in milliseconds; None if the tool is missing or fails.
    """
    installed = pathlib.Path(sys.executable).parent / BENCHMARK_TOOL
    tool = str(installed) if installed.exists() else shutil.which(BENCHMARK_TOOL)
    if not tool:
        return None
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        command = [tool, f"--model={path}", f"--num_threads={threads}"]
        command += [f"--num_runs={TIMED_RUNS}", f"--warmup_runs={WARM_UP_RUNS}"]
        try:
            subprocess.run(
                [*command, f"--result_json={result.name}"],
                capture_output=True,
                timeout=120,
                check=True,
            )
            times = json.loads(pathlib.Path(result.name).read_text())["latency"]
            return {"median": times["median_ms"], "p95": times["p95_ms"]}
        except (OSError, subprocess.SubprocessError, ValueError, KeyError):
            return None


def operations(path: str | os.PathLike) -> tuple[dict[str, int], dict[str, int]]:
    """Counts the operations of a TF Lite file.

    Returns:
        {operation: count} of all operations, and of those that XNNPACK does not run.
    """
    # _get_ops_details is private, and the interpreter has no public equivalent. Tried with
    # ai-edge-litert 2.x.
    plain = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    delegated = Interpreter(str(path), num_threads=1)
    delegated.allocate_tensors()
    details = delegated._get_ops_details()
    replaced = _replaced_by_delegates(details)
    outside = [
        operation
        for index, operation in enumerate(details)
        if operation["op_name"] != "DELEGATE" and index not in replaced
    ]
    return _count(plain._get_ops_details()), _count(outside)


def _replaced_by_delegates(operations):
    """Returns the indices of the operations between the inputs and the outputs of a DELEGATE."""
    producers = {
        tensor: index
        for index, operation in enumerate(operations)
        if operation["op_name"] != "DELEGATE"
        for tensor in operation["outputs"]
    }
    replaced = set()
    for delegate in operations:
        if delegate["op_name"] != "DELEGATE":
            continue
        inputs, pending = set(delegate["inputs"]), list(delegate["outputs"])
        while pending:
            tensor = pending.pop()
            producer = None if tensor in inputs else producers.get(tensor)
            if producer is not None and producer not in replaced:
                replaced.add(producer)
                pending += list(operations[producer]["inputs"])
    return replaced


def _count(operations):
    return dict(sorted(collections.Counter(op["op_name"] for op in operations).items()))

"""How fast a TF Lite file is on this machine's CPU, and which operations it is made of."""

import collections
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

WARM_UP, TIMED_RUNS = 5, 50
TOOL = "litert-benchmark"


def latency(path, threads):
    """Milliseconds for one image: median and 90th percentile of TIMED_RUNS runs after a few."""
    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    times = []
    for _ in range(WARM_UP + TIMED_RUNS):
        began = time.perf_counter()
        interpreter.invoke()
        times.append(1000 * (time.perf_counter() - began))
    timed = times[WARM_UP:]
    return {
        "median": round(float(np.median(timed)), 4),
        "p90": round(float(np.percentile(timed, 90)), 4),
    }


def litert_benchmark(path, threads=1):
    """{"median", "p95"} in milliseconds, by LiteRT's own tool; None where it does not work."""
    beside = pathlib.Path(sys.executable).parent / TOOL
    tool = str(beside) if beside.exists() else shutil.which(TOOL)
    if not tool:
        return None
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        command = [tool, f"--model={path}", f"--num_threads={threads}"]
        command += [f"--num_runs={TIMED_RUNS}", f"--warmup_runs={WARM_UP}"]
        try:
            subprocess.run(
                [*command, f"--result_json={result.name}"],
                capture_output=True,
                timeout=120,
                check=True,
            )
            told = json.loads(pathlib.Path(result.name).read_text())["latency"]
            return {"median": told["median_ms"], "p95": told["p95_ms"]}
        except (OSError, subprocess.SubprocessError, ValueError, KeyError):
            return None


def operations(path):
    """(how often each TF Lite operation occurs, how often each one that XNNPACK does not take)."""
    plain = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    with_delegate = Interpreter(str(path), num_threads=1)
    with_delegate.allocate_tensors()
    operations = with_delegate._get_ops_details()
    taken = _within_delegates(operations)
    outside = [
        op for k, op in enumerate(operations) if op["op_name"] != "DELEGATE" and k not in taken
    ]
    return _counted(plain._get_ops_details()), _counted(outside)


def _within_delegates(operations):
    """Places of the operations that lie between the inputs and the outputs of a DELEGATE."""
    maker = {
        tensor: k
        for k, op in enumerate(operations)
        if op["op_name"] != "DELEGATE"
        for tensor in op["outputs"]
    }
    within = set()
    for delegate in operations:
        if delegate["op_name"] != "DELEGATE":
            continue
        given, waiting = set(delegate["inputs"]), list(delegate["outputs"])
        while waiting:
            tensor = waiting.pop()
            if tensor not in given and tensor in maker and maker[tensor] not in within:
                within.add(maker[tensor])
                waiting += list(operations[maker[tensor]]["inputs"])
    return within


def _counted(operations):
    return dict(sorted(collections.Counter(op["op_name"] for op in operations).items()))

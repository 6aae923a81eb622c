"""The benchmark: every step in every precision, beside the machine's own peak; as rows."""

import statistics
import sys

import tensorflow as tf

from dfa_tf.benchmark import machine
from dfa_tf.benchmark.cases import cases, input_case, still_case
from dfa_tf.benchmark.timing import ROUNDS, Sampled

PRECISIONS = {"float32": "float32", "mixed_bfloat16": "bfloat16"}  # and what they compute in
FASTEST = "mixed_bfloat16"  # its steps leave the least time to draw the next batch


def benchmark(
    teacher, student, examples, augmentation, batch_size, strategy, rounds=None, profile=None
):
    """Times the steps of search and distillation. Returns what `bin/benchmark --json` writes.

    teacher, student: Networks. examples: to draw batches from. strategy: to run under.
    rounds: timings of each row, taken in turn; ROUNDS by default.
    profile: folder for a TensorBoard trace of a few steps of each kind.
    input_share_of_distill, in what is returned, is the part of a distillation step that a batch
    lying ready in memory would spare: what drawing costs it, waiting included.
    """
    peaks = {dtype: machine.peak_gflops(dtype) for dtype in PRECISIONS.values()}
    rounds = rounds or ROUNDS
    draw = examples, augmentation
    found = [
        case
        for precision in PRECISIONS
        for case in cases(teacher, student, *draw, precision, batch_size, strategy)
    ]
    found.append(input_case(*draw, batch_size))
    rows = [(case, Sampled(case.run)) for case in found]
    drawn = next(s for case, s in rows if (case.step, case.precision) == ("distill", FASTEST))
    still = Sampled(still_case(teacher, student, *draw, FASTEST, batch_size, strategy).run)
    memory = []
    for k, (case, sampled) in enumerate(rows, start=1):
        _tell(f"warming up {k} of {len(rows)}: {_title(case)}")
        sampled.warm_up()
        peak = machine.PeakMemory()
        sampled.sample()
        sampled.samples.clear()
        memory.append(peak.bytes())
    still.warm_up()
    for k in range(rounds):
        _tell(f"round {k + 1} of {rounds}")
        for _, sampled in rows:
            sampled.sample()
            if sampled is drawn:
                still.sample()
    pairs = zip(still.samples, drawn.samples, strict=True)
    input_share = statistics.median(1 - without / having for without, having in pairs)
    if profile:
        for case, sampled in rows:
            _tell(f"tracing {_title(case)}")
            with tf.profiler.experimental.Profile(f"{profile}/{_title(case).replace(' ', '-')}"):
                sampled.sample()
                sampled.samples.pop()
    best = {dtype: max(kernels.values()) for dtype, kernels in peaks.items()}
    return {
        "machine": machine.describe(),
        "peak": {f"{dtype}_gflops": round(value, 1) for dtype, value in best.items()}
        | {"kernels": peaks},
        "teacher": teacher.name,
        "student": student.name,
        "rounds": rounds,
        "input_share_of_distill": round(input_share, 3),
        "rows": [
            _row(case, sampled, peak, best)
            for (case, sampled), peak in zip(rows, memory, strict=True)
        ],
    }


def _row(case, sampled, memory, best):
    ms = sampled.milliseconds()
    gflops = case.flops / ms["median"] / 1e6
    peak = best.get(PRECISIONS.get(case.precision))
    return {
        "step": case.step,
        "precision": case.precision,
        "batch": case.images,
        "group": case.group,
        "ms": ms,
        "images_per_second": round(1000 * case.images / ms["median"], 1),
        "gflops": round(gflops, 1) if case.flops else None,
        "fraction_of_peak": round(gflops / peak, 3) if case.flops and peak else None,
        "peak_memory_bytes": memory,
    }


def cells(report):
    """The report as rows of texts, the first one a heading."""
    rows = [
        (
            "step",
            "group",
            "precision",
            "ms (min to max)",
            "images/s",
            "GFLOP/s",
            "of peak",
            "peak memory",
        )
    ]
    for row in report["rows"]:
        ms = row["ms"]
        rows.append(
            (
                row["step"],
                row["group"] or "",
                row["precision"],
                f"{ms['median']:.1f} ({ms['min']:.1f} to {ms['max']:.1f})",
                f"{row['images_per_second']:,.0f}",
                f"{row['gflops']:,.0f}" if row["gflops"] else "",
                f"{row['fraction_of_peak']:.0%}" if row["fraction_of_peak"] else "",
                f"{row['peak_memory_bytes'] / 2**30:.2f} GiB" if row["peak_memory_bytes"] else "",
            )
        )
    return rows


def _title(case):
    return " ".join(filter(None, (case.step, case.group, case.precision)))


def _tell(line):
    print(f"benchmark: {line}", file=sys.stderr, flush=True)

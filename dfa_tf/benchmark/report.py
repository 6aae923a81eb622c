"""The benchmark: every step in both precisions, compared with the peak of the machine."""

import dataclasses
import pathlib
import statistics
import sys

import tensorflow as tf

from dfa_tf.benchmark import machine
from dfa_tf.benchmark.cases import (
    ALL_GROUPS,
    KD_VIEWS,
    PLAIN,
    Case,
    Workload,
    cases,
    fixed_batch_case,
    input_case,
    system_cases,
)
from dfa_tf.benchmark.timing import ROUNDS, Milliseconds, Sampler

DTYPES = {"float32": "float32", "mixed_bfloat16": "bfloat16"}  # what each precision computes in
FASTEST = "mixed_bfloat16"  # its steps leave the least time to draw the next batch

HEADING = (
    "step",
    "group",
    "precision",
    "ms (min to max)",
    "images/s",
    "GFLOP/s",
    "of peak",
    "peak memory",
)


@dataclasses.dataclass(frozen=True)
class BenchmarkRow:
    """The measurements of one step.

    Attributes:
        step: Name of the step.
        precision: Keras dtype policy.
        batch: Images in one step.
        group: Group of a step of the search, otherwise None.
        ms: Duration of one step.
        images_per_second: Images over the median duration.
        gflops: GFLOP/s over the median duration; None if operations are not counted.
        fraction_of_peak: `gflops` over the peak of the machine.
        peak_memory_bytes: Peak memory of the process or of the GPU; None if it is unknown.
    """

    step: str
    precision: str
    batch: int
    group: str | None
    ms: Milliseconds
    images_per_second: float
    gflops: float | None
    fraction_of_peak: float | None
    peak_memory_bytes: int | None

    def cells(self) -> tuple[str, ...]:
        """Returns the row under `HEADING`."""
        memory = self.peak_memory_bytes
        return (
            self.step,
            self.group or "",
            self.precision,
            f"{self.ms.median:.1f} ({self.ms.min:.1f} to {self.ms.max:.1f})",
            f"{self.images_per_second:,.0f}",
            f"{self.gflops:,.0f}" if self.gflops else "",
            f"{self.fraction_of_peak:.0%}" if self.fraction_of_peak else "",
            f"{memory / 2**30:.2f} GiB" if memory else "",
        )


@dataclasses.dataclass(frozen=True)
class BenchmarkReport:
    """The result of a benchmark.

    Attributes:
        machine: The machine (see `machine.describe`).
        kernel_gflops: For each dtype, the GFLOP/s of two large kernels.
        teacher: Name of the teacher.
        student: Name of the student.
        rounds: Number of samples of each step.
        input_share_of_distill: The part of a distillation step that drawing its batch takes,
            waiting included: what a batch in memory would save.
        rows: A row for each step and precision.
        joint_over_groups: For each precision and round, the duration of an iteration of the joint
            search over the sum of the groups' durations. Empty if it is not timed.
        views_over_plain: For each precision and round, the duration of a step of KD with cached logits
            over one of plain training. Empty if it is not timed.
    """

    machine: dict[str, str | int]
    kernel_gflops: dict[str, dict[str, float]]
    teacher: str
    student: str
    rounds: int
    input_share_of_distill: float
    rows: list[BenchmarkRow]
    joint_over_groups: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    views_over_plain: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def json(self) -> dict:
        """Returns the content of `bin/benchmark --json`."""
        content = dataclasses.asdict(self)
        kernels = content.pop("kernel_gflops")
        peak = {f"{dtype}_gflops": round(max(k.values()), 1) for dtype, k in kernels.items()}
        return {"machine": content.pop("machine"), "peak": peak | {"kernels": kernels}, **content}

    def cells(self) -> list[tuple[str, ...]]:
        """Returns the table as text, with the heading."""
        return [HEADING, *(row.cells() for row in self.rows)]


def benchmark(
    workload: Workload,
    rounds: int | None = None,
    profile: str | pathlib.Path | None = None,
    systems: bool = False,
) -> BenchmarkReport:
    """Times the steps of search and distillation.

    Args:
        workload: What the steps are timed on.
        rounds: Samples of each step, taken in turn; `ROUNDS` by default.
        profile: Folder for a TensorBoard trace of each step, if any.
        systems: Whether to time the steps of the other systems instead (`cases.system_cases`).
    """
    kernel_gflops = {dtype: machine.peak_gflops(dtype) for dtype in DTYPES.values()}
    rounds = rounds or ROUNDS
    cases_of = system_cases if systems else cases
    timed = [case for precision in DTYPES for case in cases_of(workload, precision)]
    timed.append(input_case(workload))
    samplers = [Sampler(case.run) for case in timed]
    distill = samplers[[(c.step, c.precision) for c in timed].index(("distill", FASTEST))]
    fixed_batch = Sampler(fixed_batch_case(workload, FASTEST).run)
    memory = []
    for k, (case, sampler) in enumerate(zip(timed, samplers, strict=True), start=1):
        _say(f"warming up {k} of {len(timed)}: {case.title}")
        sampler.warm_up()
        memory.append(machine.peak_memory_during(sampler.run))
    fixed_batch.warm_up()
    for k in range(rounds):
        _say(f"round {k + 1} of {rounds}")
        for sampler in samplers:
            sampler.sample()
            if sampler is distill:
                fixed_batch.sample()
    if profile:
        _trace(timed, samplers, profile)
    pairs = zip(fixed_batch.samples, distill.samples, strict=True)
    input_share = statistics.median(1 - fixed / drawn for fixed, drawn in pairs)
    peaks = {dtype: max(kernels.values()) for dtype, kernels in kernel_gflops.items()}
    return BenchmarkReport(
        machine=machine.describe(),
        kernel_gflops=kernel_gflops,
        teacher=workload.teacher.name,
        student=workload.student.name,
        rounds=rounds,
        input_share_of_distill=round(input_share, 3),
        joint_over_groups=_joint_over_groups(timed, samplers),
        rows=[
            _row(case, sampler.milliseconds(), peak_memory, peaks.get(DTYPES.get(case.precision)))
            for case, sampler, peak_memory in zip(timed, samplers, memory, strict=True)
        ],
        views_over_plain=_views_over_plain(timed, samplers),
    )


def _joint_over_groups(timed, samplers):
    """Returns the ratio of each round, `{precision: [ratios]}`."""
    ratios = {}
    for precision in DTYPES:
        by_group = {
            case.group: sampler.samples
            for case, sampler in zip(timed, samplers, strict=True)
            if (case.step, case.precision) == ("search", precision)
        }
        joint = by_group.pop(ALL_GROUPS, None)
        if joint:
            ratios[precision] = _ratios(joint, list(map(sum, zip(*by_group.values(), strict=True))))
    return ratios


def _views_over_plain(timed, samplers):
    """Returns the ratio of each round, `{precision: [ratios]}`."""
    samples = {(c.step, c.precision): s.samples for c, s in zip(timed, samplers, strict=True)}
    return {
        precision: _ratios(views, samples[PLAIN, precision])
        for (step, precision), views in samples.items()
        if step == KD_VIEWS
    }


def _ratios(samples, others):
    return [round(a / b, 3) for a, b in zip(samples, others, strict=True)]


def _row(case: Case, ms: Milliseconds, peak_memory: int | None, peak: float | None):
    gflops = case.flops / ms.median / 1e6
    return BenchmarkRow(
        step=case.step,
        precision=case.precision,
        batch=case.images,
        group=case.group,
        ms=ms,
        images_per_second=round(1000 * case.images / ms.median, 1),
        gflops=round(gflops, 1) if case.flops else None,
        fraction_of_peak=round(gflops / peak, 3) if case.flops and peak else None,
        peak_memory_bytes=peak_memory,
    )


def _trace(timed, samplers, profile):
    for case, sampler in zip(timed, samplers, strict=True):
        _say(f"tracing {case.title}")
        with tf.profiler.experimental.Profile(f"{profile}/{case.title.replace(' ', '-')}"):
            sampler.run()


def _say(line):
    print(f"benchmark: {line}", file=sys.stderr, flush=True)

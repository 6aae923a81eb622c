"""The timed steps: those that search and distillation run, batch after batch."""

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from dfa_tf.alpha import fixed
from dfa_tf.benchmark import flops
from dfa_tf.bilevel.dfa_search import SearchOptions, Supernet, bridge_loss, first_order_steps
from dfa_tf.bilevel.dfa_search_second_order import second_order_steps
from dfa_tf.bilevel.process_search import ProcessSearchNet, meta_step
from dfa_tf.data.augmentation import Augmentation
from dfa_tf.data.examples import Examples
from dfa_tf.data.pipeline import training_batches
from dfa_tf.methods.at import AT
from dfa_tf.methods.dfa import DFA
from dfa_tf.methods.feed import FEED
from dfa_tf.methods.kd import KD
from dfa_tf.methods.logits import Logits
from dfa_tf.methods.losses import plain_objective
from dfa_tf.methods.nst import NST
from dfa_tf.methods.pathways import Pathways
from dfa_tf.models.network import Network
from dfa_tf.objectives.objective import student_objective
from dfa_tf.objectives.teachers import build_method
from dfa_tf.objectives.terms import path_factors
from dfa_tf.training.fit import objective_step
from dfa_tf.training.logit_cache import LogitCache
from dfa_tf.training.loop import Phase, StepFunction
from dfa_tf.training.optimizers import SGD, Adam, Cosine
from dfa_tf.training.runtime import Runtime
from dfa_tf.training.teacher_logits import fill_cache
from dfa_tf.weightings import Adaptive

STEPS_PER_EPOCH, STEPS = 100, 10**6  # of the learning-rate schedules
ALL_GROUPS = "all"  # the group of a joint search's steps
CACHED = 8  # batches whose logits are cached
PLAIN, KD_VIEWS = "student_train", "kd_views"  # the steps of `report.views_over_plain`


@dataclasses.dataclass(frozen=True)
class Workload:
    """What the steps are timed on.

    Attributes:
        teacher: The teacher.
        student: The student.
        examples: The examples that batches are drawn from.
        augmentation: Augmentation of the batches.
        batch_size: Size of the global batch.
        strategy: Strategy to run under.
    """

    teacher: Network
    student: Network
    examples: Examples
    augmentation: Augmentation
    batch_size: int
    strategy: tf.distribute.Strategy

    def batches(self, seed: int, first_step: int = 0, period: int = 0) -> tf.data.Dataset:
        """Returns augmented batches without end. Arguments are as in `training_batches`."""
        arguments = self.examples, self.batch_size, self.augmentation, seed, first_step
        return training_batches(*arguments, period=period)


@dataclasses.dataclass(frozen=True)
class Case:
    """A step to time.

    Attributes:
        step: Name of the step.
        precision: Keras dtype policy.
        group: Group of a step of the search, or `ALL_GROUPS`; otherwise None.
        images: Images in one step.
        flops: Operations of one step that the method requires; 0 if they are not counted.
        run: A function of a number of steps that runs them and returns their duration in seconds.
        folder: Temporary folder of files that the step reads, which is deleted with the case.
    """

    step: str
    precision: str
    group: str | None
    images: int
    flops: int
    run: Callable[[int], float]
    folder: tempfile.TemporaryDirectory | None = None

    @property
    def title(self) -> str:
        """Step, group and precision in words."""
        return " ".join(filter(None, (self.step, self.group, self.precision)))


def cases(workload: Workload, precision: str) -> Iterator[Case]:
    """Yields all cases of one precision, without the input pipeline.

    "kd" runs the teacher in each step. "kd_views" reads cached logits.

    Args:
        workload: What the steps are timed on.
        precision: Keras dtype policy.
    """
    builder = _CaseBuilder(workload, precision)
    yield builder.teacher_forward()
    yield builder.student_forward()
    yield builder.student_train()
    yield builder.kd_views()
    yield builder.distill_by("kd", [KD()])
    yield builder.distill()
    yield from builder.search()


def system_cases(workload: Workload, precision: str) -> Iterator[Case]:
    """Yields the steps of Adaptive Distillation, FEED and DistPro, after that of DFA.

    "nst_gram" is the most expensive of the four paths of "adaptive" alone. "pathways" is training
    with all pathways, and "pathways_of_4" with the last four alone. "search" and "search_order_2"
    are an iteration of DFA's search for its middle group, in both orders.

    Args:
        workload: What the steps are timed on.
        precision: Keras dtype policy.
    """
    builder = _CaseBuilder(workload, precision)
    paths = [AT(form="code", beta=1.0), NST(form="gram", weight=2.0), Logits(), KD(alpha=1.0)]
    yield builder.distill()
    yield builder.distill_by("nst_gram", paths[1:2])
    yield builder.distill_by("adaptive", paths, weighting=Adaptive())
    for count in (1, 5):
        yield builder.distill_by(f"feed_{count}", [FEED()], teachers=count)
    yield builder.distill_by("pathways", [Pathways()])
    yield builder.distill_by("pathways_of_4", [Pathways()], count=4)
    yield builder.process_search()
    yield from builder.search_orders()


def distill_case(workload: Workload, precision: str) -> Case:
    """Returns the distillation step."""
    return _CaseBuilder(workload, precision).distill()


def fixed_batch_case(workload: Workload, precision: str) -> Case:
    """Returns the distillation step on one batch in memory, without its input pipeline."""
    return _CaseBuilder(workload, precision).distill(fixed_batch=True)


def input_case(workload: Workload) -> Case:
    """Returns the input pipeline alone."""
    batches = workload.batches(seed=0)

    @tf.function
    def draw(iterator, steps):
        checksum = tf.zeros([], tf.int32)
        for _ in tf.range(steps):
            images, labels = next(iterator)
            checksum += tf.cast(images[0, 0, 0, 0], tf.int32) + labels[0]
        return checksum

    iterator = iter(batches)

    def run(steps):
        started = time.perf_counter()
        draw(iterator, tf.constant(steps)).numpy()
        return time.perf_counter() - started

    return Case("input", "uint8", None, workload.batch_size, 0, run)


class _CaseBuilder:
    """Builds cases on copies of the networks in one precision."""

    def __init__(self, workload, precision):
        self._workload, self._precision = workload, precision
        self._strategy, self._batch_size = workload.strategy, workload.batch_size
        with self._strategy.scope():
            self._teacher = workload.teacher.folded(precision)
            self._student = workload.student.copy(precision)

    def teacher_forward(self):
        return self._forward("teacher_forward", self._teacher)

    def student_forward(self):
        return self._forward("student_forward", self._student)

    def _forward(self, name, network):
        def step(images, labels):
            outputs = network(images, training=False)
            # The sum over one pixel of each feature keeps the features in the graph.
            checksums = [tf.reduce_sum(outputs["logits"])] + [
                tf.reduce_sum(tf.cast(feature[:, 0, 0], tf.float32))
                for features in outputs["features"].values()
                for feature in features
            ]
            return {"checksum": tf.add_n(checksums)}

        return self._case(name, [step], flops.forward_flops(network))

    def student_train(self):
        """Training without a teacher."""
        with self._strategy.scope():
            variables = self._student.trainable_variables
            optimizer = SGD(Cosine(0.01)).build(variables, STEPS_PER_EPOCH, STEPS)
        objective = plain_objective(self._student)
        step = objective_step(objective, optimizer, self._batch_size)
        operations = flops.training_flops(self._student, needs_input_gradient=False)
        return self._case(PLAIN, [step], operations)

    def kd_views(self):
        """KD with cached logits, which are read from a file."""
        workload, student = self._workload, self._student
        with self._strategy.scope():
            kd = KD().build(self._teacher, student, 0, self._precision)
            optimizer = SGD(Cosine(0.01)).build(student.trainable_variables, STEPS_PER_EPOCH, STEPS)
        folder = tempfile.TemporaryDirectory()
        counts = CACHED, workload.batch_size, 1, student.num_classes
        cache = LogitCache(pathlib.Path(folder.name), *counts, identity={})
        runtime = Runtime(self._strategy, quiet=True)
        fill_cache(cache, [self._teacher], lambda first: workload.batches(0, first), None, runtime)
        objective = student_objective([], student, [kd], [1.0])
        step = objective_step(objective, optimizer, workload.batch_size)
        batches = cache.joined(workload.batches(0, period=CACHED), 0)
        operations = flops.training_flops(student, needs_input_gradient=False)
        case = self._case_of(KD_VIEWS, [Phase(step, batches)], operations)
        return dataclasses.replace(case, folder=folder)

    def distill(self, fixed_batch=False):
        """Stage 2."""
        teacher, student = self._teacher, self._student
        with self._strategy.scope():
            dfa = DFA(fixed("average", teacher)).build(teacher, student, 0, self._precision)
            models = [student, *dfa.connectors]
            variables = [v for model in models for v in model.trainable_variables]
            optimizer = SGD(Cosine(0.01)).build(variables, STEPS_PER_EPOCH, STEPS)
        objective = student_objective(teacher, student, [dfa], [1.0])
        step = objective_step(objective, optimizer, self._batch_size)
        operations = flops.distill_step_flops(teacher, student, dfa.connectors)
        return self._case("distill", [step], operations, fixed_batch=fixed_batch)

    def distill_by(self, name, methods, *, teachers=1, weighting=None, count=0):
        """Distillation by any methods; with `count`, by the last of their distillations alone."""
        student, frozen = self._student, [self._teacher]
        with self._strategy.scope():
            # Copies, because TensorFlow would compute equal networks once.
            frozen += [self._workload.teacher.folded(self._precision) for _ in range(teachers - 1)]
            built = [build_method(m, frozen, student, 0, self._precision) for m in methods]
            distillations = [each for group in built for each in group][-count:]
            weights: Any = [1.0] * len(distillations)
            models = [student, *(c for each in distillations for c in each.connectors)]
            if weighting:
                weights = weighting.build(list(path_factors(distillations)), STEPS)
                models += weights.layers
            variables = [v for model in models for v in model.trainable_variables]
            optimizer = SGD(Cosine(0.01)).build(variables, STEPS_PER_EPOCH, STEPS)
        objective = student_objective(frozen, student, distillations, weights, ce_weight=1.0)
        step = objective_step(objective, optimizer, self._batch_size)
        connectors = [c for each in distillations for c in each.connectors]
        operations = flops.method_step_flops(frozen, student, connectors)
        return self._case(name, [step], operations)

    def process_search(self):
        """The step of DistPro's search, on the same pathways."""
        with self._strategy.scope():
            teacher = self._workload.teacher
            net = ProcessSearchNet(teacher, self._student, [Pathways()], precision=self._precision)
            optimizer = SGD(0.01).build(net.variables, STEPS_PER_EPOCH, STEPS)
            alpha_optimizer = Adam(0.1).build([net.alpha], STEPS_PER_EPOCH, STEPS)
        step = meta_step(net, optimizer, alpha_optimizer, self._batch_size)
        return self._case("process_search", [step], 0, streams=[(0, 1)])

    def search_orders(self):
        """Stage 1: an iteration of the middle group, of first and of second order."""
        supernet = self._supernet()
        group = list(supernet.beta)[len(supernet.beta) // 2]
        orders = {"search": first_order_steps, "search_order_2": second_order_steps}
        for name, steps_of in orders.items():
            steps = self._search_steps(supernet, group, steps_of=steps_of)
            seeds = {"train": 0, "validation": 1}
            streams = [[seeds[split] for split in splits] for splits, _ in steps]
            yield self._case(name, [step for _, step in steps], 0, group, streams=streams)

    def _supernet(self):
        options = SearchOptions(initial="uniform")
        networks = self._teacher, self._student
        with self._strategy.scope():
            return Supernet(*networks, options, precision=self._precision, seed=0)

    def _search_steps(self, supernet, *groups, steps_of=first_order_steps):
        betas = [supernet.beta[group] for group in groups]
        with self._strategy.scope():
            optimizers = (
                Adam().build(betas, STEPS_PER_EPOCH, STEPS),
                SGD(Cosine(0.01)).build(supernet.variables(*groups), STEPS_PER_EPOCH, STEPS),
            )
        return steps_of(supernet, groups, bridge_loss, optimizers, self._batch_size)

    def search(self):
        """Stage 1: for each group the beta step, the w step, and both in turn; then both jointly."""
        supernet = self._supernet()
        for group in supernet.beta:
            steps = self._search_steps(supernet, group)
            (_, on_beta), (_, on_w) = steps
            beta_flops = flops.beta_step_flops(supernet, [group])
            w_flops = flops.w_step_flops(supernet, [group])
            yield self._case("beta", [on_beta], beta_flops, group)
            yield self._case("w", [on_w], w_flops, group)
            yield self._case("search", [on_beta, on_w], beta_flops + w_flops, group)
        if len(supernet.beta) > 1:
            steps = self._search_steps(supernet, *supernet.beta)
            operations = sum(
                count(supernet, list(supernet.beta))
                for count in (flops.beta_step_flops, flops.w_step_flops)
            )
            yield self._case("search", [step for _, step in steps], operations, ALL_GROUPS)

    def _case(
        self,
        name: str,
        steps: Sequence[Callable],
        flops_per_example: int,
        group: str | None = None,
        fixed_batch: bool = False,
        streams: Sequence[Sequence[int]] | None = None,
    ) -> Case:
        """Returns the case of steps. Each receives batches of the streams with its seeds."""
        streams = streams or [[seed] for seed in range(len(steps))]
        phases = []
        for step, seeds in zip(steps, streams, strict=True):
            drawn = [self._workload.batches(seed) for seed in seeds]
            if fixed_batch:
                drawn = [stream.take(1).cache().repeat() for stream in drawn]
            phases.append(Phase.of(step, drawn))
        return self._case_of(name, phases, flops_per_example, group)

    def _case_of(self, name, phases, flops_per_example, group=None):
        function = StepFunction(self._strategy, phases)
        return Case(
            name,
            self._precision,
            group,
            self._batch_size * len(phases),
            self._batch_size * flops_per_example,
            lambda count: function(count)[1],
        )

"""The timed steps: those that search and distillation run, batch after batch."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from dfa_tf.alpha import fixed
from dfa_tf.benchmark import flops
from dfa_tf.data.examples import Examples
from dfa_tf.data.pipeline import Augmentation, training_batches
from dfa_tf.methods.dfa import DFA
from dfa_tf.methods.dfa_search import BridgeLoss, SearchOptions, Supernet, beta_step, w_step
from dfa_tf.methods.losses import plain_objective
from dfa_tf.methods.objective import student_objective
from dfa_tf.models.network import Network
from dfa_tf.training.fit import objective_step
from dfa_tf.training.loop import Phase, StepFunction
from dfa_tf.training.optimizers import SGD, Adam, Cosine

STEPS_PER_EPOCH, STEPS = 100, 10**6  # of the learning-rate schedules


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

    def batches(self, seed: int) -> tf.data.Dataset:
        """Returns augmented batches without end."""
        return training_batches(self.examples, self.batch_size, self.augmentation, seed)


@dataclasses.dataclass(frozen=True)
class Case:
    """A step to time.

    Attributes:
        step: Name of the step.
        precision: Keras dtype policy.
        group: Group of a step of the search, otherwise None.
        images: Images in one step.
        flops: Operations of one step that the method requires; 0 if they are not counted.
        run: A function of a number of steps that runs them and returns their duration in seconds.
    """

    step: str
    precision: str
    group: str | None
    images: int
    flops: int
    run: Callable[[int], float]

    @property
    def title(self) -> str:
        """Step, group and precision in words."""
        return " ".join(filter(None, (self.step, self.group, self.precision)))


def cases(workload: Workload, precision: str) -> Iterator[Case]:
    """Yields all cases of one precision, without the input pipeline.

    Args:
        workload: What the steps are timed on.
        precision: Keras dtype policy.
    """
    builder = _CaseBuilder(workload, precision)
    yield builder.teacher_forward()
    yield builder.student_forward()
    yield builder.student_train()
    yield builder.distill()
    yield from builder.search()


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
        step = objective_step(objective, variables, optimizer, self._batch_size)
        operations = flops.training_flops(self._student, needs_input_gradient=False)
        return self._case("student_train", [step], operations)

    def distill(self, fixed_batch=False):
        """Stage 2."""
        teacher, student = self._teacher, self._student
        with self._strategy.scope():
            dfa = DFA(fixed("average", teacher)).build(teacher, student, 0, self._precision)
            models = [student, *dfa.connectors]
            variables = [v for model in models for v in model.trainable_variables]
            optimizer = SGD(Cosine(0.01)).build(variables, STEPS_PER_EPOCH, STEPS)
        objective = student_objective(teacher, student, [dfa], [1.0])
        step = objective_step(objective, variables, optimizer, self._batch_size)
        operations = flops.distill_step_flops(teacher, student, dfa.connectors)
        return self._case("distill", [step], operations, fixed_batch=fixed_batch)

    def search(self):
        """Stage 1: for each group the beta step, the w step, and both in turn."""
        options = SearchOptions(initial="uniform")
        with self._strategy.scope():
            supernet = Supernet(
                self._teacher, self._student, options, precision=self._precision, seed=0
            )
        loss = BridgeLoss()
        for group, beta in supernet.beta.items():
            with self._strategy.scope():
                beta_optimizer = Adam().build([beta], STEPS_PER_EPOCH, STEPS)
                w_optimizer = SGD(Cosine(0.01)).build(
                    supernet.weights(group), STEPS_PER_EPOCH, STEPS
                )
            on_beta = beta_step(supernet, group, loss, beta_optimizer, self._batch_size)
            on_w = w_step(supernet, group, loss, w_optimizer, self._batch_size)
            beta_flops = flops.beta_step_flops(supernet, group)
            w_flops = flops.w_step_flops(supernet, group)
            yield self._case("beta", [on_beta], beta_flops, group)
            yield self._case("w", [on_w], w_flops, group)
            yield self._case("search", [on_beta, on_w], beta_flops + w_flops, group)

    def _case(
        self,
        name: str,
        steps: Sequence[Callable],
        flops_per_example: int,
        group: str | None = None,
        fixed_batch: bool = False,
    ) -> Case:
        phases = []
        for seed, step in enumerate(steps):
            batches = self._workload.batches(seed)
            phases.append(Phase(step, batches.take(1).cache().repeat() if fixed_batch else batches))
        function = StepFunction(self._strategy, phases)
        return Case(
            name,
            self._precision,
            group,
            self._batch_size * len(phases),
            self._batch_size * flops_per_example,
            lambda count: function(count)[1],
        )

"""What is timed: the very steps that search and distillation run, on one batch after another."""

import dataclasses
import time

import tensorflow as tf

from dfa_tf.alpha import fixed
from dfa_tf.benchmark import flops
from dfa_tf.data.pipeline import training_batches
from dfa_tf.methods.dfa import DFA
from dfa_tf.methods.losses import plain_objective
from dfa_tf.methods.objective import student_objective
from dfa_tf.stages.search_loss import BridgeLoss
from dfa_tf.stages.supernet import Supernet, beta_step, w_step
from dfa_tf.training.fit import objective_step
from dfa_tf.training.loop import Block, Phase
from dfa_tf.training.optimizers import SGD, Adam, Cosine


@dataclasses.dataclass(frozen=True)
class Case:
    """One row. run(steps) takes as long as so many steps take, and returns the seconds.

    flops: of one step, as far as the method needs them; 0 where there is nothing to count.
    images: of one step.
    """

    step: str
    precision: str
    group: str | None
    images: int
    flops: int
    run: object


def cases(teacher, student, examples, augmentation, precision, batch_size, strategy):
    """All cases of one precision but the input's. teacher, student: Networks. examples: to draw from."""
    build = _Builder(examples, augmentation, precision, batch_size, strategy)
    with strategy.scope():
        teacher, student = teacher.folded(precision), student.copy(precision)
    yield build.forward("teacher_forward", teacher)
    yield build.forward("student_forward", student)
    yield build.student_train(student)
    yield build.distill(teacher, student)
    yield from build.search(teacher, student)


def still_case(teacher, student, examples, augmentation, precision, batch_size, strategy):
    """The distillation step on one batch that lies ready: what it takes without its input."""
    build = _Builder(examples, augmentation, precision, batch_size, strategy)
    with strategy.scope():
        teacher, student = teacher.folded(precision), student.copy(precision)
    return build.distill(teacher, student, still=True)


def input_case(examples, augmentation, batch_size):
    """The input pipeline alone."""
    batches = training_batches(examples, batch_size, augmentation, seed=0)

    @tf.function
    def draw(iterator, steps):
        seen = tf.zeros([], tf.int32)
        for _ in tf.range(steps):
            images, labels = next(iterator)
            seen += tf.cast(images[0, 0, 0, 0], tf.int32) + labels[0]
        return seen

    iterator = iter(batches)

    def run(steps):
        began = time.perf_counter()
        draw(iterator, tf.constant(steps)).numpy()
        return time.perf_counter() - began

    return Case("input", "uint8", None, batch_size, 0, run)


class _Builder:
    def __init__(self, examples, augmentation, precision, batch_size, strategy):
        self._examples, self._augmentation = examples, augmentation
        self._precision, self._batch_size, self._strategy = precision, batch_size, strategy

    def forward(self, name, network):
        """Inference, features and all."""

        def step(images, labels):
            outputs = network(images, training=False)
            # Whoever wants the features reads them: a sum over one pixel keeps them in the graph.
            seen = [tf.reduce_sum(outputs["logits"])] + [
                tf.reduce_sum(tf.cast(feature[:, 0, 0], tf.float32))
                for features in outputs["features"].values()
                for feature in features
            ]
            return {"seen": tf.add_n(seen)}

        return self._case(name, None, [step], flops.forward_flops(network))

    def student_train(self, student):
        """Plain training."""
        with self._strategy.scope():
            variables = student.trainable_variables
            optimizer = SGD(Cosine(0.01)).build(variables, 100, 10**6)
        step = objective_step(plain_objective(student), variables, optimizer, self._batch_size)
        counted = flops.training_flops(student, needs_input_gradient=False)
        return self._case("student_train", None, [step], counted)

    def distill(self, teacher, student, still=False):
        """Stage 2. still: of one batch, made before."""
        with self._strategy.scope():
            dfa = DFA(fixed("average", teacher)).build(teacher, student, 0, self._precision)
            models = [student, *dfa.connectors]
            variables = [v for model in models for v in model.trainable_variables]
            optimizer = SGD(Cosine(0.01)).build(variables, 100, 10**6)
        objective = student_objective(teacher, student, [dfa], [1.0], needs=())
        step = objective_step(objective, variables, optimizer, self._batch_size)
        counted = flops.distill_step_flops(teacher, student, dfa.connectors)
        return self._case("distill", None, [step], counted, still)

    def search(self, teacher, student):
        """Stage 1, group by group: each of the two steps, and both in turn."""
        with self._strategy.scope():
            supernet = Supernet(
                teacher,
                student,
                initial="uniform",
                normalize=False,
                clip=True,
                entry="stream",
                precision=self._precision,
                seed=0,
            )
        loss = BridgeLoss()
        for group, beta in supernet.beta.items():
            with self._strategy.scope():
                of_beta = Adam().build([beta], 100, 10**6)
                of_w = SGD(Cosine(0.01)).build(supernet.weights(group), 100, 10**6)
            on_beta = beta_step(supernet, group, loss, of_beta, self._batch_size)
            on_w = w_step(supernet, group, loss, of_w, self._batch_size)
            flops_beta = flops.beta_step_flops(supernet, group)
            flops_w = flops.w_step_flops(supernet, group)
            yield self._case("beta", group, [on_beta], flops_beta)
            yield self._case("w", group, [on_w], flops_w)
            yield self._case("search", group, [on_beta, on_w], flops_beta + flops_w)

    def _case(self, name, group, steps, flops_per_example, still=False):
        phases = []
        for k, step in enumerate(steps):
            batches = training_batches(self._examples, self._batch_size, self._augmentation, k)
            phases.append(Phase(step, batches.take(1).cache().repeat() if still else batches))
        block = Block(self._strategy, phases)
        return Case(
            name,
            self._precision,
            group,
            self._batch_size * len(phases),
            self._batch_size * flops_per_example,
            lambda count: block(count)[1],
        )

"""Evaluation, always of the float32 network that is saved."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from dfa_tf.methods.losses import is_correct
from dfa_tf.models.network import Network
from dfa_tf.training.tally import Tally

MOST_IMAGES, LARGE_SIDE = 500, 64  # a full batch has images of up to 64x64 pixels


def evaluation_batch_size(image_shape: Sequence[int]) -> int:
    """Returns the number of images in a batch of an evaluation.

    It is 500, or fewer for large images, because the maps of a batch must fit in memory.

    Args:
        image_shape: (height, width, channels).
    """
    pixels = image_shape[0] * image_shape[1]
    return max(1, min(MOST_IMAGES, MOST_IMAGES * LARGE_SIDE**2 // pixels))


class Evaluator:
    """Evaluates networks of one architecture on one set of examples.

    Args:
        template: A network of this architecture. Evaluation uses a float32 copy outside any strategy,
            so that the saved file has the reported accuracy.
        examples: The examples; None for no evaluation.
        batch_size: Number of examples in a batch. The last batch may be smaller. None for
            `evaluation_batch_size`.
    """

    def __init__(self, template: Network, examples: Any, batch_size: int | None = None):
        self._copy = template.copy("float32")
        self._examples = examples
        self._batch_size = batch_size or evaluation_batch_size(template.image_shape)

        @tf.function(reduce_retracing=True)
        def logits(images):
            return self._copy(images, training=False)["logits"]

        self._logits = logits

    def network(self, trained: Network) -> Network:
        """Returns the float32 network with the weights of `trained`, averaged over replicas.

        Each call returns the same network, with new weights.
        """
        self._copy.set_weights(trained.get_weights())
        return self._copy

    def __call__(self, trained: Network) -> Tally | None:
        """Returns the predictions for all examples; None without examples."""
        network = self.network(trained)
        if self._examples is None:
            return None
        batches = self._examples.in_order(self._batch_size)
        return Tally.of(batches, self._logits, network.num_classes)


def agreement(teachers: Sequence[Network], student: Network, examples: Any) -> float:
    """Returns the share of examples for which student and teachers predict the same class.

    Args:
        teachers: The teachers. Several of them predict by the mean of their probabilities.
        student: The float32 student.
        examples: The examples.
    """

    @tf.function(reduce_retracing=True)
    def agreed(images):
        probabilities = [tf.nn.softmax(t(images, training=False)["logits"]) for t in teachers]
        prediction = tf.argmax(tf.add_n(probabilities), -1, output_type=tf.int32)
        same = is_correct(student(images, training=False)["logits"], prediction)
        return tf.reduce_sum(tf.cast(same, tf.float32))

    batches = examples.in_order(evaluation_batch_size(examples.image_shape))
    return sum(float(agreed(images)) for images, _ in batches) / len(examples)

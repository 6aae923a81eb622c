"""Accuracy of a network, always as the float32 network that would be saved."""

import tensorflow as tf

from dfa_tf.methods.losses import cross_entropy


class Evaluator:
    """Evaluates networks of one kind on one set of examples.

    like: a Network; a float32 copy of it, outside of any strategy, does the work, and is what
        `network` returns: the same numbers come from the file that it is saved to.
    examples: what to evaluate on, each counted once.
    """

    def __init__(self, like, examples, batch_size=500):
        self._copy = like.copy("float32")
        self._examples = examples
        self._batch_size = batch_size

        @tf.function(reduce_retracing=True)
        def count(images, labels):
            return evaluation_counts(self._copy(images, training=False)["logits"], labels)

        self._count = count

    def network(self, trained):
        """The float32 network of trained's weights (averaged over replicas)."""
        self._copy.set_weights(trained.get_weights())
        return self._copy

    def __call__(self, trained):
        """{"accuracy": fraction, "loss": mean cross entropy} of `trained`; None for no examples."""
        self.network(trained)
        if self._examples is None:
            return None
        return mean_counts(self._examples.in_order(self._batch_size), self._count)


def evaluation_counts(logits, labels):
    """(how many are right, sum of cross entropies) of one batch."""
    right = tf.argmax(logits, -1, output_type=labels.dtype) == labels
    return (
        tf.reduce_sum(tf.cast(right, tf.float32)),
        tf.reduce_sum(cross_entropy(logits, labels)),
    )


def mean_counts(batches, count):
    """Averages `count(images, labels)` over all examples of finite batches."""
    examples, right, loss = 0, 0.0, 0.0
    for images, labels in batches:
        batch_right, batch_loss = count(images, labels)
        examples += len(labels)
        right += float(batch_right)
        loss += float(batch_loss)
    return {"accuracy": right / examples, "loss": loss / examples}

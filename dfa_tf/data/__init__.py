"""Data sets, and the batches drawn from them."""

from dfa_tf.data.augmentation import Augmentation
from dfa_tf.data.dataset import Dataset
from dfa_tf.data.digits import digits
from dfa_tf.data.examples import Examples
from dfa_tf.data.indexed import IndexedExamples
from dfa_tf.data.noise import noise_like
from dfa_tf.data.pipeline import check_batches, replica_part, training_batches
from dfa_tf.data.sources import load
from dfa_tf.data.splits import stratified_split
from dfa_tf.data.streamed import StreamedExamples

__all__ = [
    "Augmentation",
    "Dataset",
    "Examples",
    "IndexedExamples",
    "StreamedExamples",
    "check_batches",
    "digits",
    "load",
    "noise_like",
    "replica_part",
    "stratified_split",
    "training_batches",
]

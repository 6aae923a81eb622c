"""From examples to the batches of a step: a function of the step, augmented, shared by replicas."""

import dataclasses

import tensorflow as tf

from dfa_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random shift and mirror image of each training image.

    pad: pixels of reflection padding on each side before a crop to the old size; 0 for none.
    flip: whether half of the images are mirrored left to right.
    Raises UserError for a padding that is no whole number, 0 or more.
    """

    pad: int = 4
    flip: bool = True

    def __post_init__(self):
        if not isinstance(self.pad, int) or self.pad < 0:
            raise UserError(f"dataset.pad is a whole number of pixels, not {self.pad!r}")
        if not isinstance(self.flip, bool):
            raise UserError(f"dataset.flip is True or False, not {self.flip!r}")

    def __call__(self, images, seed):
        """Augments a batch. images: [B, H, W, C]. seed: int [2]. Returns images' shape and dtype.

        Padding, crop and flip are one look-up of source pixels, so no padded copy is made.
        """
        if not self.pad and not self.flip:
            return images
        batch, height, width, channels = tf.unstack(tf.shape(images))
        draws = tf.random.stateless_uniform([3, batch], seed, None, None, tf.int32)
        shift = tf.math.floormod(draws[:2], 2 * self.pad + 1) - self.pad
        mirror = tf.math.floormod(draws[2], 2) * int(self.flip)

        rows = tf.range(height)[tf.newaxis] + shift[0, :, tf.newaxis]
        columns = tf.range(width)[tf.newaxis]
        columns = tf.where(mirror[:, tf.newaxis] == 1, width - 1 - columns, columns)
        columns = columns + shift[1, :, tf.newaxis]
        rows, columns = _reflect(rows, height), _reflect(columns, width)

        pixels = tf.reshape(images, [batch, height * width, channels])
        source = rows[:, :, tf.newaxis] * width + columns[:, tf.newaxis, :]
        moved = tf.gather(pixels, tf.reshape(source, [batch, -1]), axis=1, batch_dims=1)
        return tf.ensure_shape(tf.reshape(moved, tf.shape(images)), images.shape)


def _reflect(places, size):
    """Folds places outside of 0..size-1 back inside, the edge pixel not repeated."""
    return size - 1 - tf.abs(size - 1 - tf.abs(places))


def training_batches(examples, batch_size, augmentation, seed, first_step=0):
    """Endless augmented batches (images [B, H, W, C] uint8, labels [B] int32).

    The batch of step k depends on (seed, k) alone: started at `first_step` = k, this gives what
    a run from 0 would see there. Augmentation(pad=0, flip=False) leaves the images as they are.
    """
    batches = examples.shuffled(batch_size, seed, first_step)

    def augment(step, batch):
        images, labels = batch
        return augmentation(images, tf.stack([tf.constant(seed, tf.int64), step])), labels

    return batches.enumerate(first_step).map(augment).prefetch(4)


def check_batches(examples, batch_size, augmentation, replicas=1):
    """Raises UserError unless such batches can be drawn from `examples` and split over replicas."""
    if not isinstance(batch_size, int) or batch_size < 1 or batch_size % replicas:
        raise UserError(
            f"batch_size is a whole multiple of the {replicas} replicas, not {batch_size}"
        )
    if batch_size > len(examples):
        raise UserError(
            f"a batch of {batch_size} is larger than the split of {len(examples)} examples it is drawn from: bind a smaller batch_size"
        )
    if augmentation.pad >= min(examples.image_shape[:2]):
        raise UserError(
            f"{augmentation.pad} pixels of padding do not fit images of {examples.image_shape[:2]}: bind a smaller dataset.pad"
        )


def replica_part(batch):
    """This replica's even part of a global batch; call it within `strategy.run`.

    batch: a structure of tensors [B, ...]. Every worker draws the whole batch and every replica
    keeps its own part, so that any number of them sees the same examples, in the same order.
    """
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    if replicas == 1:
        return batch
    with tf.device("CPU:0"):  # so that only the part travels to the replica's device
        return tf.nest.map_structure(
            lambda x: tf.reshape(x, [replicas, x.shape[0] // replicas, *x.shape[1:]])[
                context.replica_id_in_sync_group
            ],
            batch,
        )

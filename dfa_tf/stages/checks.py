"""Whether networks, examples and a schedule fit each other."""

from dfa_tf.data.pipeline import check_batches
from dfa_tf.errors import UserError
from dfa_tf.training.optimizers import check_recipe, steps_of


def check_pair(teacher, student):
    """Raises UserError unless both take the same images and tell the same classes."""
    pair = _named(teacher, student)
    if teacher.image_shape != student.image_shape:
        raise UserError(
            f"{pair} take images {teacher.image_shape} and {student.image_shape}: they must agree"
        )
    if teacher.num_classes != student.num_classes:
        raise UserError(
            f"{pair} tell {teacher.num_classes} and {student.num_classes} classes: they must agree"
        )


def check_same_groups(teacher, student):
    """Raises UserError unless both have as many groups, of the same spatial sizes (DFA §3.1)."""
    sizes = [_sizes(network) for network in (teacher, student)]
    if teacher.group_names != student.group_names or sizes[0] != sizes[1]:
        told = " and of ".join(", ".join(_shown(size) for size in each) for each in sizes)
        raise UserError(
            f"{_named(teacher, student)} do not correspond: their groups have maps of {told}; choose networks whose groups have the same sizes"
        )


def check_same_features(searched, teacher, source):
    """Raises UserError unless alpha of the one teacher has a weight for each feature of the other.

    source: where the search of `searched` comes from.
    """
    counts = [
        [len(network.group(name).features) for name in network.group_names]
        for network in (searched, teacher)
    ]
    if counts[0] != counts[1]:
        told = " and ".join(", ".join(map(str, each)) for each in counts)
        raise UserError(
            f"alpha goes from group to group of as many features: {searched.name} of {source} and {teacher.name} have groups of {told}"
        )


def _sizes(network):
    """(height, width) of each group's features."""
    return [network.group(name).feature_shape[:2] for name in network.group_names]


def _shown(size):
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def _named(teacher, student):
    return f"the teacher {teacher.name} and the student {student.name}"


def check_task(network, num_classes, image_shape, path):
    """Raises UserError unless `network` tells `num_classes` classes of images of `image_shape`."""
    if network.num_classes != num_classes:
        raise UserError(
            f"{path} tells {network.num_classes} classes, the data set has {num_classes}: give a network trained on it, or remove the file"
        )
    if network.image_shape != tuple(image_shape):
        raise UserError(
            f"{path} takes images {network.image_shape}, the data set's are {tuple(image_shape)}: give a network trained on it, or remove the file"
        )


def check_examples(network, *examples):
    """Raises UserError unless `network` takes these images and tells all of their classes."""
    for part in examples:
        if network.image_shape != part.image_shape:
            raise UserError(
                f"{network.name} takes images {network.image_shape}, the examples' are {part.image_shape}: they must agree"
            )
        if network.num_classes <= part.labels.max():
            raise UserError(
                f"{network.name} tells {network.num_classes} classes, the examples have labels up to {part.labels.max()}: build it for {part.labels.max() + 1} classes"
            )


def check_schedule(examples, *, batch_size, epochs, augmentation, replicas, optimizers):
    """Raises UserError unless such a run can be made: of batches from each of `examples`, for
    `epochs` epochs of the first, with these recipes of optimizers."""
    for part in examples:
        check_batches(part, batch_size, augmentation, replicas)
    steps_of(epochs, len(examples[0]), batch_size)
    for optimizer in optimizers:
        check_recipe(optimizer)

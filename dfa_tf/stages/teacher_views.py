"""The cached logits of a distillation: `distill.teacher_views`."""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Annotated

from dfa_tf.data.pipeline import training_batches
from dfa_tf.errors import UserError
from dfa_tf.methods.method import Method
from dfa_tf.models.network import Network
from dfa_tf.objectives.targets import Targets
from dfa_tf.stages.identity import fingerprint
from dfa_tf.training.batches import batches_seed
from dfa_tf.training.logit_cache import SETTING, LogitCache, period_of
from dfa_tf.training.recipe import Training
from dfa_tf.training.runtime import Runtime
from dfa_tf.validation import Interval, check_value

LABEL = "distill"  # of the run, which names the seed of its batches
FOLDER = "teacher_views"
Views = Annotated[int, Interval(0)]


def check_teacher_views(teacher_views: int, methods: Sequence[Method]) -> None:
    """Checks that the methods can learn from cached logits.

    Args:
        teacher_views: As in `distill`.
        methods: The distillation methods; none for plain training.

    Raises:
        UserError: If `teacher_views` is not a number of views, or the methods need more than the
            logits of the teachers.
    """
    check_value(SETTING, teacher_views, Views)
    if not teacher_views:
        return
    if not methods:
        raise UserError(
            f"{SETTING}: expected 0 for plain training, which has no teacher, got {teacher_views}"
        )
    for method in methods:
        if not method.logits_only:
            raise UserError(
                f"{SETTING}: expected 0 with {method.name}, which needs more of the teacher than its "
                f"logits, got {teacher_views}"
            )


def logit_cache(
    teacher_views: int,
    teachers: Sequence[Network],
    classes: int,
    train,
    training: Training,
    targets: Targets,
    workdir: pathlib.Path,
    runtime: Runtime,
) -> LogitCache | None:
    """Returns the cache of the logits of a distillation; None if its batches do not repeat.

    Args:
        teacher_views: As in `distill`.
        teachers: The teachers.
        classes: Number of classes.
        train: The training examples.
        training: The recipe.
        targets: As in `distill`. Mixup changes what the teachers see.
        workdir: The workdir.
        runtime: As in `distill`.
    """
    steps = training.steps(len(train))
    period = period_of(teacher_views, len(train), training.batch_size, steps)
    if not period:
        return None
    identity = {
        "teacher": [fingerprint(each) for each in teachers],
        "train": train.description,
        "augmentation": repr(training.augmentation),
        "mixup": float(targets.mixup),
        "seed": training.seed,
        "precision": training.precision,
        "batch_size": training.batch_size,
        "first batch": _first_batch(train, training),
        "teacher_views": teacher_views,
    }
    cache = LogitCache(
        workdir / FOLDER, period, training.batch_size, len(teachers), classes, identity
    )
    return cache.shared_in(runtime.views_folder) if runtime.views_folder else cache


def replaces_logits(runtime: Runtime) -> bool:
    """Returns whether the logits are computed again: those in the workdir, with --fresh.

    Other runs share those in `runtime.views_folder`.
    """
    return runtime.fresh and not runtime.views_folder


def _first_batch(train, training):
    """Returns a digest of the first batch, which shows how the images are read and augmented."""
    seed = batches_seed(training, LABEL)
    batches = training_batches(train, training.batch_size, training.augmentation, seed)
    images, _ = next(iter(batches))
    return hashlib.sha256(images.numpy().tobytes()).hexdigest()[:12]

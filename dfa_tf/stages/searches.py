"""What the searches for alpha and for a process share: their checks, inputs and results."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from dfa_tf.models.network import Network
from dfa_tf.stages.checks import check_examples, check_pair, check_schedule
from dfa_tf.stages.identity import fingerprint, starting_point
from dfa_tf.training.recipe import Training


def check_search(
    stage: str,
    teacher: Network,
    student: Network,
    train,
    validation,
    training: Training,
    replicas: int,
) -> None:
    """Checks that networks, examples and schedule of a search are compatible.

    Args:
        stage: Name of the stage in gin, for error messages.
        teacher: The teacher.
        student: The student.
        train: Examples for the student.
        validation: Examples for the searched parameters.
        training: The recipe.
        replicas: Number of replicas that share a batch.

    Raises:
        UserError: If they are incompatible.
    """
    check_pair(teacher, student)
    check_examples(student, train, validation)
    check_schedule(stage, [train, validation], training, replicas)


def search_inputs(teacher: Network, student: Network, train, validation) -> dict[str, str]:
    """Returns texts that identify the inputs of a search, for `StageFolder`."""
    return {
        "teacher": fingerprint(teacher),
        "student": starting_point(student),
        "train": train.description,
        "validation": validation.description,
    }


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The result of a search, as recorded in metrics.json.

    Fields shared with `TrainingResult` have the same meaning. A search does not measure test
    accuracy, so `best` is None, `test_examples` is 0, and `last` holds the validation loss alone.
    """

    steps: int
    epochs: float
    train_examples: int
    validation_examples: int
    test_examples: int
    last: dict
    best: None
    seconds: float
    images_per_second: float | None

    @classmethod
    def of(
        cls, journal: Any, splits: Mapping, epochs: float, images_per_step: int
    ) -> "SearchResult":
        """Returns the result of a finished search.

        Args:
            journal: The journal of the search, with the field `validation_loss`.
            splits: The examples by split, "train" and "validation".
            epochs: Passes over the training examples.
            images_per_step: Images in one iteration.
        """
        return cls(
            steps=journal.step,
            epochs=epochs,
            train_examples=len(splits["train"]),
            validation_examples=len(splits["validation"]),
            test_examples=0,
            last={"accuracy": None, "loss": journal.validation_loss},
            best=None,
            seconds=round(journal.seconds, 1),
            images_per_second=journal.images_per_second(images_per_step),
        )

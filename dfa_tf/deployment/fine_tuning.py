"""Fine-tuning of a student with rounded numbers, for integer files that lose accuracy."""

import dataclasses
import hashlib
import pathlib

from dfa_tf.data.examples import AnyExamples
from dfa_tf.deployment.quantization_aware import quantized_objective
from dfa_tf.models.network import Network
from dfa_tf.training.fit import Problem, fit
from dfa_tf.training.recipe import Training
from dfa_tf.training.runtime import Runtime


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """A fine-tuning that runs if an integer file needs it.

    Attributes:
        student: The network. It is not changed.
        teacher: The teacher it learns from, see `quantized_objective`.
        train: Training examples.
        test: Test examples, for the log.
        training: The training recipe.
        runtime: Devices and logging.
        folder: Folder of checkpoints and logs.
    """

    student: Network
    teacher: Network
    train: AnyExamples
    test: AnyExamples
    training: Training
    runtime: Runtime
    folder: pathlib.Path

    def run(self) -> Network:
        """Trains a copy of the student, or resumes an interrupted fine-tuning.

        Returns:
            The fine-tuned network in float32.
        """
        with self.runtime.devices.scope():
            student = self.student.copy("float32")
            objective = quantized_objective(student, self.teacher.folded("float32"))
        network, _ = fit(
            Problem(student, objective),
            self.train,
            self.test,
            self.training,
            label="export/fine_tuning",
            folder=self.folder,
            runtime=self.runtime,
        )
        return network


def fine_tuning_digest(student: str, teacher: str, train: AnyExamples, training: Training) -> str:
    """Returns text that identifies a fine-tuning.

    Args:
        student: Fingerprint of the student.
        teacher: Fingerprint of the teacher.
        train: Training examples.
        training: The training recipe.
    """
    inputs = [student, teacher, train.description, repr(training)]
    return hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:8]

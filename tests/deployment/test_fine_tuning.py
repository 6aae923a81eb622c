"""Fine-tuning: which files it applies to, and whose checkpoints it resumes from."""

import dataclasses

import pytest

from dfa_tf.data import Augmentation
from dfa_tf.deployment import writer
from dfa_tf.deployment.fine_tuning import FineTuning, fine_tuning_digest
from dfa_tf.deployment.verify import Reference
from dfa_tf.stages.export import ExportOptions, export
from dfa_tf.training.recipe import Training
from tests.conftest import made_examples
from tests.deployment.networks import tiny_network


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch):
    monkeypatch.setattr(writer, "measure", lambda path: {})


def export_with_teacher(workdir, student_seed=3, networks=None, **options):
    student, teacher = networks or (tiny_network(student_seed), tiny_network(seed=2))
    return export(
        network=student,
        teacher=teacher,
        test=made_examples(40, seed=9),
        train=made_examples(80, seed=3),
        workdir=workdir,
        options=ExportOptions(**{"max_loss": 1.0, "batch_size": 8} | options),
    )


def test_integer_file_that_loses_too_much_is_fine_tuned_and_no_other_file_is(
    tmp_path, capsys, monkeypatch
):
    """Here the first conversion always loses; the fine-tuned one is kept because it is better."""
    compare = Reference.compare
    compared = []

    def worse_at_first(self, path):
        compared.append(path.name)
        result = compare(self, path)
        is_first = path.name == "student_int8.tflite"
        return dataclasses.replace(result, accuracy=-1.0) if is_first else result

    monkeypatch.setattr(Reference, "compare", worse_at_first)
    report = export_with_teacher(tmp_path, kinds=("float32", "int8"))
    float32, integer = report["files"]
    assert "student_int8.tflite" in capsys.readouterr().err
    assert compared == [
        "saved_model",
        "student_float32.tflite",
        "student_int8.tflite",
        "fine_tuned.tflite",
    ]
    assert integer["fine_tuned"]
    assert integer["accuracy"] >= 0  # of the fine-tuned file
    assert "fine_tuned" not in float32
    assert float32["agreement"] == 1.0  # with the student before fine-tuning
    assert not list((tmp_path / "export").glob("fine_tuning*"))


def test_fine_tuned_file_that_is_not_better_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(FineTuning, "run", lambda self: self.student.copy("float32"))
    report = export_with_teacher(tmp_path, kinds=("int8",), fine_tune_above=-1.0)
    assert report["files"][0]["fine_tuned"] is False


def test_integer_file_that_loses_little_is_not_fine_tuned(tmp_path, monkeypatch):
    monkeypatch.setattr(FineTuning, "run", None)  # a call would raise TypeError
    report = export_with_teacher(tmp_path, kinds=("int8",), fine_tune_above=1.0)
    assert "fine_tuned" not in report["files"][0]


def test_fine_tuning_of_another_student_is_not_resumed(tmp_path, monkeypatch):
    """An interrupted fine-tuning stays in the folder for the next export."""
    folders = []

    def run(self):
        folders.append(self.folder)
        return self.student

    monkeypatch.setattr(FineTuning, "run", run)
    for seed in (3, 4):
        export_with_teacher(tmp_path, seed, kinds=("int8",), fine_tune_above=-1.0)
    assert len(set(folders)) == 2


def test_digest_depends_on_all_that_a_fine_tuning_depends_on():
    inputs = {
        "student": "student 1",
        "teacher": "teacher 1",
        "train": made_examples(80, seed=3),
        "training": Training(epochs=1.0, batch_size=8),
    }
    changes = {
        "student": "student 2",
        "teacher": "teacher 2",
        "train": made_examples(40, seed=3),
        "training": Training(epochs=2.0, batch_size=8),
    }
    digest = fine_tuning_digest(**inputs)
    assert digest == fine_tuning_digest(**inputs)
    others = [fine_tuning_digest(**inputs | {k: v}) for k, v in changes.items()]
    augmented = Training(epochs=1.0, batch_size=8, augmentation=Augmentation(pad=2))
    others.append(fine_tuning_digest(**inputs | {"training": augmented}))
    assert len({digest, *others}) == 6


def test_export_with_another_fine_tuning_is_not_reused(tmp_path, monkeypatch):
    monkeypatch.setattr(FineTuning, "run", lambda self: self.student.copy("float32"))
    common = {"networks": (tiny_network(3), tiny_network(2)), "fine_tune_above": -1.0}
    first = export_with_teacher(tmp_path, kinds=("int8",), **common)
    monkeypatch.setattr(FineTuning, "run", None)  # a call raises TypeError
    assert export_with_teacher(tmp_path, kinds=("int8",), **common) == first
    with pytest.raises(TypeError):
        export_with_teacher(tmp_path, kinds=("int8",), batch_size=5, **common)

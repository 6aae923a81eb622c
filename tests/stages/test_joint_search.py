"""The joint search as a stage: its files, its errors, and resumption."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dfa_tf import models
from dfa_tf.bilevel.dfa_search import SearchOptions
from dfa_tf.errors import Interrupted, UserError
from dfa_tf.stages.search import check
from dfa_tf.stages.search_record import SearchRecord
from dfa_tf.training.runtime import Runtime
from tests.conftest import CLASSES, made_examples, same, small_network
from tests.stages.conftest import Run, stop_at

JOINT = SearchOptions(joint=True)
STEPS = 7  # 84 examples in batches of 12


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """A Run whose workdir holds a finished joint search."""
    run = Run(tmp_path_factory.mktemp("joint"))
    run.alpha = run.search(options=JOINT)
    return run


def _content(run):
    return json.loads((run.workdir / "search" / "alpha.json").read_text())


def _layout(content):
    """The keys of a JSON file, and the lengths of the lists of numbers and names."""
    if isinstance(content, dict):
        return {key: _layout(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_layout(value) for value in content]
    return type(content)


def test_alpha_file_has_the_form_of_the_search_by_groups(joint, finished):
    found, expected = _content(joint), _content(finished)
    assert _layout(found) == _layout(expected)
    assert [g["name"] for g in found["groups"]] == [g["name"] for g in expected["groups"]]
    assert (found["steps"], expected["steps"]) == (STEPS, 3 * STEPS)
    for group, other in zip(found["groups"], expected["groups"], strict=True):
        assert [step for step, _ in group["history"]] == [0, 4, STEPS]
        assert group["history"][0] == other["history"][0]
        assert group["history"][-1][1] == group["alpha"] != group["history"][0][1]
        assert sum(group["mean_loss_gradient"]) == pytest.approx(0, abs=1e-6)
        assert np.any(np.array(group["mean_loss_gradient"]) != 0)


def test_metrics_count_one_schedule(joint):
    metrics = json.loads((joint.workdir / "search" / "metrics.json").read_text())
    assert (metrics["steps"], metrics["epochs"]) == (STEPS, 1)
    assert (joint.workdir / "search" / "alpha.png").exists()


def _scalars(run):
    """The last value of each scalar of TensorBoard, with its step."""
    events = EventAccumulator(str(run.workdir / "search"), {"tensors": 0}).Reload()
    tags = events.summary_metadata
    last = {
        tag: events.Tensors(tag)[-1]
        for tag, metadata in tags.items()
        if metadata.plugin_data.plugin_name == "scalars"
    }
    return {
        tag: (event.step, float(tf.make_ndarray(event.tensor_proto))) for tag, event in last.items()
    }


def test_last_scalars_are_the_alpha_of_the_file(joint, finished):
    """With the tags of the search by groups. The losses have further ones for each group."""
    found, tags = _scalars(joint), set(_scalars(finished))
    assert len(tags) > 3 * 9  # alpha and two gradients of each feature
    assert set(found) >= tags
    of_groups = {f"{tag}/{group.name}" for tag in tags for group in joint.alpha.groups}
    assert set(found) - tags <= of_groups
    for group in joint.alpha.groups:
        for feature, weight in zip(group.features, group.alpha, strict=True):
            assert found[f"alpha/{feature}"] == (STEPS, pytest.approx(weight, rel=1e-6))


@pytest.mark.slow
def test_student_of_the_path_of_a_joint_alpha_is_that_of_the_alpha_itself(joint, tmp_path):
    """DFA-T: the alpha of one run in a distillation of another workdir."""
    path = joint.workdir / "search" / "alpha.json"
    students = [
        Run(tmp_path / name).distill(alpha=alpha)
        for name, alpha in (("path", path), ("alpha", joint.alpha))
    ]
    assert same(*(student.get_weights() for student in students))
    average = Run(tmp_path / "average").distill()
    assert not same(students[0].get_weights(), average.get_weights())


def test_interrupted_joint_search_resumes_to_the_same_alpha(joint, tmp_path, monkeypatch):
    run = Run(tmp_path)
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        stop_at(patched, SearchRecord, "add", 3)
        run.search(options=JOINT)
    assert not (tmp_path / "search" / "alpha.json").exists()
    assert run.search(options=JOINT) == joint.alpha
    straight = (joint.workdir / "search" / "alpha.json").read_bytes()
    assert (tmp_path / "search" / "alpha.json").read_bytes() == straight


def test_joint_search_does_not_match_the_folder_of_a_search_by_groups(joint, finished):
    with pytest.raises(UserError, match=r"search\.joint"):
        finished.search(options=JOINT)
    with pytest.raises(UserError, match=r"search\.joint"):
        joint.search()


@pytest.mark.parametrize("changes", [{"loss": "student"}, {"order": 2}])
def test_options_without_a_joint_form_name_the_setting_and_nothing_is_written(run, changes):
    with pytest.raises(UserError, match=r"search\.joint") as error:
        run.search(options=SearchOptions(joint=True, **changes))
    assert next(iter(changes)) in str(error.value)
    assert not (run.workdir / "search").exists()


def _vgg(depth):
    return models.vgg(depth, CLASSES, image_shape=(16, 16, 3))


@pytest.mark.parametrize(
    ("network", "groups"), [(lambda: _vgg(8), 1), (lambda: small_network(depth=10), 0)]
)
def test_teacher_without_two_searchable_groups_names_the_setting(run, network, groups):
    """VGG-8 has several features in its last group alone, WRN-10 in none."""
    teacher = student = network()
    examples = made_examples(24, shape=teacher.image_shape)
    arguments = teacher, student, examples, examples, run.training
    with pytest.raises(UserError, match=r"search\.joint") as error:
        check(*arguments, JOINT, 1)
    assert f"got {groups} " in str(error.value)
    check(*arguments, SearchOptions(), 1)


@pytest.mark.slow
def test_group_with_one_feature_keeps_its_weight(run):
    """MobileNetV2 has one feature in its last group."""
    shape = (16, 16, 3)
    teacher, student = (
        models.mobilenet_v2(
            num_classes=CLASSES, width=0.25, stem_stride=1, image_shape=shape, seed=seed
        )
        for seed in (1, 2)
    )
    examples = [made_examples(48, seed, shape) for seed in (3, 4)]
    networks = {"teacher": teacher, "student": student}
    alpha = run.search(options=JOINT, train=examples[0], validation=examples[1], **networks)
    *searched, last = alpha.groups
    assert last.alpha == [1.0]
    for group in searched:
        assert len(group.alpha) > 1
        assert group.alpha != group.history[0][1]


@pytest.mark.slow
def test_joint_search_in_bfloat16_moves_alpha_and_stays_finite(run):
    alpha = run.search(options=JOINT, precision="mixed_bfloat16")
    for group in alpha.groups:
        assert np.isfinite(group.beta).all()
        assert group.alpha != group.history[0][1]


@pytest.mark.slow
def test_interrupted_joint_search_of_two_replicas_resumes_to_the_same_alpha(
    run, two_replicas, tmp_path, monkeypatch
):
    runtime = Runtime(strategy=two_replicas, quiet=True, log_every=4, evaluate_every=1e9)
    arguments = {"options": JOINT, "runtime": runtime}
    straight = run.search(**arguments, workdir=tmp_path / "straight")
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        stop_at(patched, SearchRecord, "add", 1)
        run.search(**arguments)
    assert run.search(**arguments) == straight

"""Analytic counts of operations, compared with counts by hand."""

import keras
import pytest

from dfa_tf import models
from dfa_tf.benchmark import flops
from dfa_tf.methods.connectors import group_connectors
from tests.conftest import small_network, small_supernet

GROUPS = ("group1", "group2", "group3")
# WRN_10_1 on 8x8 images with 3 channels and 4 classes, in multiply-additions:
STEM = 64 * 9 * 3 * 16
GROUP1 = 64 * 9 * 16 * 16 * 2
GROUP2 = 16 * (9 * 16 * 32 + 9 * 32 * 32 + 16 * 32)
GROUP3 = 4 * (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64)
CLASSIFIER = 64 * 4
ALL = STEM + GROUP1 + GROUP2 + GROUP3 + CLASSIFIER
CONNECTOR2 = 16 * 32 * 32  # of group 2, in both directions: both networks have 32 channels


@pytest.fixture(scope="module")
def network():
    return small_network(depth=10)


@pytest.fixture(scope="module")
def supernet():
    return small_supernet(small_network(depth=16), small_network(depth=10))


def test_forward_pass_counts_convolutions_and_the_classifier(network):
    assert flops.forward_flops(network) == 2 * ALL


def test_part_of_a_network_counts_its_own_layers(network):
    assert flops.forward_flops(network.features_model("group2")) == 2 * (STEM + GROUP1 + GROUP2)
    assert flops.forward_flops(network.tail_model("group2", "stream")) == 2 * (GROUP3 + CLASSIFIER)


def test_training_counts_two_gradients_of_each_product_but_not_that_of_the_image(network):
    assert flops.training_flops(network, needs_input_gradient=False) == 3 * 2 * ALL - 2 * STEM


def test_count_of_wrn_16_2_is_the_published_one():
    """About 0.10 billion multiply-additions for 32x32 images."""
    network = models.wide_resnet(16, 2, 100)
    assert flops.forward_flops(network) / 2 == pytest.approx(0.101e9, rel=0.01)


def test_count_of_mobilenet_v2_is_the_published_one():
    """300 million multiply-additions for 224x224 images and 1000 classes (its Table 4)."""
    network = keras.applications.MobileNetV2(weights=None)
    assert flops.forward_flops(network) / 2 == pytest.approx(300e6, rel=0.01)


def test_separable_convolution_counts_both_kernels():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.SeparableConv2D(5, 3, 2, padding="same")(inputs))
    assert flops.forward_flops(model) == 2 * 4 * 4 * (9 * 3 + 3 * 5)


def test_bridge_loss_counts_the_student_once_and_the_teacher_up_to_the_group(supernet):
    """Eqn 13, with the teacher's pass shared by both paths and with the connectors."""
    teacher = flops.forward_flops(supernet.teacher.features_model("group2"))
    assert flops.bridge_loss_flops(supernet, "group2") == teacher + 2 * ALL + 2 * 2 * CONNECTOR2


def test_beta_step_adds_the_gradient_through_the_ts_path(supernet):
    teacher = flops.forward_flops(supernet.teacher.features_model("group2"))
    student = 2 * (STEM + GROUP1 + GROUP2)
    tail = 2 * (GROUP3 + CLASSIFIER)
    connector = 2 * CONNECTOR2
    assert flops.beta_step_flops(supernet, ["group2"]) == (
        teacher + student + connector + 2 * (connector + tail)
    )


def test_w_step_counts_no_gradient_of_image_and_aggregation(supernet):
    teacher = flops.forward_flops(supernet.teacher.features_model("group2"))
    student = 2 * (STEM + GROUP1 + GROUP2)
    tail = 2 * (GROUP3 + CLASSIFIER)
    connector = 2 * CONNECTOR2
    assert flops.w_step_flops(supernet, ["group2"]) == (
        teacher
        + (3 * student - 2 * STEM)  # without the gradient of the image
        + 3 * connector
        + 2 * connector  # without the gradient of the aggregation
        + 3 * tail
    )


def test_distillation_step_counts_the_teacher_without_its_classifier():
    teacher, student = small_network(depth=16), small_network(depth=10)
    transforms = group_connectors(teacher, student, 0, "float32")
    assert isinstance(transforms[0], keras.Model)
    assert flops.distill_step_flops(teacher, student, transforms) == (
        flops.forward_flops(teacher)
        - 2 * CLASSIFIER
        + (3 * 2 * ALL - 2 * STEM)
        + 3 * 2 * (64 * 16 * 16 + 16 * 32 * 32 + 4 * 64 * 64)
    )


def test_joint_steps_count_one_pass_of_each_network_and_all_tails(supernet):
    """By hand, next to the sum over the groups: the same tails and connectors, fewer passes."""
    teacher = flops.forward_flops(supernet.teacher.features_model("group3"))
    student = 2 * (STEM + GROUP1 + GROUP2 + GROUP3)
    tails = 2 * (GROUP2 + GROUP3 + CLASSIFIER + GROUP3 + CLASSIFIER + CLASSIFIER)
    connectors = 2 * (64 * 16 * 16 + CONNECTOR2 + 4 * 64 * 64)
    assert flops.beta_step_flops(supernet, GROUPS) == teacher + student + 3 * connectors + 2 * tails
    assert flops.w_step_flops(supernet, GROUPS) == (
        teacher + (3 * student - 2 * STEM) + (3 + 2) * connectors + 3 * tails
    )

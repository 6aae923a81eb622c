"""Analytic counts of arithmetic, against ones worked by hand."""

import keras
import pytest

from dfa_tf import models
from dfa_tf.benchmark import flops
from dfa_tf.methods.connectors import group_connectors
from tests.conftest import small_network, small_supernet

# WRN_10_1 on 8x8 images of 3 channels and 4 classes, in multiplications with additions:
STEM = 64 * 9 * 3 * 16
GROUP1 = 64 * 9 * 16 * 16 * 2
GROUP2 = 16 * (9 * 16 * 32 + 9 * 32 * 32 + 16 * 32)
GROUP3 = 4 * (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64)
CLASSIFIER = 64 * 4


@pytest.fixture(scope="module")
def network():
    return small_network(depth=10)


def test_forward_counts_convolutions_and_the_classifier(network):
    assert flops.forward_flops(network) == 2 * (STEM + GROUP1 + GROUP2 + GROUP3 + CLASSIFIER)


def test_part_of_a_network_counts_its_own_layers(network):
    assert flops.forward_flops(network.features_model("group2")) == 2 * (STEM + GROUP1 + GROUP2)
    assert flops.forward_flops(network.tail_model("group2", "stream")) == 2 * (GROUP3 + CLASSIFIER)


def test_training_takes_two_more_of_each_product_but_the_gradient_for_the_image(network):
    whole = 2 * (STEM + GROUP1 + GROUP2 + GROUP3 + CLASSIFIER)
    assert flops.training_flops(network, needs_input_gradient=False) == 3 * whole - 2 * STEM


def test_published_count_of_wrn_16_2():
    """About 0.10 billion multiplications, as the literature counts it for 32x32 images."""
    network = models.wide_resnet(16, 2, 100)
    assert flops.forward_flops(network) / 2 == pytest.approx(0.101e9, rel=0.01)


def test_steps_count_what_they_need():
    teacher, student = small_network(depth=16), small_network(depth=10)
    supernet = small_supernet(teacher, student)
    connector = 2 * 16 * 32 * 32  # of group 2, in both directions: 32 channels on both sides
    of_teacher = flops.forward_flops(teacher.features_model("group2"))
    of_student = 2 * (STEM + GROUP1 + GROUP2)
    tail = 2 * (GROUP3 + CLASSIFIER)
    assert flops.beta_step_flops(supernet, "group2") == (
        of_teacher + of_student + connector + 2 * (connector + tail)
    )
    assert flops.w_step_flops(supernet, "group2") == (
        of_teacher
        + (3 * of_student - 2 * STEM)  # no gradient for the image
        + 3 * connector
        + 2 * connector  # none for the aggregation
        + 3 * tail
    )
    transforms = group_connectors(teacher, student, 0, "float32")
    assert isinstance(transforms[0], keras.Model)
    assert flops.distill_step_flops(teacher, student, transforms) == (
        flops.forward_flops(teacher)
        - 2 * CLASSIFIER
        + (3 * 2 * (STEM + GROUP1 + GROUP2 + GROUP3 + CLASSIFIER) - 2 * STEM)
        + 3 * 2 * (64 * 16 * 16 + 16 * 32 * 32 + 4 * 64 * 64)
    )

"""The losses of the methods' configs, recorded before weightings and several teachers existed.

Version 3dbbc3d computed the numbers, with the same networks and images.
"""

import numpy as np
import pytest

from dfa_tf.alpha import fixed
from dfa_tf.config.config import Config
from dfa_tf.methods.dfa import DFA
from dfa_tf.objectives.distillation_net import DistillationNet
from tests.conftest import small_network

# The mean loss of a batch: of the training, or of a pretraining phase and then of the training.
RECORDED = {
    "ab": [8.885564804077148, 1.3632410764694214],
    "at": [62.944271087646484],
    "crd": [6.26432991027832],
    "dfa": [4.585012435913086],
    "dist": [43.11425018310547],
    "dkd": [2.0360188484191895],
    "dkd_standardized": [26.138671875],
    "fitnets": [5.067476749420166, 0.23615649342536926],
    "ft": [0.6739335060119629, 29.85248565673828],
    "jacobian": [1.5748238563537598],
    "kd": [0.23615649342536926],
    "kd_standardized": [5.754027366638184],
    "margin": [5.329358100891113],
    "nst": [5.446474075317383],
    "reviewkd": [68.25863647460938],
    "rkd": [9.302350997924805],
    "sp": [74.69220733642578],
    "vid": [4.355130195617676],
}


@pytest.mark.parametrize("name", RECORDED)
def test_loss_of_a_config_is_the_recorded_one(batch, name):
    config = Config(["gin/digits.gin", f"gin/methods/{name}.gin"])
    settings = config.stage("distill")
    teacher, student = small_network(16, 2, seed=1), small_network(10, 1, seed=2)
    alpha = fixed("average", teacher)
    methods = [m.with_alpha(alpha) if isinstance(m, DFA) else m for m in settings["methods"]]
    weights = settings["weights"], settings["ce_weight"]
    net = DistillationNet([teacher], student, methods, *weights, steps=1, seed=3)
    objectives = [net.pretraining_objective(pretraining) for _, pretraining in net.pretrainings]
    objectives += [segment.objective for segment in net.segments([1])]
    losses = [np.mean(objective(*batch)[0]) for objective in objectives]
    np.testing.assert_allclose(losses, RECORDED[name], rtol=1e-5)

"""The option of TensorFlow's graph optimizer that changes the order of sums."""

import pytest
import tensorflow as tf

from dfa_tf.training.summation_order import OPTION, fixed_summation_order


def _value():
    return tf.config.optimizer.get_experimental_options().get(OPTION, True)


@pytest.mark.parametrize("before", [True, False])
def test_option_of_the_process_is_restored_also_after_an_error(before):
    tf.config.optimizer.set_experimental_options({OPTION: before})
    try:
        with pytest.raises(KeyError), fixed_summation_order():
            assert _value() is False
            raise KeyError
        assert _value() is before
    finally:
        tf.config.optimizer.set_experimental_options({OPTION: True})

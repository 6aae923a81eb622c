"""Comparison of losses with NumPy formulas from the papers, and of kernels with formulas."""

import numpy as np
import tensorflow as tf


def assert_equals_formula(loss, formula, *arrays, trained=-1, rtol=2e-4, atol=1e-6, step=1e-6):
    """Asserts that a loss of float32 tensors equals a formula of float64 arrays.

    The gradients for the array `trained` are compared too; the formula's are differences.
    """
    arrays = [np.asarray(array) for array in arrays]
    exact = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    tensors = [tf.constant(a, tf.float32 if a.dtype.kind == "f" else tf.int32) for a in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors[trained])
        values = loss(*tensors)
    np.testing.assert_allclose(values, formula(*exact), rtol=rtol, atol=atol)

    gradient = tape.gradient(values, tensors[trained]).numpy()
    expected = np.zeros_like(exact[trained])
    for index in np.ndindex(expected.shape):
        sums = []
        for sign in (1, -1):
            moved = [a.copy() for a in exact]
            moved[trained][index] += sign * step
            sums.append(np.sum(formula(*moved)))
        expected[index] = (sums[0] - sums[1]) / (2 * step)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(gradient, expected, rtol=5e-3, atol=2e-3 * scale + 1e-7)


def softmax(z):
    odds = np.exp(z - z.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def unit(x, axis=-1):
    """Returns x / |x|, and 0 for x = 0."""
    return x / np.maximum(np.linalg.norm(x, axis=axis, keepdims=True), 1e-12)


def flat(x):
    return x.reshape(len(x), -1)


def maps(seed, *shape):
    """Draws of N(0, 1), which have both signs, as pre-ReLU maps have."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def convolved(x, kernel, bias=0.0):
    """The convolution of maps [B, H, W, C], with zeros around them, with an odd square kernel."""
    height, width = x.shape[1:3]
    size = len(kernel)
    padded = np.pad(x, ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)))
    return bias + sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(size)
        for j in range(size)
    )


def normalized(x, layer):
    """The batch normalization of maps with the parameters and moving statistics of a layer."""
    gamma, beta, mean, variance = (np.array(weight) for weight in layer.get_weights())
    return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta


def enlarged(x, rows, columns):
    """Maps [B, H, W, C] with each element repeated."""
    return x.repeat(rows, 1).repeat(columns, 2)


def assert_kernel_equals_formula(call, function, arguments):
    """Asserts that a kernel equals the formula it replaces, in value and gradient.

    call: (function, *arguments) to a tensor. function: decorated with `accelerated`. arguments:
    float32 or bfloat16 tensors; the formula is computed in float32 of the same numbers.
    """

    def value_and_gradients(function, arguments):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            value = call(function, *arguments)
            weights = tf.reshape(tf.linspace(1.0, 2.0, tf.size(value)), value.shape)
            total = tf.reduce_sum(weights * tf.cast(value, tf.float32))
        return value, tape.gradient(total, arguments)

    exact = [tf.cast(argument, tf.float32) for argument in arguments]
    value, gradients = value_and_gradients(function, arguments)
    expected, expected_gradients = value_and_gradients(function.formula, exact)
    is_bfloat16 = any(argument.dtype == tf.bfloat16 for argument in arguments)
    rtol = 1e-2 if is_bfloat16 else 1e-4  # bfloat16 has 8 significant bits
    pairs = [(value, expected), *zip(gradients, expected_gradients, strict=True)]
    for found, formula in pairs:
        if formula is None:
            assert found is None
            continue
        scale = np.abs(formula).max()
        found = tf.cast(found, tf.float32)
        np.testing.assert_allclose(found, formula, rtol=rtol, atol=0.1 * rtol * scale)

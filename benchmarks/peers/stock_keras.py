"""Search and distillation steps in stock Keras 3, as an experienced user would write them.

    python benchmarks/peers/stock_keras.py --precision bfloat16

Keras' own layers and optimizers, dtype policy mixed_bfloat16, functional models that end at the
group that a step needs, one tf.function for each iteration, and a batch in memory.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from keras import layers
from serve import BATCH, parse_arguments, serve, timed


def batch_norm(name=None):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)


def conv(filters, kernel, stride=1):
    return layers.Conv2D(filters, kernel, stride, "same", use_bias=False)


def wide_resnet(depth, width, classes=100):
    """Returns the tensors (image, features of each group, streams after each group, logits)."""
    image = keras.Input((32, 32, 3), batch_size=BATCH)
    x = conv(16, 3)(image)
    features, streams, in_channels = [], [], 16
    for g, (channels, stride) in enumerate(((16, 1), (32, 2), (64, 2))):
        for k in range((depth - 4) // 6):
            normalized = batch_norm()(x)
            if k:
                features[g].append(normalized)
            elif g:
                features[g - 1].append(normalized)
            if k == 0:
                features.append([])
            activated = layers.ReLU()(normalized)
            y = conv(channels * width, 3, stride if k == 0 else 1)(activated)
            y = conv(channels * width, 3)(layers.ReLU()(batch_norm()(y)))
            shortcut = x
            if k == 0 and (stride != 1 or in_channels != channels * width):
                shortcut = conv(channels * width, 1, stride)(activated)
            in_channels = channels * width
            x = layers.Add()([shortcut, y])
        streams.append(x)
    last = batch_norm()(x)
    features[-1].append(last)
    pooled = layers.GlobalAveragePooling2D()(layers.ReLU()(last))
    logits = layers.Dense(classes, dtype="float32")(pooled)
    return image, features, streams, logits


def clip(x):
    """Preserves values no smaller than -1 (§3.4)."""
    return tf.maximum(x, tf.cast(-1, x.dtype))


def normalized_l2(s, t):
    """Distance of the ST loss (Eqn 11), [B]."""
    s, t = (tf.reshape(tf.cast(x, tf.float32), [x.shape[0], -1]) for x in (s, t))
    difference = tf.math.l2_normalize(s, 1) - tf.math.l2_normalize(t, 1)
    return tf.reduce_sum(tf.square(difference), 1)


def partial_l2(s, t):
    """Distance of the distillation loss (Eqn 3), [B]."""
    s, t = tf.cast(s, tf.float32), tf.cast(clip(t), tf.float32)
    difference = tf.where((s > t) | (t > 0), s - t, 0.0)
    return tf.reduce_sum(tf.square(difference), [1, 2, 3])


def sgd():
    return keras.optimizers.SGD(0.01, 0.9, nesterov=True, weight_decay=5e-4)


class Steps:
    """Builds each step as a function without arguments that runs one iteration."""

    def __init__(self, arguments):
        self.image, self.teacher_features, _, self.teacher_logits = wide_resnet(*arguments.teacher)
        self.student = arguments.student
        self.images = tf.random.normal([BATCH, 32, 32, 3])
        self.labels = tf.random.uniform([BATCH], 0, 100, tf.int32)
        self.teacher_channels = [width * arguments.teacher[1] for width in (16, 32, 64)]
        self.student_channels = [width * arguments.student[1] for width in (16, 32, 64)]

    def cross_entropy(self, logits):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(self.labels, logits)

    def search(self, group):
        teacher = keras.Model(self.image, self.teacher_features[group - 1])
        student_image, features, streams, logits = wide_resnet(*self.student)
        head = keras.Model(student_image, features[group - 1][-1])
        tail = keras.Model(streams[group - 1], logits)
        st = conv(self.teacher_channels[group - 1], 1)
        ts = conv(self.student_channels[group - 1], 1)
        st.build(head.output.shape)
        ts.build(teacher.output[0].shape)
        beta = tf.Variable(tf.zeros([len(self.teacher_features[group - 1])]))
        # Head and tail share a normalization: each variable counts once.
        variables = [v for model in (head, tail, st, ts) for v in model.trainable_variables]
        weights = list({id(variable): variable for variable in variables}.values())
        beta_optimizer = keras.optimizers.Adam(1e-3, 0.5, 0.999, weight_decay=1e-3)
        beta_optimizer.build([beta])
        w_optimizer = sgd()
        w_optimizer.build(weights)

        def bridge_loss(alpha, maps):
            aggregation = tf.add_n(
                [
                    tf.cast(a, t.dtype) * clip(t)
                    for a, t in zip(tf.unstack(alpha), maps, strict=True)
                ]
            )
            st_loss = normalized_l2(st(clip(head(self.images, training=True))), aggregation)
            ts_loss = self.cross_entropy(tail(ts(aggregation), training=True))
            return tf.reduce_mean(1e-3 * st_loss + ts_loss)

        @tf.function
        def iterate():
            maps = teacher(self.images, training=False)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(beta)
                loss = bridge_loss(tf.nn.softmax(beta), maps)
            beta_optimizer.apply([tape.gradient(loss, beta)], [beta])
            maps = teacher(self.images, training=False)
            alpha = tf.nn.softmax(beta)
            with tf.GradientTape() as tape:
                loss = bridge_loss(alpha, maps)
            w_optimizer.apply(tape.gradient(loss, [w.value for w in weights]), weights)
            return loss

        return iterate

    def distill(self):
        teacher = keras.Model(self.image, self.teacher_features)
        student_image, features, _, logits = wide_resnet(*self.student)
        student = keras.Model(student_image, [[maps[-1] for maps in features], logits])
        transforms = [
            keras.Sequential([keras.Input(maps[-1].shape[1:]), conv(c, 1), batch_norm()])
            for maps, c in zip(features, self.teacher_channels, strict=True)
        ]
        weights = [v for model in (student, *transforms) for v in model.trainable_variables]
        optimizer = sgd()
        optimizer.build(weights)

        @tf.function
        def iterate():
            maps = teacher(self.images, training=False)
            targets = [tf.add_n(m) * tf.cast(1 / len(m), m[0].dtype) for m in maps]
            with tf.GradientTape() as tape:
                lasts, logits = student(self.images, training=True)
                distance = tf.add_n(
                    [
                        partial_l2(transform(last, training=True), target) / 2 ** (2 - g)
                        for g, (transform, last, target) in enumerate(
                            zip(transforms, lasts, targets, strict=True)
                        )
                    ]
                )
                loss = tf.reduce_mean(self.cross_entropy(logits) + 1e-3 * distance)
            optimizer.apply(tape.gradient(loss, [w.value for w in weights]), weights)
            return loss

        return iterate

    def teacher_forward(self):
        teacher = keras.Model(self.image, [self.teacher_features, self.teacher_logits])
        return tf.function(lambda: teacher(self.images, training=False))


def timed_to_the_end(iterate):
    """Returns a `Run` that waits for the results of the last iteration."""
    results = []

    def keep_results():
        results[:] = [iterate()]

    def wait():
        for tensor in tf.nest.flatten(results):
            tensor.numpy()

    return timed(keep_results, wait)


def main():
    arguments = parse_arguments()
    if arguments.precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    steps = Steps(arguments)
    serve(
        search=lambda group: timed_to_the_end(steps.search(group)),
        distill=lambda: timed_to_the_end(steps.distill()),
        teacher_forward=lambda: timed_to_the_end(steps.teacher_forward()),
    )


if __name__ == "__main__":
    main()

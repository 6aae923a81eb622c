#!/usr/bin/env python3
"""Tutorial: search an aggregation of a teacher's features, distil it, compare, export.

pip install .
python examples/python/search_and_distill.py           # one or two minutes on 2 CPU cores
python examples/python/search_and_distill.py --tiny    # a few steps of each stage
"""

import argparse

import dfa_tf

parser = argparse.ArgumentParser()
parser.add_argument("--tiny", action="store_true", help="run a few steps of each stage")
parser.add_argument("--workdir", default="runs/tutorial", help="folder for the results")
arguments = parser.parse_args()

# Handwritten digits: 1,297 training and 500 test images of 8x8 pixels. `task` holds what the data
# set determines about a network: the classes, the image shape, and the mean and standard deviation.
digits = dfa_tf.data.load("digits")
data = {"train": digits.train, "test": digits.test}

# Both networks have three groups. A group of the teacher has two blocks, and so two features.
teacher = dfa_tf.models.wide_resnet(depth=16, width=2, **digits.task)
student = dfa_tf.models.wide_resnet(depth=10, width=1, **digits.task)

training = dfa_tf.Training(
    epochs=0.2 if arguments.tiny else 5,
    batch_size=64,
    optimizer=dfa_tf.SGD(dfa_tf.Cosine(0.05)),
    augmentation=digits.augmentation,
)
run = {"training": training, "workdir": arguments.workdir}

# A stage whose result is in the workdir is not run again. Start this script twice to see it.
teacher = dfa_tf.train_teacher(network=teacher, **data, **run)

# Stage 1. The search trains the student's weights on one part of the training images, and beta on
# the other. alpha = softmax(beta) weighs the teacher's features. It starts at 0.99 for the last
# feature of each group. Adam moves beta by about the learning rate in each step, so a short search
# needs a high one. The paper's learning rate x steps is 11.
train, validation = digits.search_split(seed=0)
alpha = dfa_tf.search(
    teacher=teacher,
    student=student,
    train=train,
    validation=validation,
    beta_optimizer=dfa_tf.Adam(learning_rate=11 / training.steps(len(train))),
    **run,
)
for group in alpha.groups:
    print(group.name, "alpha:", [round(weight, 3) for weight in group.alpha])

# Stage 2. A new student learns from the labels and from the aggregated features. For comparison,
# another one learns from the labels alone (`methods=[]`). To distil from the last feature of each
# group, which needs no search, pass alpha=dfa_tf.alpha.fixed("last", teacher).
dfa_student = dfa_tf.distill(teacher=teacher, student=student, alpha=alpha, **data, **run)
run["workdir"] = f"{arguments.workdir}_plain"
plain_student = dfa_tf.distill(student=student, methods=[], **data, **run)

# A network maps raw pixels, 0 to 255, to logits and features. One seed and a short training cannot
# rank the two students.
for name, network in {"DFA": dfa_student, "plain training": plain_student}.items():
    logits = network(digits.test.images, training=False)["logits"]
    accuracy = (logits.numpy().argmax(-1) == digits.test.labels).mean()
    print(f"{name}: {accuracy:.1%} of the test images are correct")

# The student as a TF Lite file, compared with the network on all test images. An app needs neither
# dfa_tf nor TensorFlow to run it: see classify.py.
report = dfa_tf.export(
    network=dfa_student,
    test=digits.test,
    workdir=arguments.workdir,
    options=dfa_tf.ExportOptions(kinds=("float32",)),
)
print(f"exported {report['files'][0]['bytes']:,} bytes to {arguments.workdir}/export")

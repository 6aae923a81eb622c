"""Entry points of the installed commands: dfa-train-teacher, dfa-search and so on."""

import functools

from dfa_tf.commands.main import launch

train_teacher = functools.partial(launch, "train_teacher")
search = functools.partial(launch, "search")
distill = functools.partial(launch, "distill")
export = functools.partial(launch, "export")
evaluate = functools.partial(launch, "evaluate")
benchmark = functools.partial(launch, "benchmark")
report = functools.partial(launch, "report")
reproduce = functools.partial(launch, "reproduce")

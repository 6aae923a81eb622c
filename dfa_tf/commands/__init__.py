"""The commands: `bin/search` in a clone, `dfa-search` where the package is installed."""

import functools

from dfa_tf.commands.main import launch

train_teacher = functools.partial(launch, "train_teacher")
search = functools.partial(launch, "search")
distill = functools.partial(launch, "distill")
export = functools.partial(launch, "export")
benchmark = functools.partial(launch, "benchmark")
evaluate = functools.partial(launch, "evaluate")
report = functools.partial(launch, "report")
reproduce = functools.partial(launch, "reproduce")

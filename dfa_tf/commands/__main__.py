"""Runs a command by its name: `python -m dfa_tf.commands distill --flag=value ...`."""

import sys

from dfa_tf.commands.main import USAGE_ERROR, launch
from dfa_tf.commands.options import DESCRIPTIONS

if len(sys.argv) < 2 or sys.argv[1] not in DESCRIPTIONS:
    names = "|".join(DESCRIPTIONS)
    print(f"usage: python -m dfa_tf.commands {names} [--flag=value ...]", file=sys.stderr)
    sys.exit(USAGE_ERROR)
launch(sys.argv[1], sys.argv[1:])

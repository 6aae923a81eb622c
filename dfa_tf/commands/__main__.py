"""Runs a command by its name: `python -m dfa_tf.commands distill --flag=value ...`."""

import sys

from dfa_tf.commands.main import launch
from dfa_tf.commands.options import DESCRIPTIONS
from dfa_tf.errors import UserError

if len(sys.argv) < 2 or sys.argv[1] not in DESCRIPTIONS:
    names = "|".join(DESCRIPTIONS)
    print(f"usage: python -m dfa_tf.commands {names} [--flag=value ...]", file=sys.stderr)
    sys.exit(UserError.status)
launch(sys.argv[1], sys.argv[1:])

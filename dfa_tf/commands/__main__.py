"""`python -m dfa_tf.commands distill --flag=value ...`: the commands without a file of their own."""

import sys

from dfa_tf.commands.main import run

sys.exit(run(sys.argv[1], sys.argv[1:]))

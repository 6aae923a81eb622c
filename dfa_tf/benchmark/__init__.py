"""How fast the steps of search and distillation are, beside what the machine can do."""

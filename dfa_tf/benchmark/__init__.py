"""How fast the steps of search and distillation are, compared with the peak of the machine."""

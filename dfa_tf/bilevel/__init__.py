"""Searches that use a training and a validation batch in each iteration: for alpha, for a process."""

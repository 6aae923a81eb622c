"""Training, shared by all stages: loop, optimizers, checkpoints and devices."""

"""Comparisons of several runs: tables and figures of workdirs, and the paper's experiments.

Nothing here imports TensorFlow.
"""

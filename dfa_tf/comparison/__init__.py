"""Runs beside each other: what workdirs hold, tables of it, the paper's tables anew.

Nothing here imports TensorFlow.
"""

"""Who of several processes writes, and how many there are."""

import types

import pytest
import tensorflow as tf

from dfa_tf.training.devices import is_chief, workers

TWO_WORKERS = {"worker": ["a:1", "b:1"]}
WITH_CHIEF = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}


def _strategy(cluster, job, index):
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), task_type=job, task_id=index
    )
    return types.SimpleNamespace(cluster_resolver=resolver)


@pytest.mark.parametrize(
    ("cluster", "chief", "others"),
    [
        (TWO_WORKERS, ("worker", 0), [("worker", 1)]),
        (WITH_CHIEF, ("chief", 0), [("worker", 0), ("worker", 1)]),
    ],
)
def test_one_process_of_a_cluster_is_the_chief(cluster, chief, others):
    assert is_chief(_strategy(cluster, *chief))
    assert not any(is_chief(_strategy(cluster, *other)) for other in others)


def test_workers_are_counted_with_their_chief():
    assert workers(_strategy(TWO_WORKERS, "worker", 1)) == 2
    assert workers(_strategy(WITH_CHIEF, "worker", 1)) == 3


def test_one_process_alone_is_the_chief(one_replica):
    assert is_chief(one_replica)
    assert workers(one_replica) == 1

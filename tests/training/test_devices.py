"""The chief of several processes, and their number."""

import types

import pytest
import tensorflow as tf

from dfa_tf.data.part import Part
from dfa_tf.training.devices import is_chief, part_of_process, worker_count

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
def test_cluster_has_one_chief(cluster, chief, others):
    assert is_chief(_strategy(cluster, *chief))
    assert not any(is_chief(_strategy(cluster, *other)) for other in others)


def test_worker_count_includes_the_chief():
    assert worker_count(_strategy(TWO_WORKERS, "worker", 1)) == 2
    assert worker_count(_strategy(WITH_CHIEF, "worker", 1)) == 3


def test_single_process_is_the_chief(one_replica):
    assert is_chief(one_replica)
    assert worker_count(one_replica) == 1


@pytest.mark.parametrize(
    ("cluster", "places"),
    [
        (TWO_WORKERS, [("worker", 0), ("worker", 1)]),
        (WITH_CHIEF, [("chief", 0), ("worker", 0), ("worker", 1)]),
    ],
)
def test_each_process_receives_a_part_of_its_own(cluster, places):
    parts = [part_of_process(_strategy(cluster, *place)) for place in places]
    assert parts == [Part(k, len(places)) for k in range(len(places))]

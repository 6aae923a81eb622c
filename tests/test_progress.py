"""Progress of work that reads images."""

import numpy as np

from dfa_tf import progress


def test_batches_pass_unchanged_and_long_work_shows_its_progress(monkeypatch, capsys):
    """A line appears after 15 seconds. Here a batch takes ten."""
    clock = iter(range(0, 1000, 10))
    now = [0]

    def batches():
        for k in range(3):
            now[0] = next(clock)
            yield np.full(4, k), np.full(4, k)

    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    found = [int(labels[0]) for _, labels in progress.with_progress("reading", batches(), 12)]
    assert found == [0, 1, 2]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("reading: image 12 of 12")


def test_short_work_shows_nothing(capsys):
    batches = [(np.zeros(2), np.zeros(2))] * 3
    assert len(list(progress.with_progress("reading", batches, 6))) == 3
    assert capsys.readouterr().err == ""

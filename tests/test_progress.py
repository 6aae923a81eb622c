"""Progress of work that reads images."""

import io
import re
import tarfile
import zipfile

import numpy as np

from dfa_tf import progress
from dfa_tf.data.archives import unpack


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
    line, last = capsys.readouterr().err.splitlines()
    assert line.startswith("reading: image 12 of 12")
    assert re.fullmatch(r"reading: .*00:\d\d.* \d+\.\d GiB", last)


def test_archive_shows_the_share_that_is_unpacked(tmp_path, monkeypatch, capsys):
    """Three members of the same size, each of which takes 20 seconds."""
    now = [0]
    monkeypatch.setattr(
        progress.time, "monotonic", lambda: now.__setitem__(0, now[0] + 10) or now[0]
    )
    draws = np.random.default_rng(0)
    for suffix, write in ((".zip", _zip), (".tar", _tar)):
        write(tmp_path / f"images{suffix}", [draws.bytes(2_000_000) for _ in range(3)])
        folder = unpack(tmp_path / f"images{suffix}", tmp_path / "scratch")
        assert len(list(folder.iterdir())) == 3
        shown = re.findall(r"MB (\d+) of (\d+)", capsys.readouterr().err)
        assert shown
        assert {total for _, total in shown} == {"6"}
        assert [int(done) for done, _ in shown] == sorted(int(done) for done, _ in shown)
        assert int(shown[-1][0]) >= 4


def _zip(path, contents):
    with zipfile.ZipFile(path, "w") as archive:
        for k, content in enumerate(contents):
            archive.writestr(str(k), content)


def _tar(path, contents):
    with tarfile.open(path, "w") as archive:
        for k, content in enumerate(contents):
            info = tarfile.TarInfo(str(k))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_short_work_shows_nothing(capsys):
    batches = [(np.zeros(2), np.zeros(2))] * 3
    assert len(list(progress.with_progress("reading", batches, 6))) == 3
    assert capsys.readouterr().err == ""

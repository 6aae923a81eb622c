"""Any JSON in the place of alpha.json, process.json and metrics.json."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfa_tf import files
from dfa_tf.alpha import Alpha, GroupAlpha
from dfa_tf.comparison.report import Report
from dfa_tf.comparison.runs import FINISHED, find_runs
from dfa_tf.errors import UserError
from dfa_tf.process import Process
from tests.comparison.workdirs import write_search, write_workdir
from tests.robustness.conftest import examples

leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just(10**400)
)
documents = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)
DEEP = "[" * 100_000
PLACES = st.lists(st.integers(0, 1000), min_size=1, max_size=6)


def _changed(document, places, value):
    """Returns the document with one part, found by walking along `places`, replaced by `value`."""
    document = json.loads(json.dumps(document))
    node, parent, key = document, None, None
    for place in places:
        if isinstance(node, dict) and node:
            parent, key = node, sorted(node)[place % len(node)]
        elif isinstance(node, list) and node:
            parent, key = node, place % len(node)
        else:
            break
        node = parent[key]
    if parent is None:
        return value
    parent[key] = value
    return document


def _alpha():
    group = GroupAlpha(
        "group1", ["a", "b"], [0.0, 1.0], [0.3, 0.7], [[0, [0.5, 0.5]], [4, [0.3, 0.7]]], [0.1, 0.2]
    )
    return Alpha("digits", "T", "S", 0, 5, [group])


def _process():
    return Process(["a", "b"], [0, 9], [[1.0, 1.0], [0.5, 2.0]], 10, [[0.0, 0.0], [1.0, 1.0]])


def _loaded(kind, path):
    """Returns what a file holds, or the message of the error that refuses it."""
    try:
        return kind.load(path)
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("make", [_alpha, _process])
@examples(60)
@given(places=PLACES, value=documents)
def test_changed_file_is_used_or_refused_in_one_line(tmp_path_factory, make, places, value):
    path = tmp_path_factory.mktemp("json") / "file.json"
    make().save(path)
    path.write_text(json.dumps(_changed(json.loads(path.read_text()), places, value)))
    found = _loaded(type(make()), path)
    if isinstance(found, Process):
        assert found.stretched(7).shape == (7, len(found.paths))
    elif isinstance(found, Alpha):
        assert 0 <= found.last_weight <= 1.001
        found.without_search().save(path)
        assert Alpha.load(path).last_weight == found.last_weight
    else:
        assert str(path) in found
        assert "\n" not in found


@pytest.mark.parametrize("kind", [Alpha, Process])
@pytest.mark.parametrize("text", ["", "{", DEEP, "[]", "null", "\ud800", '{"format": 1}', "NaN"])
def test_file_of_other_content_is_refused_in_one_line(tmp_path, kind, text):
    path = tmp_path / "file.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=r"file\.json") as error:
        kind.load(path)
    assert "\n" not in str(error.value)
    assert files.read_json(path) in ({}, {"format": 1})


def _report_of(folder):
    """Returns the report on a folder of workdirs as text, Markdown and CSV, and its runs."""
    report = Report(find_runs([folder]))
    return report.text(), report.markdown(), report.csv(), report.runs


@examples(60)
@given(
    stage=st.sampled_from(["distill", "search", "teacher"]),
    places=PLACES,
    value=st.one_of(documents, st.just(DEEP)),
)
def test_changed_metrics_are_reported_or_noted(tmp_path_factory, stage, places, value):
    folder = tmp_path_factory.mktemp("run")
    write_search(folder, 0.8)
    teacher = {"steps": 9, "last": {"accuracy": 0.6}, "best": {"accuracy": 0.7}, "parameters": 7}
    (folder / "teacher").mkdir()
    (folder / "teacher/metrics.json").write_text(json.dumps(teacher))
    write_workdir(folder / "other", 0.5)
    path = folder / stage / "metrics.json"
    text = (
        value
        if value is DEEP
        else json.dumps(_changed(json.loads(path.read_text()), places, value))
    )
    path.write_text(text)
    text, markdown, csv, runs = _report_of(folder)
    assert csv.count("\n") == len(runs) + 1
    for run in runs:  # in a table or in a note
        assert run.state == FINISHED or str(run.path) in text
        assert run.state == FINISHED or str(run.path) in markdown


@examples(40)
@given(places=PLACES, value=documents)
def test_changed_alpha_of_a_search_is_reported_or_noted(tmp_path_factory, places, value):
    folder = tmp_path_factory.mktemp("run")
    write_search(folder, 0.8)
    path = folder / "search/alpha.json"
    path.write_text(json.dumps(_changed(json.loads(path.read_text()), places, value)))
    text, _, _, runs = _report_of(folder)
    assert [run.state for run in runs] == [FINISHED]  # the student does not depend on the file
    assert "DFA" in text

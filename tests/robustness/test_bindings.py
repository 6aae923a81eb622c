"""Any value for any bindable parameter: a run that could start, or an error of one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfa_tf.commands import options
from dfa_tf.commands.check_ahead import check_ahead
from dfa_tf.commands.plan import DISTILL, EXPORT, PROCESS, SEARCH, TEACHER, Plan
from dfa_tf.commands.setup import Setup
from dfa_tf.config import Config
from dfa_tf.config.registry import CONFIGURABLES
from dfa_tf.errors import UserError
from dfa_tf.methods import METHODS
from tests.robustness.conftest import examples

PARAMETERS = sorted((name, p) for name, c in CONFIGURABLES.items() for p in c.parameters)
NAMES = sorted(CONFIGURABLES)
SMALL = [
    f"{role}/wide_resnet.{p}" for role in ("teacher", "student") for p in ("depth=10", "width=1")
]

numbers = st.one_of(
    st.sampled_from(["0", "-1", "1", "2", "1e400", "-1e400", "1e-300", "1.5", "0.999", "-0.0"]),
    st.integers(-(10**40), 10**40).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)
texts = st.text(max_size=20).map(ascii)
constants = st.sampled_from(["None", "True", "False", "[]", "()", "{}", "[[]]", "''"])
references = st.one_of(
    st.sampled_from(NAMES).map("@{}()".format),
    st.sampled_from(NAMES).map("@{}".format),
    st.sampled_from(NAMES).map("@scope/{}()".format),
    st.sampled_from(["%nothing", "%precision", "%teacher", "%student"]),
)
scalars = st.one_of(numbers, texts, constants, references)
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=3).map(lambda each: f"[{', '.join(each)}]"),
    st.lists(scalars, max_size=2).map(
        lambda each: "{" + ", ".join(f"'k': {v}" for v in each) + "}"
    ),
)
bindings = st.tuples(st.sampled_from(PARAMETERS), values).map(
    lambda b: f"{b[0][0]}.{b[0][1]} = {b[1]}"
)


def _lines_of_refusal(action):
    """Returns the lines of the error that an action ends in; one empty line without an error."""
    try:
        action()
    except UserError as error:
        return str(error).split("\n")
    return [""]


@examples(400)
@given(st.lists(bindings, min_size=1, max_size=2))
def test_any_binding_is_parsed_or_named(given_bindings):
    lines = _lines_of_refusal(lambda: Config(["gin/digits.gin"], given_bindings))
    assert len(lines) == 1
    assert len(lines[0]) < 2000


@examples(200)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_a_config_or_named(text):
    lines = _lines_of_refusal(lambda: Config(["gin/digits.gin"], [text]))
    assert len(lines) == 1
    assert len(lines[0]) < 2000


def _check(workdir, given_bindings):
    """Does what `distill` and `export` do before their first stage, with the same flags."""
    values = options.define("distill")
    method = given_bindings[0].split(".")[0]
    more = [f"distill.methods=[@{method}()]"] if method in METHODS else []
    flags = [f"--gin_bindings={each}" for each in (*SMALL, *more, *given_bindings)]
    values(["distill", "--gin_file=gin/digits.gin", f"--workdir={workdir}", *flags])
    plan = Plan("distill", Setup(values, strategy=None))
    assert {DISTILL, EXPORT} <= set(plan.stages) <= {TEACHER, SEARCH, PROCESS, DISTILL, EXPORT}
    check_ahead(plan)


@pytest.mark.slow
@examples(150)
@given(st.lists(bindings, min_size=1, max_size=2))
def test_any_binding_is_accepted_or_refused_before_anything_is_written(tmp_path_factory, binding):
    workdir = tmp_path_factory.mktemp("any") / "workdir"
    assert len(_lines_of_refusal(lambda: _check(workdir, binding))) == 1
    assert not workdir.exists()


def test_network_that_does_not_fit_in_memory_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"student: .*memory"):
        _check(tmp_path, ["student/wide_resnet.width = 1000000"])


def test_list_of_a_reference_and_a_macro_is_refused_where_numbers_are_expected(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.color_jitter"):
        _check(tmp_path, ["dataset.color_jitter = [@ab(), %precision]"])

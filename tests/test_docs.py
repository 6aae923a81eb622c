"""The complete example of docs/adding-a-method.md is what it says: short, and a method."""

import re
import types

import pytest

from dfa_tf.methods.objective import student_objective
from tests.conftest import ROOT, small_network

DOCUMENT = ROOT / "docs" / "adding-a-method.md"


@pytest.mark.skipif(not DOCUMENT.is_file(), reason="the documents are not at hand")
def test_example_of_a_method_is_whole_and_short(batch):
    code = re.search(r"```python\n(.+?)```", DOCUMENT.read_text(), re.DOTALL)[1]
    assert len(code.splitlines()) < 40
    module = types.ModuleType("embedding")
    exec(code, module.__dict__)
    method = module.Embedding(weight=2.0)
    teacher, student = small_network(16, 2, seed=1), small_network(10, 1, seed=2)
    made = method.build(teacher, student, 0, "float32")
    objective = student_objective(teacher, student, [made], [1.0], method.needs)
    loss, _, terms = objective(*batch)
    assert set(terms) == {"cross_entropy", "embedding"}
    assert (loss > terms["cross_entropy"]).numpy().all()

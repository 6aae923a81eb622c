"""The pages of docs/: their links, and the example of a method in docs/adding-a-method.md."""

import re
import types

import pytest

from dfa_tf.methods import Method
from dfa_tf.objectives.objective import student_objective
from tests.conftest import ROOT, small_network

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND, CONFIG = r"(?<![/\w])bin/\w+", r"(?<![/\w])gin/[\w/]+\.gin"
EXAMPLE_PAGE = ROOT / "docs" / "adding-a-method.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r"\]\(((?!http)[^)]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text()), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_configs_of_pages_exist(page):
    text = page.read_text()
    for path in (*re.findall(COMMAND, text), *re.findall(CONFIG, text)):
        if path != "gin/methods/embedding.gin":  # the file that the example adds
            assert (ROOT / path).is_file(), path


@pytest.mark.skipif(not EXAMPLE_PAGE.is_file(), reason="docs/ is not part of this installation")
def test_example_of_a_method_is_short_and_adds_its_term_to_the_loss(batch):
    code = re.search(r"```python\n(.+?)```", EXAMPLE_PAGE.read_text(), re.DOTALL)[1]
    assert len(code.splitlines()) < 40
    module = types.ModuleType("embedding")
    exec(code, module.__dict__)
    method = module.Embedding(weight=2.0)
    assert isinstance(method, Method)
    teacher, student = small_network(16, 2, seed=1), small_network(10, 1, seed=2)
    distillation = method.build(teacher, student, 0, "float32")
    objective = student_objective(teacher, student, [distillation], [1.0], method.needs)
    loss, _, terms = objective(*batch)
    assert set(terms) == {"cross_entropy", "embedding"}
    assert (loss > terms["cross_entropy"]).numpy().all()


def _anchors(text):
    """Returns the anchors that GitHub creates for the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

"""The direction of imports, as the table in CONTRIBUTING.md states it."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "dfa_tf"


def _rows():
    """{name: number of its row}, without "/" and ".py"."""
    lines = (ROOT / "CONTRIBUTING.md").read_text().splitlines()
    start = lines.index("| Folders and files | Content |")
    cells = [line.split("|")[1] for line in lines[start + 2 : lines.index("", start)]]
    names = [re.findall(r"`([a-z_]+)(?:/|\.py)`", cell) for cell in cells]
    return {name: row for row, found in enumerate(names) for name in found}


def _imports(path):
    """Parts of the package that a file imports, also within functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dfa_tf"):
            _, *parts = node.module.split(".")
            yield from parts[:1] or [alias.name for alias in node.names]


def _part(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_point_up_the_table():
    rows = _rows()
    files = [path for path in PACKAGE.rglob("*.py") if _part(path) != "__init__"]
    assert {_part(path) for path in files} == set(rows)
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in _imports(path)
        if rows[name] > rows[_part(path)]
    ]
    assert wrong == []

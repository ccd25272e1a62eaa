"""Public docstrings say what is done, in one sentence that stands by itself."""

import ast
import re
from pathlib import Path

import pytest

import vidseg_core

ROOT = Path(vidseg_core.__file__).parents[1]
SOURCES = sorted([*(ROOT / "vidseg_core").rglob("*.py"), *(ROOT / "vidseg_ros").rglob("*.py")])
QUESTION = re.compile(r"(What|Whether|Where|Who|Whom|When|How|Why|If)\b")


def riddles(tree: ast.Module) -> list[str]:
    """First lines of public docstrings that begin like a question."""
    found = []

    def look(node: ast.AST, name: str) -> None:
        text = ast.get_docstring(node)
        if text and QUESTION.match(text):
            found.append(f"{name}: {text.splitlines()[0]}")
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)) and not child.name.startswith("_"):
                look(child, f"{name}.{child.name}")

    look(tree, "module")
    return found


def test_a_question_is_found():
    tree = ast.parse('class A:\n    def b(self):\n        """What b does."""\n    def _c(self):\n        """What."""\n')
    assert riddles(tree) == ["module.A.b: What b does."]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_say_what_is_done(path):
    assert riddles(ast.parse(path.read_text(encoding="utf-8"))) == []

"""The structure of the code: sizes, and the first lines of docstrings.

`test_documents_mention.py` checks that imports go downward in the order of BUILD.md.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lifelong_cvae"
SOURCES = [file for folder in ("lifelong_cvae", "experiments") for file in sorted((ROOT / folder).rglob("*.py"))]
WH_WORDS = re.compile(r"(What|Which|Whether|Where|How|Who)\b")


def source_id(file):
    return str(file.relative_to(ROOT))


def documented_nodes(tree):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree) if isinstance(node, kinds) and ast.get_docstring(node)]


def test_top_level_has_at_most_twelve_modules():
    modules = [path for path in PACKAGE.glob("*.py") if path.stem not in ("__init__", "version")]
    assert len(modules) <= 12, modules


@pytest.mark.parametrize("file", SOURCES, ids=source_id)
def test_docstrings_open_with_a_verb_or_a_noun(file):
    for node in documented_nodes(ast.parse(file.read_text("utf-8"))):
        first = ast.get_docstring(node).splitlines()[0]
        assert not WH_WORDS.match(first), first
        assert isinstance(node, ast.Module) or len(first) <= 100, first


@pytest.mark.parametrize("file", SOURCES, ids=source_id)
def test_files_and_functions_are_short(file):
    text = file.read_text("utf-8")
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.end_lineno - node.body[0].lineno + 1
            assert body <= 75, f"{node.name} has {body} lines after its signature"

"""Nothing that is read is run: no pickle, no evaluation of text, no shell, in no file of the project."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "subprocess", "yaml", "ctypes"}
# Benchmarks start processes, of files of ours; ctypes has `abort` say one line.
NEEDED = {"twin_runs.py": {"subprocess"}, "processes.py": {"ctypes"}}
CALLS = {"eval", "exec", "__import__", "system", "popen"}


def used(tree):
    """Names of modules that are imported and of functions that are called, and arguments that are True."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.Call):
            yield getattr(node.func, "attr", getattr(node.func, "id", ""))
            yield from (word.arg for word in node.keywords if getattr(word.value, "value", None) is True)


def test_no_file_imports_or_calls_what_runs_data():
    files = [*(ROOT / "lifelong_cvae").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]
    assert len(files) > 50
    for file in files:
        found = set(used(ast.parse(file.read_text("utf-8"))))
        assert not (found & {*MODULES, *CALLS, "allow_pickle"}) - NEEDED.get(file.name, set()), file


def test_the_search_finds_what_it_looks_for():
    code = "import pickle\nnp.load(f, allow_pickle=True)\neval(text)\nos.system('x')"
    assert {"pickle", "allow_pickle", "eval", "system"} <= set(used(ast.parse(code)))

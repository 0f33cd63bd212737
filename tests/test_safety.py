"""Data is never executed: no file of the project uses pickle, evaluates text or calls a shell."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "subprocess", "yaml", "ctypes"}
# Benchmarks start processes that run files of this repository.
EXCEPTIONS = {"accelerator.py": {"subprocess"}, "twin_runs.py": {"subprocess"}}
CALLS = {"eval", "exec", "__import__", "system", "popen"}


def used_names(tree):
    """Names of imported modules and called functions, and keyword arguments that are True."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.Call):
            yield getattr(node.func, "attr", getattr(node.func, "id", ""))
            yield from (keyword.arg for keyword in node.keywords if getattr(keyword.value, "value", None) is True)


def test_no_file_imports_or_calls_anything_that_executes_data():
    files = [*(ROOT / "lifelong_cvae").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]
    assert len(files) > 50
    for file in files:
        names = set(used_names(ast.parse(file.read_text("utf-8"))))
        assert not (names & {*MODULES, *CALLS, "allow_pickle"}) - EXCEPTIONS.get(file.name, set()), file


def test_used_names_finds_imports_calls_and_true_arguments():
    code = "import pickle\nnp.load(f, allow_pickle=True)\neval(text)\nos.system('x')"
    assert {"pickle", "allow_pickle", "eval", "system"} <= set(used_names(ast.parse(code)))

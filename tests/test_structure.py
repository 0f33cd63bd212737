"""The structure of the code: layers, sizes, and the first lines of docstrings."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lifelong_cvae"
# Modules and folders of the package. Each imports only from those before it.
LAYERS = (
    "version",
    "deprecated",
    "errors",
    "config",
    "presets",
    "images",
    "files",
    "plotting",
    "sharding",
    "distributed",
    "model",
    "ridge",
    "state",
    "stacked",
    "sampling",
    "recognition",
    "training",
    "checkpoints",
    "data",
    "evaluation",
    "runs",
    "webapp",
)
SOURCES = [file for folder in ("lifelong_cvae", "experiments") for file in sorted((ROOT / folder).rglob("*.py"))]
WH_WORDS = re.compile(r"(What|Which|Whether|Where|How|Who)\b")


def source_id(file):
    return str(file.relative_to(ROOT))


def imported_layers(file):
    """Layers that a file of the package imports, with those of imports inside functions."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lifelong_cvae":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names if alias.name in LAYERS]


def layer_of(file):
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def documented_nodes(tree):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree) if isinstance(node, kinds) and ast.get_docstring(node)]


def test_layers_name_every_module_and_folder():
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert names - {"__init__"} == set(LAYERS)
    modules = [path for path in PACKAGE.glob("*.py") if path.stem not in ("__init__", "version")]
    assert len(modules) <= 12


def test_imports_go_downward():
    for file in PACKAGE.rglob("*.py"):
        if file == PACKAGE / "__init__.py":
            continue
        layer = LAYERS.index(layer_of(file))
        for name in imported_layers(file):
            assert LAYERS.index(name) <= layer, f"{source_id(file)} imports {name}"


def imported_modules(file, modules):
    """Modules of the package that a file imports; a name of a module is imported from that module."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in modules else node.module


def test_imports_are_acyclic():
    files = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in PACKAGE.rglob("*.py")
        if file != PACKAGE / "__init__.py"
    }
    graph = {module: set(imported_modules(file, files)) & files.keys() for module, file in files.items()}
    assert sum(map(len, graph.values())) > 100
    while leaves := {module for module, targets in graph.items() if not targets & graph.keys()}:
        graph = {module: targets for module, targets in graph.items() if module not in leaves}
    assert graph == {}


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

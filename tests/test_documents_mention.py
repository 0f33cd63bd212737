"""Documents mention only what exists: files, modules, functions, launchers, flags and settings."""

import ast
import dataclasses
import importlib
import re
import typing
from functools import cache
from pathlib import Path

import pytest

from lifelong_cvae.config import Config
from lifelong_cvae.errors import cast
from lifelong_cvae.state import LifelongState

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lifelong_cvae"
RENAMED = ROOT / "docs/guide/renamed.md"
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "BUILD.md", "CONTRIBUTING.md", "RESULTS.md", "BENCHMARKS.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCED_BLOCK = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
FLAG = re.compile(r"(?<![\w-])--([a-z]\w*)")
SETTING = re.compile(r"--set=(\w+)=([^\s`,;)]+)")
STARTED_MODULE = re.compile(r"-m ((?:experiments|tests)(?:\.\w+)+)")
REFERENCE = re.compile(r"^::: ([\w.]+)", re.MULTILINE)
# Forms of a code span.
PATH = re.compile(r"[\w./-]*/[\w./-]*|[\w-]+\.(?:py|md|jsonl?|yml|cfg|toml|ipynb|png|html|css|js|j2|npz|lock)")
DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
CALL = re.compile(r"([A-Za-z_][\w.]*\w)\(.*\)")
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(\S+)")
IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
LAUNCHER = re.compile(r"(\w+) --.*")

# Files that a run writes or that a user brings.
FILES_OF_RUNS = re.compile(
    r"(runs|photos|taught|figures|checkpoints|within_task|damaged|tensorboard)/.*|config\.json|metrics\.jsonl|"
    r"result\.json|evaluation\.json|comparison\.(json|md)|report\.html|circle\.png|over_time\.png|digits\.npz|\d+\.jpg"
)
# Namespaces of other libraries, and keys of metrics.jsonl with a dot.
OTHER_NAMESPACES = {"jax", "os", "numpy", "pandas", "optax", "terms", "experience", "learner"}
# Commands, packages, types, environment variables and words of examples.
OTHER_NAMES = {
    "timm",
    "open_clip",
    *("filelock", "jit", "mkdocs", "pip", "pytest", "ruff", "tensorboard", "uint8", "vmap", "json_normalize"),
    *("JAX_PLATFORMS", "XLA_FLAGS", "BROWSER_PICTURES", "DIR", "accuracy_elbo", "white", "external", "slow", "sh"),
}
# Flags of other commands, and the former name of a flag that a figure in RESULTS.md was measured with.
OTHER_FLAGS = {"dist", "logdir", "xla_force_host_platform_device_count", "xla_gpu_enable_triton_gemm", "order_seeds"}


def read_document(document):
    """Text of a document; of the page of renamed names without the old ones."""
    text = document.read_text("utf-8")
    return re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE) if document == RENAMED else text


def code_spans(document):
    return CODE_SPAN.findall(FENCED_BLOCK.sub("", read_document(document)))


@cache
def module_names():
    """Names of the modules of this repository, from their files."""
    folders = ("lifelong_cvae", "experiments", "tests")
    files = [file.relative_to(ROOT) for folder in folders for file in ROOT.glob(f"{folder}/**/*.py")]
    return {".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files}


@cache
def source_names():
    """Identifiers of the source: names, attributes, arguments, and strings that are one word."""
    names = set(re.findall(r"^(\w+) =$", (ROOT / "setup.cfg").read_text("utf-8"), re.MULTILINE))
    for file in [*PACKAGE.rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]:
        if file.name in ("deprecated.py", "recognise.py"):
            continue
        names |= {file.stem, file.parent.name}
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            values = [getattr(node, field, None) for field in ("id", "attr", "arg", "name", "value")]
            names |= {value for value in values if isinstance(value, str) and IDENTIFIER.fullmatch(value)}
    return names


@cache
def defined_flags():
    """Flags of the launchers and of tests/fuzz.py, without their old names."""
    source = "\n".join(file.read_text("utf-8") for file in (ROOT / "experiments").glob("*.py"))
    flags = re.findall(r"DEFINE_(?!alias)\w+\(\s*\"(\w+)\"", source)
    negated = [f"no{name}" for name in re.findall(r"DEFINE_bool\(\s*\"(\w+)\"", source)]
    fuzz_flags = re.findall(r"\"--(\w+)\"", (ROOT / "tests/fuzz.py").read_text("utf-8"))
    return {*flags, *negated, *fuzz_flags, "help"}


def attribute_exists(owner, names):
    """True if `owner.a.b` exists for names (a, b). Fields without a default count too."""
    for name in names:
        fields = {*getattr(owner, "__dataclass_fields__", ()), *getattr(owner, "__annotations__", ())}
        if not hasattr(owner, name):
            return name in fields
        owner = getattr(owner, name)
    return True


def dotted_name_exists(name):
    """True if a dotted name is an importable attribute; its first part may be the last part of a module's name."""
    parts = re.sub(r"^lifelong\.", "lifelong_cvae.", name).split(".")
    if ".".join(parts) in module_names():
        return True
    if parts[0] == "state" and attribute_exists(LifelongState, parts[1:]):
        return True
    for module in sorted(module_names()):
        path = module.split(".")
        if re.fullmatch(
            r"tests.*|experiments\.(?!launcher|common_flags)\w+", module
        ):  # importing a launcher defines its flags
            continue
        if parts[: len(path)] == path and attribute_exists(importlib.import_module(module), parts[len(path) :]):
            return True
        if parts[0] == path[-1] and attribute_exists(importlib.import_module(module), parts[1:]):
            return True
    return False


def path_exists(path, document):
    """True if a path exists in the tree, relative to the document or the package, or is one of a run."""
    if FILES_OF_RUNS.fullmatch(path) or any(re.fullmatch("[A-Z]+", part) for part in path.split("/")):
        return True
    folders = (ROOT, PACKAGE, document.parent)
    return any((folder / path).exists() for folder in folders) or ("/" not in path and any(PACKAGE.rglob(path)))


def setting_error(key, value):
    """Returns an error text unless `key` is a setting that may have the value."""
    for section in dataclasses.fields(Config):
        settings = getattr(Config(), section.name)
        types = typing.get_type_hints(type(settings))
        if key in types:
            if value.strip(".") and not value.startswith("$"):
                dataclasses.replace(settings, **{key: cast(key, value, types[key])})
            return None
    return f"no setting {key}"


def span_error(span, document):
    """Returns an error text if a code span mentions something that does not exist."""
    for command_path in re.findall(r"\S+/\S+\.py\b", span):
        if not path_exists(command_path, document):
            return f"no file {command_path}"
    if PATH.fullmatch(span):
        return None if path_exists(span, document) else f"no file {span}"
    if match := LAUNCHER.fullmatch(span):
        known = match[1] in OTHER_NAMES or f"experiments.{match[1]}" in module_names()
        return None if known else f"no launcher {match[1]}"
    assignment, call = ASSIGNMENT.fullmatch(span), CALL.fullmatch(span)
    name = assignment[1] if assignment else call[1] if call else span
    if DOTTED.fullmatch(name) and name.split(".")[0] not in OTHER_NAMESPACES:
        return None if dotted_name_exists(name) else f"no name {name}"
    if IDENTIFIER.fullmatch(name) and len(name) > 1 and name not in OTHER_NAMES:
        return None if name in source_names() else f"no name {name}"
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.stem)
def test_document_mentions_existing_names(document):
    errors = {span: span_error(span, document) for span in code_spans(document)}
    assert not {span: error for span, error in errors.items() if error}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.stem)
def test_document_mentions_existing_launchers_and_modules(document):
    text = read_document(document)
    assert set(STARTED_MODULE.findall(text)) <= module_names()
    assert all(dotted_name_exists(name) for name in REFERENCE.findall(text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.stem)
def test_document_mentions_existing_flags(document):
    assert set(FLAG.findall(read_document(document))) - OTHER_FLAGS <= defined_flags()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.stem)
def test_document_mentions_existing_settings(document):
    mentioned = set(SETTING.findall(read_document(document))) - {("key", "value")}
    errors = [setting_error(key, value) for key, value in mentioned]
    assert not [error for error in errors if error]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.stem)
def test_document_links_to_existing_files(document):
    links = [link for link in LINK.findall(FENCED_BLOCK.sub("", read_document(document))) if "//" not in link]
    assert not [link for link in links if not (document.parent / link).exists()]


def test_checks_find_what_does_not_exist():
    document = ROOT / "README.md"
    wrong = ("training/learning.py", "cvae.Path", "lifelong.grow", "recognise", "forget --resume", "shared_neurons(x)")
    right = ("training/learn.py", "cvae.CategoryModel", "lifelong.learn", "learn --resume", "state.model(name)")
    assert all(span_error(span, document) for span in wrong)
    assert not any(span_error(span, document) for span in right)
    assert setting_error("gram", "own")
    with pytest.raises(ValueError, match="gram_sharing"):
        setting_error("gram_sharing", "vectors")


def imported_modules(file):
    """Modules of the package that a file imports at its top level."""
    imported = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lifelong_cvae"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            imported |= {name if name in module_names() else node.module for name in names}
    return imported


def imported_files(module):
    """Files of a module, without __init__.py; that of a package imports others, which count in its place."""
    file = ROOT / Path(*module.split("."))
    if file.is_dir():
        return set().union(*(imported_files(name) for name in imported_modules(file / "__init__.py")))
    return {file.with_suffix(".py").relative_to(PACKAGE).as_posix()}


def test_layout_in_build_has_every_file_below_its_imports():
    layout = (ROOT / "BUILD.md").read_text("utf-8").partition("## Layout")[2].partition("\n## ")[0]
    files = re.findall(r"^\| `([\w/]+\.py)` \|", layout, re.MULTILINE)
    expected = {file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py")} - {
        file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("__init__.py")
    }
    assert len(files) == len(set(files))
    assert set(files) == expected
    for index, file in enumerate(files):
        imports = set().union(*(imported_files(module) for module in imported_modules(PACKAGE / file)))
        assert imports <= set(files[:index]), file

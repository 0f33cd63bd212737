"""Counts the programs of a run, and the products of its functions on a GPU: `python -m tests.programs 10 products`.

With `tests` there are 100 test images, whatever the number of categories. With `vectors` the run is on vectors, with
`pixels` it has pixel models, with `playback` its mixed part keeps learning. With `products` every jitted function that
the run calls is also lowered for CPU, CUDA and TPU; one that cannot be lowered for a platform ends the run.

Prints a line of JSON. Runs in a process of its own, since compiled functions are kept. `backend_compile_duration` is
JAX's event of a compilation; it is also recorded for a program that the persistent cache has.
"""

import importlib
import json
import pkgutil
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

import lifelong_cvae
from lifelong_cvae.config import Config
from lifelong_cvae.data import from_arrays
from lifelong_cvae.runs import runner
from lifelong_cvae.runs.config import RunConfig
from tests.conftest import SMALL, SMALL_FEATURES

EVENT = "/jax/core/compile/backend_compile_duration"
DOT_GENERAL = re.compile(r"stablehlo\.dot_general[^\n]* : \(([^)]*)\)")
SETTINGS = {**SMALL, **SMALL_FEATURES, "min_steps": "2", "steps_per_call": "2", "epochs": "1", "base_categories": "1"}
# Settings of the preset `vectors` that those of images lack.
VECTORS = {"noise_scale": "own", "recognizer": "closed_form"}
# Settings of runs with pixel models.
PIXELS = {"pixel_widths": "8", "sample_style": "pixels", "bound": "pixels"}
PLATFORMS = ("cpu", "cuda", "tpu")


def record_products(shapes: set[str], exported: set[str]) -> None:
    """Replaces every jitted function of the library by one that is exported before it is called.

    Adds the operand types of its products on a GPU to `shapes`, and its name to `exported`.
    """
    for module in pkgutil.walk_packages(lifelong_cvae.__path__, "lifelong_cvae."):
        if module.name.startswith("lifelong_cvae.webapp"):
            continue
        namespace = vars(importlib.import_module(module.name))
        for name, function in list(namespace.items()):
            if isinstance(function, type(jax.jit(len))):
                namespace[name] = _recorder(function, shapes, exported)


def _recorder(function: Any, shapes: set[str], exported: set[str]) -> Any:
    seen = set()

    def call(*args: Any, **kwargs: Any) -> Any:
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs)))
        key = str(jax.tree.map(lambda leaf: getattr(leaf, "shape", leaf), (args, kwargs))) if not traced else None
        if key is not None and key not in seen:
            seen.add(key)
            traced = function.trace(*args, **kwargs)
            for platform in PLATFORMS:
                lowered = traced.lower(lowering_platforms=(platform,))
                if platform == "cuda":
                    shapes.update(DOT_GENERAL.findall(lowered.as_text()))
            exported.add(function.__name__)
        return function(*args, **kwargs)

    return call


def count(
    categories: int,
    *,
    products: bool = False,
    vectors: bool = False,
    pixels: bool = False,
    tests: bool = False,
    mixed_mode: str = "frozen",
) -> dict[str, Any]:
    """Returns the number of programs after each task, in all, and of distinct products, of a run with figures."""
    numbers = np.random.default_rng(0)
    images = numbers.integers(0, 256, (40 * categories, 8, 8), np.uint8)
    if vectors:
        images = numbers.standard_normal((40 * categories, 12))
    labels = np.repeat([f"c{index}" for index in range(categories)], 40)
    test = np.resize(np.arange(0, len(images), 4), 100 if tests else len(images) // 4)
    source = from_arrays(
        "noise", train_images=images, train_labels=labels, test_images=images[test], test_labels=labels[test]
    )
    kind = {**(VECTORS if vectors else {}), **(PIXELS if pixels else {})}
    config = Config().with_settings({**SETTINGS, "mixed_mode": mixed_mode, **kind})
    programs, after_task, shapes, exported = [], [], set(), set()

    def listen(event: str, duration: float, **_: Any) -> None:
        if event == EVENT:
            programs.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    if products:
        record_products(shapes, exported)
    tasks = tuple((name,) for name in source.categories)
    run = RunConfig(config=config, dataset="arrays", tasks=tasks, seed=0)
    options = runner.RunOptions(
        log_fn=lambda _: after_task.append(len(programs)), write_report=False, compile_ahead=not products
    )
    with tempfile.TemporaryDirectory() as folder:
        runner.run(Path(folder) / "run", run, source, options)
    return {
        "after_task": after_task[-categories:],
        "programs": len(programs),
        "products": len(shapes),
        "exported": sorted(exported),
    }


if __name__ == "__main__":
    options = sys.argv[2:]
    chosen = {name: name in options for name in ("products", "vectors", "pixels", "tests")}
    mode = "playback" if "playback" in options else "frozen"
    print(json.dumps(count(int(sys.argv[1]), **chosen, mixed_mode=mode)))

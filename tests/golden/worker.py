"""Runs small learners with the package on `sys.path` and saves every array that they produce.

Started by `compare.py` once per source tree. It uses names of version 0.1, which 0.2 accepts, so that the same file
runs on both.
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import numpy as np

import lifelong_cvae as lifelong
from lifelong_cvae.data import open_source

SMALL = {
    "mixed_widths": "24,24",
    "category_widths": "12,12",
    "rank": 8,
    "latent_size": 4,
    "epochs": 1,
    "min_steps": 20,
    "chunk_steps": 10,
    "batch_size": 16,
    "prior_components": 3,
    "factors": 4,
    "memory_size": 64,
    "memory_categories": 2,
    "memory_images": 8,
    "refresh_chunks": 1,
    "filters": 12,
    "cells": 3,
    "random_features": 80,
    "block_images": 64,
}
WITHOUT_SUMS = {"random_features": 0, "recogniser": "elbo"}
CASES: dict[str, dict[str, Any]] = {
    "neurons_frozen": {},
    "neurons_playback": {"mixed_mode": "playback"},
    "neurons_free": {"mixed_mode": "free"},
    "neurons_none": {"mixed_mode": "none"},
    "vectors_frozen": {"growth": "vectors"},
    "vectors_playback": {"growth": "vectors", "mixed_mode": "playback"},
    "vectors_free": {"growth": "vectors", "mixed_mode": "free"},
    "childhood_two": {"childhood": 2, "drawing": "contrast"},
    "own_gram": {"gram": "own", "recogniser": "closed_form"},
    "own_scale": {"scale": "own", "mixed_mode": "playback", **WITHOUT_SUMS},
    "bernoulli_patches": {"likelihood": "bernoulli", "local": "patches", "drawing": "mean", **WITHOUT_SUMS},
    "convolution": {"local": "convolution", "bound": "importance", "samples": 3, **WITHOUT_SUMS},
    "bfloat16": {"compute": "bfloat16", "bound": "sampled", "samples": 3, **WITHOUT_SUMS},
}
# The last task revisits a category; the second has two at once.
TASKS = (("3",), ("1", "4"), ("3",))
IMAGES, TEST_IMAGES = 120, 20


def run_case(settings: dict[str, Any], source: Any) -> dict[str, np.ndarray]:
    """Learns `TASKS` and returns parameters, evidence, answers and imagined images by name."""
    rng, arrays = jax.random.key(7), {}
    state = lifelong.init(lifelong.Config().with_settings({**SMALL, **settings}), source.image_shape, rng=rng)
    for names in TASKS:
        images = {name: source.read("train", name)[:IMAGES] for name in names}
        state, report = lifelong.learn(state, images, rng=rng)
        arrays |= {f"loss/{name}": np.float64(value) for name, value in report.terms.items()}
    test = np.concatenate([source.read("test", name)[:TEST_IMAGES] for name in state.names])
    for path, leaf in jax.tree_util.tree_flatten_with_path(state.params)[0]:
        arrays["params/" + jax.tree_util.keystr(path, simple=True, separator="/")] = np.asarray(leaf)
    arrays["evidence"] = np.asarray(lifelong.evidence(state, test, rng=rng))
    kinds = ("elbo", "closed_form", "combined") if state.config.closed_form.random_features else ("elbo",)
    for kind in kinds:
        recognizer = lifelong.recogniser(state, kind)
        names, arrays[f"probabilities/{kind}"] = lifelong.recognise(recognizer, test, rng=rng)
        arrays[f"answers/{kind}"] = np.asarray(names, "U8")
    arrays["unknown"] = lifelong.unknown(state, arrays["evidence"], names)
    if settings.get("bound", "mean") == "mean" and len(kinds) > 1:  # the shortlist of 0.2 needs sums
        staged = lifelong.recogniser(state, "elbo", candidates=2)
        arrays["evidence_of_candidates"] = np.asarray(lifelong.evidence(staged, test))
    for cycles in (0, 2):
        for name, images in lifelong.imagine(state, state.names, 5, rng=rng, cycles=cycles).items():
            arrays[f"imagined/{cycles}/{name}"] = np.asarray(images)
    dropped = lifelong.drop(state, "1")
    arrays["evidence_after_drop"] = np.asarray(lifelong.evidence(dropped, test, rng=rng))
    return arrays


def main(file: str, cases: list[str]) -> None:
    """Writes the arrays of all cases to an npz file."""
    source, arrays = open_source("mnist5k"), {}
    for case in cases or CASES:
        arrays |= {f"{case}/{name}": values for name, values in run_case(CASES[case], source).items()}
        print(case, flush=True)
    np.savez(file, **arrays)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

"""Vectors, one category a task, beside methods that are trained on all categories at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.config import BenchmarkConfig
from lifelong_cvae import recognition, sampling
from lifelong_cvae.config import RECOGNIZERS
from lifelong_cvae.data import Source
from lifelong_cvae.evaluation.vector_classifier import flatten, logistic_regression, select_strength
from lifelong_cvae.state import LifelongState, init
from lifelong_cvae.training.learn import learn

ORDERS = 3
# Categories that are learned in the comparison of unknown ones; the others are unknown.
KNOWN = 5
# Random features of the joint ridge regression.
RANDOM_FEATURES = 4000
# Name of the joint method that imagined vectors teach too.
LOGISTIC = "logistic regression"
# Imagined vectors per training vector.
IMAGINED_PER_VECTOR = 4

Split = tuple[np.ndarray, np.ndarray]
# From an inverse penalty, vectors and categories to a fitted classifier.
Fit = Callable[[float, np.ndarray, np.ndarray], Any]


def vectors(benchmark_config: BenchmarkConfig) -> dict[str, Any]:
    """Compares learning one category after another with joint methods, on the vectors of `--dataset`.

    Returns:
        `rows`: accuracy in percent of each recognizer and method on the test vectors, mean and standard deviation over
        random orders of the categories. `taught_by_imagined` and `taught_by_real`: accuracy of a logistic regression.
        `differing_answers`: part of the answers of `closed_form` that differ between orders. `unknown_*`: AUROC of
        known against unknown categories. `learning_seconds` of all categories.
    """
    source = benchmark_config.open_source()
    train, test = _split(source, "train", source.categories), _split(source, "test", source.categories)
    answers: dict[str, list[np.ndarray]] = {kind: [] for kind in RECOGNIZERS}
    strengths = {name: select_strength(fit, *train) for name, fit in _JOINT_METHODS.items()}
    strength = strengths[LOGISTIC]
    seconds, taught, novelty = [], [], []
    for seed in range(benchmark_config.seed, benchmark_config.seed + ORDERS):
        order = np.random.default_rng(seed).permutation(source.categories).tolist()
        start = time.perf_counter()
        known, state = _learn_all(benchmark_config, source, order, seed)
        seconds.append(time.perf_counter() - start)
        for kind in RECOGNIZERS:
            answers[kind].append(recognition.recognize(recognition.make_recognizer(state, kind), test[0])[0])
        imagined = _imagined(state, IMAGINED_PER_VECTOR * len(train[0]) // len(order), seed)
        taught.append(100 * logistic_regression(strength, *imagined).score(*test))
        novelty.append(_novelty(known, source, strength))
        print(f"order {seed}: {seconds[-1]:.0f} seconds", file=sys.stderr, flush=True)
    rows = [_row(kind, [100 * np.mean(names == test[1]) for names in answers[kind]]) for kind in RECOGNIZERS]
    joint = {name: 100 * fit(strengths[name], *train).score(*test) for name, fit in _JOINT_METHODS.items()}
    rows += [_row(f"joint {name}", [value]) for name, value in joint.items()]
    closed_form = answers["closed_form"]
    return {
        "rows": rows,
        "learning_seconds": float(np.median(seconds)),
        "differing_answers": max(float(np.mean(names != closed_form[0])) for names in closed_form),
        "taught_by_imagined": float(np.mean(taught)),
        "taught_by_real": joint[LOGISTIC],
        **{f"unknown_{name}": float(np.mean([auroc[name] for auroc in novelty])) for name in novelty[0]},
    }


def _row(what: str, accuracies: Sequence[float]) -> dict[str, Any]:
    deviation = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
    return {"what": what, "accuracy, %": float(np.mean(accuracies)), "deviation": deviation}


def _split(source: Source, split: str, names: Sequence[str]) -> Split:
    """Returns all vectors of categories, float32 `[n, d]`, and their names."""
    return flatten({name: source.read(split, name) for name in names})


def _learn_all(
    benchmark_config: BenchmarkConfig, source: Source, order: Sequence[str], seed: int
) -> tuple[LifelongState, LifelongState]:
    """Learns categories one by one. Returns the states after `KNOWN` and after all of them."""
    rng, states = jax.random.key(seed), []
    state = init(benchmark_config.config, source.image_shape, rng=rng, capacity=len(order))
    for name in order:
        state, _ = learn(state, {name: source.read("train", name)}, rng=rng)
        states.append(state)
    return states[min(KNOWN, len(order)) - 1], state


def _imagined(state: LifelongState, count: int, seed: int) -> Split:
    samples = sampling.imagine(state, state.names, count, rng=jax.random.key(seed))
    return np.concatenate([np.asarray(values) for values in samples.values()]), np.repeat(list(samples), count)


def _novelty(state: LifelongState, source: Source, strength: float) -> dict[str, float]:
    """Computes the AUROC of known against unknown categories: ours and two joint methods."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.metrics import roc_auc_score

    train, (x, names) = _split(source, "train", state.names), _split(source, "test", source.categories)
    is_known = np.isin(names, state.names)
    recognizer = recognition.make_recognizer(state)
    found = recognition.recognize_with_evidence(recognizer, x)
    ours = recognition.familiarity(recognizer, found.log_evidence, found.names, scores=found.scores)
    softmax = logistic_regression(strength, *train).predict_proba(x).max(axis=1)
    joint = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1, store_covariance=True).fit(*train)
    factor = np.linalg.cholesky(np.linalg.inv(joint.covariance_))
    distances = [np.square((x - mean) @ factor).sum(axis=1) for mean in joint.means_]
    scores = {"ours": ours, "maximum_softmax": softmax, "mahalanobis_distance": -np.min(distances, axis=0)}
    return {name: float(roc_auc_score(is_known, np.nan_to_num(values))) for name, values in scores.items()}


def _lda(strength: float, *train: np.ndarray) -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=min(1 / strength, 1.0)).fit(*train)


def _ridge(strength: float, *train: np.ndarray) -> Any:
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    def expand(x: np.ndarray) -> np.ndarray:
        size = x.shape[1]
        matrix = np.random.default_rng(0).standard_normal((size, RANDOM_FEATURES), np.float32) / np.float32(size**0.5)
        return np.concatenate([x, np.maximum(x @ matrix, 0)], axis=1)

    ridge = RidgeClassifier(len(train[0]) / strength)
    return make_pipeline(StandardScaler(), FunctionTransformer(expand), StandardScaler(), ridge).fit(*train)


_JOINT_METHODS: dict[str, Fit] = {
    LOGISTIC: logistic_regression,
    "ridge regression, random features": _ridge,
    "LDA": _lda,
}

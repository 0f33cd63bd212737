"""Measures of continual recognition, from A[t, c]: accuracy on the images of c after task t.

A is a list with a dict per task, category name to fraction, over the categories known by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Accuracies = Mapping[str, float]


def accuracy_per_category(
    log_posteriors: Mapping[str, np.ndarray],
    names: Sequence[str],
    *,
    candidates: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, float]:
    """Fraction of each category's images that are given its name.

    Args:
        log_posteriors: true category to `[n, len(names)]`, higher is more likely; log evidence serves.
        names: category of each column.
        candidates: true category to the answers that are allowed; default all.
    """
    fractions = {}
    for category, values in log_posteriors.items():
        allowed = names if candidates is None else candidates[category]
        columns = [list(names).index(name) for name in allowed]
        answers = np.asarray(allowed)[np.asarray(values)[:, columns].argmax(axis=1)]
        fractions[category] = float((answers == category).mean())
    return fractions


def pooled_accuracy(accuracies: Accuracies, counts: Mapping[str, int]) -> float:
    """Fraction of right answers over the images of all categories together."""
    total = sum(counts[name] for name in accuracies)
    return sum(accuracies[name] * counts[name] for name in accuracies) / total


def accuracies(log_posteriors: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, Any]:
    """`accuracy` over all images together and `accuracy_per_category`; arguments as above."""
    per_category = accuracy_per_category(log_posteriors, names)
    counts = {name: len(values) for name, values in log_posteriors.items()}
    return {"accuracy": pooled_accuracy(per_category, counts), "accuracy_per_category": per_category}


def forgetting(history: Sequence[Accuracies], final: Accuracies | None = None) -> float:
    """Mean over c learned before the last task T of max_{t<T} A[t, c] - A[T, c], in percentage points.

    Source: Chaudhry et al. 2018 (arXiv 1801.10112), average forgetting. 0 where there is one task.

    Args:
        history: A, a dict per task.
        final: accuracies to use as A[T]. With answers restricted to the categories known when c was
            learned, this is what is lost by damage and not by the harder choice.
    """
    last = history[-1] if final is None else final
    earlier = history[:-1]
    learned_before = [name for name in history[-1] if any(name in row for row in earlier)]
    losses = [max(row[name] for row in earlier if name in row) - last[name] for name in learned_before]
    return 100 * float(np.mean(losses)) if losses else 0.0

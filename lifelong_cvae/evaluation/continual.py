"""Measures of continual recognition, from A[t, c]: accuracy on the images of c after task t.

A is a list with a dict per task, category name to fraction, over the categories known by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from lifelong_cvae.evaluation import calibration

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


def known_after_task(tasks: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Category to the categories known after the task in which it was learned."""
    known: list[str] = []
    then: dict[str, list[str]] = {}
    for names in tasks:
        known = [*known, *names]
        then.update({name: known for name in names})
    return then


def pooled_accuracy(accuracies: Accuracies, counts: Mapping[str, int]) -> float:
    """Fraction of right answers over the images of all categories together."""
    total = sum(counts[name] for name in accuracies)
    return sum(accuracies[name] * counts[name] for name in accuracies) / total


def recognition_accuracies(log_posteriors: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, Any]:
    """`accuracy` over all images, `accuracy_per_category`, `calibration_error`; arguments as above."""
    per_category = accuracy_per_category(log_posteriors, names)
    counts = {name: len(values) for name, values in log_posteriors.items()}
    truth = np.repeat([list(names).index(name) for name in counts], list(counts.values()))
    probabilities = special.softmax(np.concatenate(list(log_posteriors.values())), axis=1)
    right = probabilities.argmax(axis=1) == truth
    return {
        "accuracy": pooled_accuracy(per_category, counts),
        "accuracy_per_category": per_category,
        "calibration_error": calibration.expected_calibration_error(probabilities.max(axis=1), right),
    }


def average_accuracy(history: Sequence[Accuracies]) -> float:
    """Mean over the categories known at the end of A[T, c], as a fraction.

    Source: Lopez-Paz and Ranzato 2017 (arXiv 1706.08840), ACC.
    """
    return float(np.mean(list(history[-1].values())))


def average_incremental_accuracy(history: Sequence[Accuracies]) -> float:
    """Mean over t of the average accuracy after task t, as a fraction.

    Source: Rebuffi et al. 2017 (arXiv 1611.07725), average incremental accuracy.
    """
    return float(np.mean([average_accuracy([row]) for row in history]))


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
    losses = [max(row[name] for row in earlier if name in row) - last[name] for name in _learned_before_last(history)]
    return _mean_points(losses)


def backward_transfer(history: Sequence[Accuracies]) -> float:
    """Mean over c learned before the last task T of A[T, c] - A[t_c, c], in percentage points.

    t_c is the first task after which c is known. What later tasks did to c: negative is forgetting.
    Source: Lopez-Paz and Ranzato 2017 (arXiv 1706.08840), BWT. 0 where there is one task.
    """
    return _mean_points([history[-1][name] - _first_row(history, name)[name] for name in _learned_before_last(history)])


def forward_transfer(history: Sequence[Accuracies], tasks: Sequence[Sequence[str]], untrained: Accuracies) -> float:
    """Mean over c learned after the first task of A[t_c - 1, c] - b_c, in percentage points.

    t_c is the task of c, b_c the accuracy on c of a learner that has learned nothing. A category that a row
    lacks could not be named then: its accuracy is 0. A learner that grows can never name what it has not
    met, so its forward transfer is 0 by construction; `intransigence` says what earlier categories are
    worth to later ones. Source: Lopez-Paz and Ranzato 2017 (arXiv 1706.08840), FWT.

    Args:
        history: A, a dict per task; rows may hold categories that come later.
        tasks: the categories of each task.
        untrained: b; 0 for categories that are not named.
    """
    return _mean_points(
        [
            history[task].get(name, 0.0) - untrained.get(name, 0.0)
            for task, names in enumerate(tasks[1:])
            for name in names
        ]
    )


def intransigence(history: Sequence[Accuracies], reference: Sequence[Accuracies]) -> float:
    """Mean over c of the reference's A[t_c, c] minus this learner's, in percentage points.

    What a learner loses on a category at hand, for the sake of those before it; negative where those
    before help. Source: Chaudhry et al. 2018 (arXiv 1801.10112), intransigence, with a given reference.

    Args:
        history: A, a dict per task.
        reference: A of another learner of the same categories.
    """
    names = list(history[-1])
    return _mean_points([_first_row(reference, name)[name] - _first_row(history, name)[name] for name in names])


def summary(history: Sequence[Accuracies]) -> dict[str, float]:
    """All figures above that one history gives; accuracies are fractions, the others points."""
    return {
        "average_accuracy": average_accuracy(history),
        "average_incremental_accuracy": average_incremental_accuracy(history),
        "forgetting": forgetting(history),
        "backward_transfer": backward_transfer(history),
    }


def _learned_before_last(history: Sequence[Accuracies]) -> list[str]:
    return [name for name in history[-1] if any(name in row for row in history[:-1])]


def _first_row(history: Sequence[Accuracies], name: str) -> Accuracies:
    """The row of t_c, the first that knows a category."""
    return next(row for row in history if name in row)


def _mean_points(fractions: Sequence[float]) -> float:
    return 100 * float(np.mean(fractions)) if fractions else 0.0

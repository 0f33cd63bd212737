"""Metrics of continual recognition, from A[t, c]: accuracy on the images of category c after task t.

A is a list with one dict per task, category name to fraction, over the categories known after that task.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

# Suffix of the keys of metrics that the recognizer `elbo` yields, beside those of the run's recognizer.
ELBO_SUFFIX = "_elbo"
# Bins of the calibration error.
CALIBRATION_BINS = 15

# A row of A: category name to fraction.
Accuracies = Mapping[str, float]


def with_suffix(values: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    """Returns `values` with `suffix` appended to each key."""
    return {f"{key}{suffix}": value for key, value in values.items()}


def accuracy_per_category(
    log_posteriors: Mapping[str, np.ndarray],
    names: Sequence[str],
    *,
    candidates: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, float]:
    """Computes the fraction of each category's images that are recognized.

    Args:
        log_posteriors: true category to `[n, len(names)]`. A constant per image may be missing, so log evidence
            serves as well.
        names: category of each column.
        candidates: true category to the categories that may be predicted; default all.
    """
    fractions = {}
    for category, values in log_posteriors.items():
        allowed = names if candidates is None else candidates[category]
        columns = [list(names).index(name) for name in allowed]
        predictions = np.asarray(allowed)[np.asarray(values)[:, columns].argmax(axis=1)]
        fractions[category] = float((predictions == category).mean())
    return fractions


def known_after_task(tasks: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Maps each category to the categories known after the task that it was learned in."""
    known: list[str] = []
    known_by_category: dict[str, list[str]] = {}
    for names in tasks:
        known = [*known, *names]
        known_by_category.update({name: known for name in names})
    return known_by_category


def pooled_accuracy(accuracies: Accuracies, counts: Mapping[str, int]) -> float:
    """Computes the accuracy over the images of all categories together.

    Args:
        accuracies: accuracy of each category.
        counts: number of images of each category. Categories without an accuracy are ignored.
    """
    total = sum(counts[name] for name in accuracies)
    return sum(accuracies[name] * counts[name] for name in accuracies) / total


def recognition_accuracies(log_posteriors: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, Any]:
    """Computes `accuracy`, `accuracy_per_category` and `calibration_error` of one recognizer.

    Args:
        log_posteriors: as in `accuracy_per_category`; their softmax is p(c|x).
        names: category of each column.
    """
    per_category = accuracy_per_category(log_posteriors, names)
    counts = {name: len(values) for name, values in log_posteriors.items()}
    truth = np.repeat([list(names).index(name) for name in counts], list(counts.values()))
    probabilities = special.softmax(np.concatenate(list(log_posteriors.values())), axis=1)
    correct = probabilities.argmax(axis=1) == truth
    return {
        "accuracy": pooled_accuracy(per_category, counts),
        "accuracy_per_category": per_category,
        "calibration_error": expected_calibration_error(probabilities.max(axis=1), correct),
    }


def expected_calibration_error(probabilities: np.ndarray, correct: np.ndarray) -> float:
    """Computes the mean over images of |accuracy - confidence| of their bin, a fraction in [0, 1].

    There are `CALIBRATION_BINS` bins of equal width, by the probability of an image's predicted category. Source: Guo
    et al. 2017 (arXiv 1706.04599).

    Args:
        probabilities: p(c|x) of the predicted category, `[n]`.
        correct: whether the prediction is right, bool `[n]`.
    """
    bins = np.minimum((np.asarray(probabilities) * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, np.asarray(correct, np.float64) - probabilities, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(bins))


def average_accuracy(history: Sequence[Accuracies]) -> float:
    """Computes the mean of A[T, c] over the categories known after the last task T, as a fraction.

    Source: Lopez-Paz and Ranzato 2017 (arXiv 1706.08840), ACC.
    """
    return float(np.mean(list(history[-1].values())))


def average_incremental_accuracy(history: Sequence[Accuracies]) -> float:
    """Computes the mean of the average accuracy after each task (Rebuffi et al. 2017, arXiv 1611.07725)."""
    return float(np.mean([average_accuracy([row]) for row in history]))


def forgetting(history: Sequence[Accuracies], final: Accuracies | None = None) -> float:
    """Computes the mean of max_{t<T} A[t, c] - A[T, c], in percentage points.

    The mean is over categories learned before the last task T, and 0 if there is only one task. Source: Chaudhry et
    al. 2018 (arXiv 1801.10112), average forgetting.

    Args:
        history: A, one dict per task.
        final: accuracies to use as A[T]. If predictions are restricted to the categories known when c was learned,
            the result is the loss through damage, without the loss through a larger choice.
    """
    last = history[-1] if final is None else final
    earlier = history[:-1]
    losses = [max(row[name] for row in earlier if name in row) - last[name] for name in _learned_before_last(history)]
    return _mean_points(losses)


def backward_transfer(history: Sequence[Accuracies]) -> float:
    """Computes the mean of A[T, c] - A[t_c, c], in percentage points.

    The mean is over categories c learned before the last task T, and 0 if there is only one task; t_c is the first
    task after which c is known. Backward transfer is the effect of later tasks on c; forgetting makes it negative.
    Source: Lopez-Paz and Ranzato 2017 (arXiv 1706.08840), BWT.
    """
    return _mean_points([history[-1][name] - _first_row(history, name)[name] for name in _learned_before_last(history)])


def intransigence(history: Sequence[Accuracies], reference: Sequence[Accuracies]) -> float:
    """Computes the mean over c of the reference's A[t_c, c] minus the learner's, in percentage points.

    t_c is the first task after which c is known. Intransigence is positive if earlier categories make it harder to
    learn a new one, and negative if they help. Source: Chaudhry et al. 2018 (arXiv 1801.10112), intransigence, with a
    given reference.

    Args:
        history: A of the learner, one dict per task.
        reference: A of another learner of the same categories.
    """
    names = list(history[-1])
    return _mean_points([_first_row(reference, name)[name] - _first_row(history, name)[name] for name in names])


def summary(history: Sequence[Accuracies]) -> dict[str, float]:
    """Computes the metrics of one history: accuracies as fractions, the others in percentage points."""
    return {
        "average_accuracy": average_accuracy(history),
        "average_incremental_accuracy": average_incremental_accuracy(history),
        "forgetting": forgetting(history),
        "backward_transfer": backward_transfer(history),
    }


def _learned_before_last(history: Sequence[Accuracies]) -> list[str]:
    return [name for name in history[-1] if any(name in row for row in history[:-1])]


def _first_row(history: Sequence[Accuracies], name: str) -> Accuracies:
    """Returns A[t_c], the first row that includes category c."""
    return next(row for row in history if name in row)


def _mean_points(fractions: Sequence[float]) -> float:
    return 100 * float(np.mean(fractions)) if fractions else 0.0

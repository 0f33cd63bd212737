"""Session of the live page: recognizes, imagines, learns, drops and saves categories, thread-safe.

States are immutable, so every answer comes from one consistent state, even if another thread changes it meanwhile.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae import checkpoints, recognition, sampling
from lifelong_cvae.errors import InputError
from lifelong_cvae.images import to_certain_pixels, to_float
from lifelong_cvae.model import cvae, mixture_prior
from lifelong_cvae.model.types import own_types
from lifelong_cvae.recognition import ridge_sums
from lifelong_cvae.runs.lock import lock_workdir
from lifelong_cvae.state import LifelongState, check_known, check_name
from lifelong_cvae.training.learn import learn
from lifelong_cvae.training.train import TaskProgress

MIN_EXAMPLES = 10
# Largest number of latent directions with a slider.
NUM_DIRECTIONS = 6
# Range of a slider to both sides, in standard deviations.
SLIDER_RANGE = 3.0
# Largest number of categories that reconstruct an image.
MAX_SHOWN = 20
# Displayed turns of the circle.
TURNS = 8
TAUGHT_DIR = "taught"
# Share of the training steps in the progress of a task; the fits and sums after them are the rest.
STEPS_SHARE = 0.9


class BusyError(Exception):
    """Another change is in progress. The message is one line that names it."""


class Answer(NamedTuple):
    """Recognition of one image.

    Attributes:
        names: all categories, or the MAX_SHOWN most probable ones, in order of learning.
        probabilities: posterior p(c|x) of these categories, `[names]`.
        reconstructions: the image as each of these categories reconstructs it, in [0, 1], `[names, h, w, c]`.
        best: most probable category.
        unknown: True if the image is rejected as unknown.
        turns: images of the most probable category after each turn of the circle, in [0, 1], `[TURNS, h, w, c]`.
    """

    names: tuple[str, ...]
    probabilities: np.ndarray
    reconstructions: np.ndarray
    best: str
    unknown: bool
    turns: np.ndarray


class Teaching(NamedTuple):
    """Progress of learning a category.

    Attributes:
        name: the category.
        progress: completed fraction, in [0, 1].
        result: sentence on how learning ended; empty while the category is being learned.
        failed: True if the category was not learned.
    """

    name: str
    progress: float
    result: str
    failed: bool


class Session:
    """Holds the current state of the live page. Its methods may be called from many threads at once.

    Args:
        state: initial state.
        workdir: run directory; `save` writes into its folder TAUGHT_DIR.
        seed: seed of learning and sampling.
    """

    def __init__(self, state: LifelongState, workdir: Path, *, seed: int = 0):
        self._rng = jax.random.key(seed)
        self._workdir = workdir
        self._recognizer = recognition.make_recognizer(state)
        self._change_lock = threading.Lock()  # held by the thread that changes the state
        self._teaching: Teaching | None = None
        self.saved = True

    @property
    def state(self) -> LifelongState:
        """Current state."""
        return self._recognizer.state

    @property
    def teaching(self) -> Teaching | None:
        """Progress of the current or the last call of `teach`; None before the first."""
        return self._teaching

    def answer(self, image: np.ndarray) -> Answer:
        """Recognizes an image, uint8 `[h, w, c]`, reconstructs it and runs it around the circle."""
        recognizer = self._recognizer
        state, images = recognizer.state, self._certain(image[None])
        (best,), (probabilities,), log_evidence, scores = recognition.recognize_with_evidence(
            recognizer, images, rng=self._rng
        )
        shown = np.sort(np.argsort(-probabilities, kind="stable")[:MAX_SHOWN])
        names = [state.names[index] for index in shown]
        turns = sampling.circle_images(
            state.model(best), np.asarray(to_float(image)).reshape(1, -1), TURNS, rng=self._rng
        )
        return Answer(
            names=tuple(names),
            probabilities=probabilities[shown],
            reconstructions=np.stack([sampling.reconstruct(state, name, images)[0] for name in names]),
            best=str(best),
            unknown=bool(recognition.unknown(recognizer, log_evidence, [best], scores=scores)[0]),
            turns=np.asarray(turns).reshape(-1, *state.image_shape),
        )

    def image_at(self, name: str, positions: Sequence[float]) -> np.ndarray:
        """Returns the image `[h, w, c]` of a category at a position along its principal latent directions.

        Args:
            name: the category.
            positions: standard deviations from the mean along each direction, the widest first. At most
                `NUM_DIRECTIONS` and the latent size.

        Raises:
            InputError: an unknown category, too many positions, or one beyond SLIDER_RANGE.
        """
        state = self.state
        model = state.model(name)
        mean, stds, directions = mixture_prior.principal_directions(model.prior)
        maximum, count = min(NUM_DIRECTIONS, len(mean)), len(positions)
        if count > maximum or not all(abs(position) <= SLIDER_RANGE for position in positions):
            raise InputError(
                f"positions: expected at most {maximum} numbers from {-SLIDER_RANGE} to {SLIDER_RANGE}, "
                f"got {', '.join(map(str, positions))}"
            )
        z = mean + (np.asarray(positions, np.float64) * stds[:count]) @ directions[:count]
        with own_types():
            image = _sample_image(model, jnp.asarray(z[None], jnp.float32))
        return np.asarray(image).reshape(state.image_shape)

    def imagine(self, name: str, count: int, *, seed: int) -> np.ndarray:
        """Imagines images of a category, float32 `[count, h, w, c]` in [0, 1]; the same for the same seed."""
        return np.asarray(sampling.imagine(self.state, [name], count, rng=jax.random.key(seed))[name])

    def teach(self, name: str, images: np.ndarray) -> None:
        """Starts a thread that learns a new category. `teaching` reports its progress.

        Args:
            name: the category.
            images: uint8 `[n, h, w, c]`.

        Raises:
            InputError: the name is known or invalid, or there are fewer than `MIN_EXAMPLES` images.
            BusyError: another change is in progress.
        """
        check_name(name)
        if len(images) < MIN_EXAMPLES:
            raise InputError(f"category {name!r}: expected at least {MIN_EXAMPLES} examples, got {len(images)}")
        self._acquire_change_lock()
        try:
            if name in self.state.names:
                raise InputError(f"category name: expected a new one, got {name!r}, which is known: drop it first")
            self._teaching = Teaching(name, 0.0, "", failed=False)
            threading.Thread(target=self._learn, args=(name, images), daemon=True).start()
        except BaseException:
            self._change_lock.release()
            raise

    def drop(self, name: str) -> None:
        """Removes a category.

        Raises:
            InputError: the category is unknown, or the only one.
            BusyError: another change is in progress.
        """
        with self._changing():
            check_known(self.state, [name])
            if len(self.state.names) == 1:
                raise InputError(f"drop: expected another category to remain, got {name!r}, the only one")
            self._set_state(ridge_sums.drop(self.state, name))

    def save(self) -> Path:
        """Saves the state as a checkpoint, and returns the directory of checkpoints.

        Raises:
            InputError: another process is writing into the run directory.
            BusyError: another change is in progress.
            OSError: the disk is full or not writable.
        """
        folder = self._workdir / TAUGHT_DIR
        with self._changing(), lock_workdir(self._workdir):
            checkpoints.save(self.state, folder)
            self.saved = True
        return folder

    def _acquire_change_lock(self) -> None:
        if not self._change_lock.acquire(blocking=False):
            teaching = self._teaching
            is_learning = teaching is not None and not teaching.result
            change = f"{teaching.name} is being learned" if is_learning else "another change is in progress"
            raise BusyError(f"{change}: wait until it is done")

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        self._acquire_change_lock()
        try:
            yield
        finally:
            self._change_lock.release()

    def _certain(self, images: np.ndarray) -> np.ndarray:
        """Converts uint8 images to floats where the state would not read them as values from 0 to 255."""
        has_own_range = self.state.max_value is not None
        return np.asarray(to_float(images)) if has_own_range else to_certain_pixels(images, None)

    def _set_state(self, state: LifelongState) -> None:
        self._recognizer = recognition.make_recognizer(state)
        self.saved = False

    def _learn(self, name: str, images: np.ndarray) -> None:
        """Learns a category in a thread of `teach`, which has acquired the lock that this function releases."""

        def progress(at: TaskProgress, total: int) -> None:
            self._teaching = Teaching(name, STEPS_SHARE * at.steps / total, "", failed=False)

        try:
            learned, report = learn(self.state, {name: self._certain(images)}, rng=self._rng, progress=progress)
            self._set_state(learned)
            result = f"{name} was learned from {len(images)} examples in {report.seconds:.0f} seconds"
            self._teaching = Teaching(name, 1.0, result, failed=False)
        except (InputError, FloatingPointError) as error:
            self._teaching = Teaching(name, 1.0, str(error), failed=True)
        except BaseException:
            self._teaching = Teaching(name, 1.0, f"{name} could not be learned", failed=True)
            raise
        finally:
            self._change_lock.release()


_sample_image = jax.jit(cvae.sample_image)

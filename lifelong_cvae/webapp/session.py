"""What the live page asks of a state: to recognize, to draw, to learn and forget a category, to be saved.

States are immutable: every answer is of one state as a whole, whatever another browser does meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lifelong_cvae import checkpoints, recognition, sampling
from lifelong_cvae.errors import InputError
from lifelong_cvae.model import cvae, mixture_prior
from lifelong_cvae.recognition import ridge_classifier
from lifelong_cvae.runs.workdir import lock_workdir
from lifelong_cvae.state import LifelongState, check_known, check_name
from lifelong_cvae.training.learn import learn
from lifelong_cvae.training.train import TaskProgress

MIN_EXAMPLES = 10
NUM_DIRECTIONS = 6  # latent directions that have a slider
SLIDER_RANGE = 3.0  # standard deviations that a slider reaches to both sides
MAX_SHOWN = 20  # categories that an image is redrawn by
TURNS = 8  # of the circle that are shown
TAUGHT_DIR = "taught"


class BusyError(Exception):
    """Something else is going on. The message is one line and says what."""


class Answer(NamedTuple):
    """What is made of one image: by all categories, or by the SHOWN likeliest, in the order of learning."""

    names: tuple[str, ...]
    probabilities: np.ndarray  # [names]
    redrawn: np.ndarray  # how each of them draws it, [names, h, w, c]
    best: str
    unknown: bool  # the image is like none of all categories
    turns: np.ndarray  # what the likeliest draws after each turn of the circle, [TURNS, h, w, c]


class Teaching(NamedTuple):
    """Where the learning of a category stands.

    `part` is in [0, 1]; `ended` says in words how it ended, and is empty while it goes on.
    """

    name: str
    part: float
    ended: str
    failed: bool


class Session:
    """A state that can be asked, taught and saved, from many threads at once.

    Args:
        state: what has been learned.
        workdir: of the run; what is taught is saved beside it, into `FOLDER`.
        seed: all randomness derives from it.
    """

    def __init__(self, state: LifelongState, workdir: Path, *, seed: int = 0):
        self._rng = jax.random.key(seed)
        self._workdir = workdir
        self._ready = recognition.make_recognizer(state)
        self._changes = threading.Lock()  # whoever changes the state holds it
        self._teaching: Teaching | None = None
        self.saved = True

    @property
    def state(self) -> LifelongState:
        """What is known now."""
        return self._ready.state

    @property
    def teaching(self) -> Teaching | None:
        """The learning that goes on, or the last one; None before the first."""
        return self._teaching

    def answer(self, image: np.ndarray) -> Answer:
        """What is made of an image, uint8 `[h, w, c]`."""
        ready = self._ready
        state, images = ready.state, image[None]
        evidence = np.asarray(recognition.evidence(ready, images, rng=self._rng))
        likelihoods = recognition.log_likelihoods(ready, images, log_evidence=evidence)
        probabilities = np.exp(np.asarray(recognition.log_posteriors(likelihoods)))[0]
        shown = np.sort(np.argsort(-probabilities, kind="stable")[:MAX_SHOWN])
        names, best = [state.names[index] for index in shown], state.names[probabilities.argmax()]
        redrawn = [sampling.reconstruct(state, name, images)[0] for name in names]
        turns = _circle(state.model(best), images.reshape(1, -1) / np.float32(255), rng=self._rng)
        return Answer(
            names=tuple(names),
            probabilities=probabilities[shown],
            redrawn=np.stack(redrawn),
            best=best,
            unknown=bool(recognition.unknown(state, evidence, [best])[0]),
            turns=np.asarray(turns).reshape(-1, *state.image_shape),
        )

    def along(self, name: str, positions: Sequence[float]) -> np.ndarray:
        """What a category draws where its main latent directions are followed so far.

        Args:
            name: the category.
            positions: standard deviations from the mean along each direction, the widest first, at most
                `DIRECTIONS` and the latent size.

        Returns:
            float32 `[h, w, c]` in [0, 1].

        Raises:
            InputError: an unknown category, or positions out of reach or too many.
        """
        state = self.state
        model = state.model(name)
        mean, covariance = mixture_prior.mean_and_covariance(model.prior)
        most = min(NUM_DIRECTIONS, len(mean))
        if len(positions) > most or not all(abs(position) <= SLIDER_RANGE for position in positions):
            raise InputError(f"positions: at most {most} numbers from {-SLIDER_RANGE} to {SLIDER_RANGE} are expected")
        variances, directions = np.linalg.eigh(covariance)
        z = mean + sum(
            position * np.sqrt(variances[-index]) * directions[:, -index]
            for index, position in enumerate(positions, start=1)
        )
        return np.asarray(_draw(model, jnp.asarray(z[None], jnp.float32))).reshape(state.image_shape)

    def imagine(self, name: str, count: int, *, seed: int) -> np.ndarray:
        """Images of a category, float32 `[count, h, w, c]` in [0, 1]; the same for the same seed."""
        return np.asarray(sampling.imagine(self.state, [name], count, rng=jax.random.key(seed))[name])

    def teach(self, name: str, images: np.ndarray) -> None:
        """Begins to learn a new category in a thread; `teaching` tells how it goes on.

        Raises:
            InputError: the name is known or not one, or there are fewer than `MINIMUM_EXAMPLES` images.
            BusyError: another category is being learned.
        """
        check_name(name)
        if len(images) < MIN_EXAMPLES:
            raise InputError(f"{name}: at least {MIN_EXAMPLES} examples are expected, got {len(images)}")
        self._take_turn()
        try:
            if name in self.state.names:
                raise InputError(f"{name} is known already: another name is expected, or drop it first")
            self._teaching = Teaching(name, 0.0, "", failed=False)
            threading.Thread(target=self._learn, args=(name, images), daemon=True).start()
        except BaseException:
            self._changes.release()
            raise

    def drop(self, name: str) -> None:
        """Forgets a category.

        Raises:
            InputError: the category is unknown, or the only one.
            BusyError: a category is being learned.
        """
        self._take_turn()
        try:
            check_known(self.state, [name])
            if len(self.state.names) == 1:
                raise InputError(f"{name} is the only category: one at least is expected to stay")
            self._become(ridge_classifier.drop(self.state, name))
        finally:
            self._changes.release()

    def save(self) -> Path:
        """Saves the state, and returns the folder of checkpoints that it is in.

        Raises:
            InputError: another process is writing into the run's folder.
            BusyError: a category is being learned.
            OSError: the disk is full, or not to be written to.
        """
        self._take_turn()
        try:
            folder = self._workdir / TAUGHT_DIR
            with lock_workdir(self._workdir):
                checkpoints.save(self.state, folder)
            self.saved = True
            return folder
        finally:
            self._changes.release()

    def _take_turn(self) -> None:
        if not self._changes.acquire(blocking=False):
            teaching = self._teaching
            name = f"{teaching.name} is being learned" if teaching and not teaching.ended else "a change is made"
            raise BusyError(f"{name}: wait until it is done")

    def _become(self, state: LifelongState) -> None:
        self._ready = recognition.make_recognizer(state)
        self.saved = False

    def _learn(self, name: str, images: np.ndarray) -> None:
        """What the thread does: it holds the turn, and gives it back."""

        def progress(at: TaskProgress, total: int) -> None:
            # What follows the steps takes about as long as a tenth of them.
            self._teaching = Teaching(name, 0.9 * at.steps / total, "", failed=False)

        try:
            learned, report = learn(self.state, {name: images}, rng=self._rng, progress=progress)
            self._become(learned)
            ended = f"{name} was learned from {len(images)} examples in {report.seconds:.0f} seconds"
            self._teaching = Teaching(name, 1.0, ended, failed=False)
        except (InputError, FloatingPointError) as error:
            self._teaching = Teaching(name, 1.0, str(error), failed=True)
        except BaseException:
            self._teaching = Teaching(name, 1.0, f"{name} could not be learned", failed=True)
            raise
        finally:
            self._changes.release()


_draw = jax.jit(cvae.sample_image)


@jax.jit
def _circle(model: cvae.CategoryModel, x: jax.Array, *, rng: jax.Array) -> jax.Array:
    """What is drawn after each turn of the circle from an image `[1, pixels]`: `[TURNS, pixels]`."""

    def turn(x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        z, x = cvae.circulate(model, jnp.zeros((1, model.networks.latent_size)), x, 1, rng=key)
        return x, cvae.sample_image(model, z)[0]

    return jax.lax.scan(turn, x, jax.random.split(rng, TURNS))[1]

"""Settings of the closed-form recognizer, a section of `config.Config`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from lifelong_cvae.deprecated import accept_old_settings
from lifelong_cvae.errors import check, check_choice, check_not_negative, check_positive

GRAM_SHARINGS = ("mixed", "own")
DICTIONARIES = ("dead_leaves", "first_task")
# Value of `second_filters` that is replaced by one that suits the channels.
BY_CHANNELS = -1
# Bounds of the number of random features of a vector, since time grows with its cube: so many per dimension, and so
# many features in all, the vector's own among them. Every vector may have the least number.
FEATURES_PER_DIMENSION, MAX_VECTOR_FEATURES, MIN_RANDOM_FEATURES = 32, 8192, 256
# Side of the synthetic images that filters are learned from, in pixels.
MAX_FILTER_SIZE = 48
# Settings of the closed form in version 0.2.0.
OLD_SETTINGS = {"num_filters", "filter_size", "pool_grid", "random_features", "gram_sharing"}


@accept_old_settings
@dataclass(frozen=True)
class ClosedFormConfig:
    """Closed-form recognizer: features that no category owns (`ridge.features`), and exact sums of them.

    A number of 0 for `num_filters` and `pool_grid`, and -1 for `second_filters`, is replaced when a state is created
    (`resolve`).

    Attributes:
        num_filters: filters in the dictionary. 0: 64 for gray images, 256 for color; with `fold_mirrors` 512 and 1024.
        filter_size: side of a filter in pixels; smaller for smaller images.
        pool_grid: rows and columns of the grid of cells over which filter responses are averaged. 0: 4 for gray
            images, 3 for color or with `fold_mirrors`.
        second_filters: filters of the second layer (`ridge.second_layer`), an even number. 0: no second layer.
            -1: 1,024 for color images, in place of the random features; none for gray images.
        pooled_features: whether the averaged responses are features.
        random_features: size of the random expansion of the averaged responses, or of vectors: narrow and wide ones get
            fewer (`resolve_vectors`). 0 without a second layer keeps no sums and disables this recognizer.
        fold_mirrors: whether mirror images are learned too, by folding them into the features. Wrong for characters.
        shift_images: whether images shifted by a pixel up, down, left and right are learned too, which takes five
            times as long.
        gram_sharing: `mixed`: one Gram matrix for all categories. `own`: one per category, so that a category can be
            dropped exactly; costs about 0.6 features^2 values of 6 bytes per category.
        filter_seed: seed of the dictionary and of the random expansion.
        dictionary: `dead_leaves`: filters from synthetic images. `first_task`: filters of version 0.2, which states
            of that version have; they recognize by the ELBO alone.
    """

    num_filters: int = 0
    filter_size: int = 6
    pool_grid: int = 0
    second_filters: int = 0
    pooled_features: bool = True
    random_features: int = 3072
    fold_mirrors: bool = False
    shift_images: bool = False
    gram_sharing: str = "mixed"
    filter_seed: int = 0
    dictionary: str = "dead_leaves"

    def __post_init__(self):
        check_positive("filter_size", self.filter_size)
        check(
            self.filter_size <= MAX_FILTER_SIZE,
            f"setting filter_size: expected at most {MAX_FILTER_SIZE}, got {self.filter_size}",
        )
        for name in ("num_filters", "pool_grid", "random_features", "filter_seed"):
            check_not_negative(name, getattr(self, name))
        check_choice("gram_sharing", self.gram_sharing, GRAM_SHARINGS)
        check_choice("dictionary", self.dictionary, DICTIONARIES)
        check(
            not (self.fold_mirrors or self.second_filters) or self.num_filters % 2 == 0,
            f"setting num_filters: expected an even number with fold_mirrors or second_filters, got {self.num_filters}",
        )
        check(
            self.second_filters == BY_CHANNELS or (self.second_filters >= 0 and self.second_filters % 2 == 0),
            f"setting second_filters: expected an even number, or {BY_CHANNELS}, got {self.second_filters}",
        )
        check(
            self.pooled_features or self.random_features > 0 or not self.second_filters,
            "setting pooled_features: expected true with random_features=0, got false",
        )

    @property
    def has_features(self) -> bool:
        """True if there is a regression."""
        return self.dictionary == "dead_leaves" and (self.random_features > 0 or self.second_filters != 0)

    def resolve_vectors(self, size: int) -> ClosedFormConfig:
        """Returns the settings for vectors of `size` values, which bounds the number of random features."""
        largest = max(MIN_RANDOM_FEATURES, min(FEATURES_PER_DIMENSION * size, MAX_VECTOR_FEATURES - size))
        return dataclasses.replace(self, second_filters=0, random_features=min(self.random_features, largest))

    def resolve(self, channels: int) -> ClosedFormConfig:
        """Returns the settings for images with this number of channels, without values that depend on it."""
        gray_filters, color_filters = (512, 1024) if self.fold_mirrors else (64, 256)
        num_filters = gray_filters if channels == 1 else color_filters
        pool_grid = 4 if channels == 1 and not self.fold_mirrors else 3
        settings = dataclasses.replace(
            self, num_filters=self.num_filters or num_filters, pool_grid=self.pool_grid or pool_grid
        )
        if self.second_filters != BY_CHANNELS:
            return settings
        if channels == 1:
            return dataclasses.replace(settings, second_filters=0)
        return dataclasses.replace(settings, second_filters=1024, random_features=0)


def complete_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Completes settings of 0.2.0, whose features cannot be computed any more; returns others as they are."""
    if set(settings) != OLD_SETTINGS:
        return settings
    dictionary = "first_task" if settings["random_features"] else "dead_leaves"
    return {**dataclasses.asdict(ClosedFormConfig()), **settings, "dictionary": dictionary}

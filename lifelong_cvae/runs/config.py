"""Configuration of a run: data, tasks, seed and settings, as recorded in `config.json`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lifelong_cvae.config import Config
from lifelong_cvae.data import Source, SourceOptions, limit_train_images
from lifelong_cvae.errors import InputError
from lifelong_cvae.files import read_json, verify_digest


@dataclass(frozen=True)
class RunConfig:
    """Configuration of a run.

    Attributes:
        dataset: data source, as `--dataset` names it.
        tasks: categories of each task.
        validation_fraction: fraction of each training category that is held out.
        images_per_category: training images of each category after the first `full_categories`; None uses all.
        full_categories: number of first categories that keep all their images.
        seed: source of all randomness.
        evaluate_on: `test` or `validation`.
        options: options of the data source.
        config: settings of the model.
    """

    dataset: str
    tasks: tuple[tuple[str, ...], ...]
    validation_fraction: float = 0.0
    images_per_category: int | None = None
    full_categories: int = 0
    seed: int = 0
    evaluate_on: str = "test"
    options: SourceOptions = field(default_factory=SourceOptions)
    config: Config = field(default_factory=Config)

    def __post_init__(self):
        if self.evaluate_on == "validation" and self.validation_fraction == 0:
            raise InputError("evaluate_on=validation: expected a validation_fraction above 0, got 0")

    def subsample(self, source: Source) -> Source:
        """Returns the source with `images_per_category` training images.

        Raises:
            InputError: no image would be left.
        """
        if self.images_per_category is None:
            return source
        names = list(itertools.chain(*self.tasks))
        return limit_train_images(source, names[self.full_categories :], self.images_per_category)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        plain = {**vars(self), "options": dict(vars(self.options)), "config": self.config.to_dict()}
        return {**plain, "tasks": [list(names) for names in self.tasks]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """Inverse of `to_dict`; other keys are ignored. Runs older than `options` have the default ones.

        Raises:
            InputError: a key is missing, or a setting is not allowed.
        """
        values = {"options": {}, **values}
        try:
            plain = {name: values[name] for name in cls.__dataclass_fields__}
        except KeyError as error:
            raise InputError(f"config.json: expected the key {error}, got none") from error
        tasks_are_lists = isinstance(plain["tasks"], list) and all(isinstance(names, list) for names in plain["tasks"])
        if not tasks_are_lists or not isinstance(plain["config"], dict) or not isinstance(plain["options"], dict):
            raise InputError("config.json: expected tasks as a list of lists, config and options as objects")
        plain["options"] = SourceOptions.from_dict(plain["options"])
        plain["config"] = Config.from_dict(plain["config"])
        plain["tasks"] = tuple(tuple(names) for names in plain["tasks"])
        return cls(**plain)


def read_run_config(workdir: Path) -> RunConfig:
    """Reads the configuration of the run in a directory.

    Raises:
        InputError: there is no run, or its configuration cannot be read.
    """
    return RunConfig.from_dict(read_config_file(workdir))


def read_config_file(workdir: Path) -> dict[str, Any]:
    """Reads all values of `config.json` in a run directory.

    Raises:
        InputError: the file is missing, unreadable, or was changed after it had been written.
    """
    values = read_json(workdir / "config.json")
    verify_digest(workdir / "config.json", values)
    return values

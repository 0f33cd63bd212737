"""What a run does: the data, the tasks, the seed and the settings, as `config.json` records them."""

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
    """What a run does; written to `config.json`.

    Attributes:
        dataset: the source, as `--dataset` names it.
        options: how it is opened.
        validation_fraction: part of each training category that is held out.
        images_per_category: training images of each category after the first `full_categories`; None: all.
        full_categories: how many categories have all their images in any case.
        tasks: the categories of each task.
        seed: all randomness derives from it.
        evaluate_on: `test` or `validation`.
        config: the model's settings.
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
            raise InputError("evaluate_on=validation: a validation_fraction above 0 is expected")

    def subsample(self, source: Source) -> Source:
        """The source with as few training images as the plan says.

        Raises:
            InputError: there would be none.
        """
        if self.images_per_category is None:
            return source
        learned = list(itertools.chain(*self.tasks))
        return limit_train_images(source, learned[self.full_categories :], self.images_per_category)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        plain = {**vars(self), "options": dict(vars(self.options)), "config": self.config.to_dict()}
        return {**plain, "tasks": [list(names) for names in self.tasks]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """Inverse of `to_dict`; keys that do not belong to a run_config are passed over.

        Runs that began before there were `options` have none recorded: they are at their defaults.

        Raises:
            InputError: a key is missing, or a setting is not allowed.
        """
        values = {"options": {}, **values}
        try:
            plain = {name: values[name] for name in cls.__dataclass_fields__}
        except KeyError as error:
            raise InputError(f"config.json lacks {error}") from error
        lists = isinstance(plain["tasks"], list) and all(isinstance(names, list) for names in plain["tasks"])
        if not lists or not isinstance(plain["config"], dict) or not isinstance(plain["options"], dict):
            raise InputError("config.json: tasks, a list of lists of names, config and options, objects, are expected")
        plain["options"] = SourceOptions.from_dict(plain["options"])
        plain["config"] = Config.from_dict(plain["config"])
        plain["tasks"] = tuple(tuple(names) for names in plain["tasks"])
        return cls(**plain)


def read_run_config(workdir: Path) -> RunConfig:
    """The plan of the run in a folder.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    return RunConfig.from_dict(read_config_file(workdir))


def read_config_file(workdir: Path) -> dict[str, Any]:
    """What `config.json` in the folder of a run records.

    Raises:
        InputError: there is none, it cannot be read, or it was changed after it had been written.
    """
    values = read_json(workdir / "config.json")
    verify_digest(workdir / "config.json", values)
    return values

"""What every source of images is turned into: three splits and the facts about them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor
from torch.utils.data import Dataset

Augment = Literal["light", "full"]

Role = Literal["train", "search", "test"]
ROLES: tuple[Role, ...] = ("train", "search", "test")
"""What the splits of a data set are for."""


class Samples(Dataset[tuple[Tensor, int]], ABC):
    """A split: item i is an image, uint8 (3, S, S), and its label.

    Random splits draw from the global generators of `random`, numpy and torch, which
    `train_batches` seeds for each sample.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...

    @property
    def labels(self) -> Sequence[int]:
        """The label of each item; those who know them without drawing images say so."""
        return [self[index][1] for index in range(len(self))]


class Part(Samples):
    """Some items of a split.

    Args:
        samples: The split.
        positions: Of the items in it.
    """

    def __init__(self, samples: Samples, positions: Sequence[int]) -> None:
        self._samples, self._positions = samples, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._samples[self._positions[index]]

    @property
    def labels(self) -> Sequence[int]:
        """Of these items."""
        labels = self._samples.labels
        return [labels[position] for position in self._positions]


@dataclass(frozen=True, kw_only=True)
class Data:
    """Three splits that share no image, and what a user should know about them.

    Attributes:
        name: What the user called it: "digits", a folder's name, ...
        train: What networks are trained on; random where the data wants augmentation.
        search: What architectures are compared on; fixed.
        test: Fixed, and touched by retraining alone.
        class_names: One name per label, in the labels' order.
        mean: Mean per channel of pixels scaled to 0..1.
        std: Standard deviation per channel of pixels scaled to 0..1.
        epoch_size: Samples in one nominal epoch.
        notes: Sentences for the user about the splits: which was cut from which, what was passed
            over, which classes are small.
        crop: Share of the shorter side that the central crop of search and test images keeps.
        root: The folder that the images are files of; None where they are no files.
        plain_train: The images of `train`, fixed as those of the other splits are; None where
            those of `train` are such already, but for what is drawn at random.
    """

    name: str
    train: Samples
    search: Samples
    test: Samples
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    epoch_size: int
    notes: tuple[str, ...]
    crop: float = 1.0
    root: Path | None = None
    plain_train: Samples | None = None

    @property
    def num_classes(self) -> int:
        """How many classes a network has to tell apart."""
        return len(self.class_names)

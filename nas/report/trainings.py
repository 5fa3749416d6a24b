"""What a run's folder tells of its trainings, for the pages to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from nas.report.cards import ClassAccuracy, class_accuracies
from nas.training.alone import Point
from nas.training.curve import CurvePoint
from nas.training.strategies.strategy import Share
from nas.utilities.bounds import Count

if TYPE_CHECKING:
    import pandas as pd

MISTAKES = 10
"""Pictures of mistakes that are kept of a network."""

PICTURE_SIZE = 224
"""Pixels that such a picture has at most; a page shows it smaller."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """An image of the test split that a network takes for something else.

    Attributes:
        image: Its number in the split, from 0.
        truth: Its class.
        predicted: The class that the network takes it for.
        probability: That the network gives to that class, 0 to 1.
        png: The image at the size that the network saw, or `PICTURE_SIZE`, a PNG in base64.
    """

    image: Count
    truth: str
    predicted: str
    probability: Share
    png: Annotated[str, Field(pattern="^[A-Za-z0-9+/=]*$")]


@dataclass(frozen=True, kw_only=True)
class RetrainedNetwork:
    """A network that was trained alone and measured on the test split.

    Attributes:
        name: Its folder within the run's, such as `retrain/1`.
        hash: Of the architecture.
        start: From what weights, as in `nas.training.alone.Recipe`.
        steps: Of its training.
        image_size: Side of the images in pixels.
        lr: The peak learning rate.
        exported: Accuracy on the test split with the weights that it was exported with, 0 to 1.
        retrained: Accuracy there after its training.
        test_images: Size of the test split.
        curve: Of its training.
        class_names: Of the data.
        confusion: How many images of each class (rows) were taken for each class (columns).
        mistakes: The surest ones, the surest first.
    """

    name: str
    hash: str
    start: str
    steps: int
    image_size: int
    lr: float
    exported: float
    retrained: float
    test_images: int
    curve: Sequence[Point] = ()
    class_names: Sequence[str] = ()
    confusion: Sequence[Sequence[int]] = ()
    mistakes: Sequence[Mistake] = ()

    @property
    def classes(self) -> list[ClassAccuracy]:
        """How well the images of each class are told, in the order of the classes."""
        return class_accuracies(self.confusion, self.class_names)


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """All that a run knows of how its networks learned.

    Attributes:
        supernet: The curve of the supernet and of its teacher; empty where another run trained it.
        rungs: Of each architecture of the short list, by hash: its accuracy on the search split
            after so many steps alone.
        retrained: The networks that were retrained, by the names of their folders.
    """

    supernet: Sequence[CurvePoint] = ()
    rungs: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    retrained: Sequence[RetrainedNetwork] = ()


NO_TRAININGS = Trainings()


def retrained_table(trials: pd.DataFrame, retrained: Sequence[RetrainedNetwork]) -> pd.DataFrame:
    """A row for each retrained network that is among the trials.

    The columns are those of its trial, where `inherited` is the accuracy that it had in the search,
    and `folder`, `start`, `steps`, `image_size`, `exported`, `retrained` and `test_images` before
    them.
    """
    import pandas as pd

    evaluated = trials[trials["accuracy"].notna()].drop_duplicates("hash")
    own = pd.DataFrame(
        [
            {
                "folder": network.name,
                "hash": network.hash,
                "start": network.start,
                "steps": network.steps,
                "image_size": network.image_size,
                "exported": network.exported,
                "retrained": network.retrained,
                "test_images": network.test_images,
            }
            for network in retrained
        ],
        columns=[
            *("folder", "hash", "start", "steps", "image_size"),
            *("exported", "retrained", "test_images"),
        ],
    )
    return own.merge(evaluated.rename(columns={"accuracy": "inherited"}), on="hash")

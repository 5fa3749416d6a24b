"""A supernet that one run has trained and other runs search, too: no training, no second copy."""

import hashlib
import math
import os
import random
import shutil
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.limits import Limits
from nas.runs.config import RunConfig
from nas.runs.folder import RunFolder
from nas.runs.job import Clock
from nas.runs.run import Run
from nas.runs.same_data import data_again
from nas.training.settings import SupernetTraining
from nas.utilities.bounds import Amount, Positive
from nas.utilities.errors import InputError
from nas.utilities.files import read_json, replacing, write_text
from nas.utilities.units import format_seconds
from search_space.bounds import Pixels

TRAINED_WITH = ("space", "proxy_size", "init", *SupernetTraining.model_fields)
"""The fields of `RunConfig` beside `data` that say how a supernet was trained."""

_DRAWN = 64
"""Architectures within new limits that are held against those of the training."""


class Origin(BaseModel):
    """Where trained weights come from; it goes with them from run to run.

    Attributes:
        run: The folder of the run that trained them.
        limits: Under which it did, by the names of their objectives: the strategies train subnets
            within the limits alone.
        image_size: Side in pixels at which costs were counted for them.
        seconds: That the training took.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    limits: dict[str, Positive]
    image_size: Pixels
    seconds: Amount

    @classmethod
    def of(cls, folder: RunFolder) -> "Origin":
        """The origin of the weights of a run, its own or not.

        Raises:
            InputError: If a file that says so is damaged.
        """
        if folder.origin.exists():
            return read_json(folder.origin, cls, remedy="put back what the run wrote")
        config = folder.config
        return cls(
            run=str(folder.path.resolve()),
            limits=dict(config.limits),
            image_size=config.image_size,
            seconds=Clock(folder.path / "seconds.json").seconds("supernet_seconds"),
        )

    def told(self, constrained: ConstrainedSpace, steps: int) -> list[str]:
        """What a reader must know of a search with these weights, in sentences.

        Args:
            constrained: The space under the limits of the search.
            steps: Of the training.
        """
        spent = f"{steps:,} steps in {format_seconds(self.seconds)}"
        notes = [f"the supernet was trained by {self.run} ({spent}), and not again"]
        limits = Limits(**self.limits)
        told = ", ".join(o.named_amount(o.limit) for o in limits.objectives if o.limit is not None)
        before = replace(constrained, limits=limits, image_size=self.image_size, tables={})
        rng = random.Random(0)
        drawn = [constrained.largest(), *(constrained.sample(rng) for _ in range(_DRAWN))]
        beyond = sum(not before.admits(architecture) for architecture in drawn) / len(drawn)
        looser = [
            o
            for o in limits.objectives
            if o.device is not None
            and o.limit is not None
            and constrained.limits.get(o.name, math.inf) > o.limit
        ]
        if beyond or looser:
            share = f" ({beyond:.0%} of a random sample do)" if beyond else ""
            notes.append(
                f"architectures within the limits may lie outside those that the supernet was "
                f"trained for, {told} at {self.image_size} px{share}; what these inherit was never "
                "trained on its own, so rely on what the short list says of them"
            )
        return notes


@dataclass(frozen=True, kw_only=True)
class TrainedSupernet:
    """The weights of a run that came to the end of its training, for another run.

    Attributes:
        folder: Of the run.
        config: Its configuration.
        digest: Of the weights.
        origin: Where they come from.
    """

    folder: RunFolder
    config: RunConfig
    digest: str
    origin: Origin

    @classmethod
    def of(cls, run: Run | str | Path) -> "TrainedSupernet":
        """The trained supernet of a run.

        Raises:
            InputError: If there is no run, its training is not over, or a file of it is damaged.
        """
        try:
            folder = run.folder if isinstance(run, Run) else RunFolder.existing(run)
        except InputError as error:
            raise InputError(
                f"`supernet` {error}; a run that has its weights already goes on with its own "
                "folder in this place"
            ) from None
        if not folder.checkpoint.exists():
            raise InputError(
                f"`supernet` {folder.path}: not trained to the end yet; run its command again"
            )
        return cls(
            folder=folder,
            config=folder.config,
            digest=weights_digest(folder.checkpoint),
            origin=Origin.of(folder),
        )

    def asked(self, given: dict[str, Any]) -> dict[str, Any]:
        """What is asked of a run with these weights: what is given, and the rest as it was.

        Args:
            given: Arguments of `nas.runs.configure.configure`.

        Raises:
            InputError: If the data are other than those of the training, or cannot be found.
        """
        fields = ["space", "image_size", "proxy_size", "batch_size", "lr", "seed", "strategy"]
        if "epochs" not in given:
            fields.append("steps")
        if "teacher" in given:
            fields.append("token_labels")
        known = {field: getattr(self.config, field) for field in fields}
        if self.config.init:  # as in a run that begins with pretrained weights itself
            known["finalists"] = 0
        return known | given | {"data": data_again(self.config, given.get("data"))}

    def configured(self, config: RunConfig, given: Collection[str]) -> RunConfig:
        """The configuration of a run with these weights, which says how they were trained.

        Args:
            config: Of a run that would train them.
            given: The arguments of it that the user gave.

        Raises:
            InputError: If one of these contradicts how they were trained; it is named.
        """
        for name in given:
            field = "steps" if name == "epochs" else name
            if field in TRAINED_WITH and getattr(config, field) != getattr(self.config, field):
                raise InputError(
                    f"`{name}` contradicts `supernet` {self.folder.path}, which was trained with "
                    f"{_shown(self.config, field)}, not {_shown(config, field)}; leave it out"
                )
        if config.teacher != self.config.teacher:
            raise InputError(
                f"`teacher`: {self.config.teacher} taught `supernet` {self.folder.path}; give it "
                "again, since it teaches the short list, too"
            )
        trained = {field: getattr(self.config, field) for field in TRAINED_WITH}
        return config.model_copy(update={**trained, "supernet": self.digest})

    def lend(self, folder: RunFolder) -> None:
        """Let a run have the weights, as a link where the disk has such, else as a copy.

        Raises:
            InputError: If the run began with other weights, or these have changed meanwhile.
        """
        checkpoint = folder.checkpoint
        if not checkpoint.exists():
            checkpoint.parent.mkdir(exist_ok=True)
            write_text(folder.origin, self.origin.model_dump_json(indent=2) + "\n")
            try:
                os.link(self.folder.checkpoint, checkpoint)
            except OSError:  # another disk, or one without links
                with replacing(checkpoint) as temporary:
                    shutil.copyfile(self.folder.checkpoint, temporary)
        if weights_digest(checkpoint) != self.digest:
            raise InputError(
                f"{checkpoint}: not the weights of `supernet` {self.folder.path}; delete it, and "
                "they are taken from there again"
            )


def weights_digest(checkpoint: Path) -> str:
    """Sixteen hex digits of a checkpoint: of its weights, and of how they were trained."""
    with checkpoint.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _shown(config: RunConfig, field: str) -> object:
    value = getattr(config, field)
    return getattr(value, "name", value)

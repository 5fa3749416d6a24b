"""The tryout: the short list trained alone, by successive halving, before anything is chosen.

Each candidate begins with the weights that it inherits. The first of them are then trained from
fresh weights, too, in a final of a single rung. What a rung gives, weights and accuracy, is
one file of the candidate's own, so that a process may be killed at any moment; within a rung its
training has a state of its own, too. `climb_here` has candidates climb a rung in this process, one
after the other; `nas.search.ray_tryout` has Ray Tune do it, several at a time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from nas.data import Data
from nas.search.settings import TryoutSettings
from nas.search.standing import standings
from nas.search.trials import Tried
from nas.training.accuracy import fit
from nas.training.alone import SCRATCH, SUPERNET, Recipe, train_alone
from nas.training.checkpoint import (
    Checkpoint,
    check_fits,
    load_checkpoint,
    load_identity,
    save_checkpoint,
    unusable,
)
from nas.training.given_teacher import GivenTeacher, named
from nas.training.strategies.strategy import Share
from nas.utilities.bounds import Amount
from nas.utilities.errors import Diverged
from nas.utilities.interrupt import StopRequest
from nas.utilities.seeding import preserved_global_generators
from search_space import Architecture
from search_space.architecture import first_error
from supernet import Network, Store
from supernet.network import skeleton

logger = logging.getLogger(__name__)

_Steps = Annotated[str, Field(pattern="^[0-9]{1,9}$")]
_FITS = TypeAdapter(dict[_Steps, tuple[Share, Amount]])
"""What a candidate's file tells of its rungs: accuracy and loss, by the steps that it had."""

OnStep = Callable[[int], None]
"""Called after training steps, with how many they were."""

OnTried = Callable[[Architecture, Tried], None]
"""Called when a candidate has come to the end of a rung, or has failed."""

Climb = Callable[[Sequence[Architecture], int, OnTried], None]
"""Has candidates climb a rung, each from the end of the one before."""


@dataclass(frozen=True)
class FreshWeights:
    """Stands in the place of a supernet from which nothing is inherited.

    Attributes:
        num_classes: Outputs of a classifier.
        seed: Of the weights.
    """

    num_classes: int
    seed: int

    def extract(self, architecture: Architecture) -> Network:
        """A network with weights of its own."""
        with preserved_global_generators():
            torch.manual_seed(self.seed)
            return Network(architecture, num_classes=self.num_classes)


@dataclass(frozen=True, kw_only=True)
class Tryout:
    """All that a process needs to train candidates.

    Attributes:
        folder: Where what rungs give is kept.
        settings: How long the rungs are, and how they train.
        start: From what weights, as in a `Recipe`.
        data: To train on.
        images: Of the search split, uint8 (N, 3, S, S).
        labels: Likewise, int64 (N,).
        image_size: Side in pixels of training.
        batch_size: Images in a training step.
        seed: Of the run.
        device: Where to train.
        teacher: Which the user gave, if there is one.
        loader_workers: Processes that load images.
    """

    folder: Path
    settings: TryoutSettings
    start: str = SUPERNET
    data: Data
    images: Tensor
    labels: Tensor
    image_size: int
    batch_size: int
    seed: int
    device: str
    teacher: GivenTeacher | None = None
    loader_workers: int = 0

    @property
    def final(self) -> Tryout:
        """What the final works with: the same, but from fresh weights, in a folder of its own."""
        folder = self.folder / "scratch"
        return replace(self, folder=folder, settings=self.settings.final, start=SCRATCH)

    def enter(self, architecture: Architecture, weights: Store | FreshWeights) -> None:
        """Let a candidate begin with the weights that it is given, unless it has begun."""
        path = self._path(architecture)
        if not self.has_begun(architecture):
            given = weights.extract(architecture).cpu().state_dict()
            save_checkpoint(path, step=0, identity={"fits": {}}, tensors=given)

    def has_begun(self, architecture: Architecture) -> bool:
        """Whether a candidate has entered, in whatever process."""
        return self._path(architecture).exists()

    def last_saved(self, architecture: Architecture) -> int:
        """When a file of a candidate was last written, in nanoseconds of its disk's clock.

        While it is trained that is at least every `CHECKPOINT_SECONDS`, or every step if steps take
        longer; while it is measured, after every batch.
        """
        files = self.folder.glob(f"*{architecture.hash}*")
        with suppress(FileNotFoundError):  # a state is removed at the end of its rung
            return max((file.stat().st_mtime_ns for file in files), default=0)
        return 0

    def climb(
        self, architecture: Architecture, rung: int, *, stop: StopRequest, on_step: OnStep
    ) -> Tried:
        """Train a candidate that has come through the rung before, unless that was done.

        Raises:
            Interrupted: If a stop was requested; the state was saved.
            InputError: If a file of the tryout is damaged.
        """
        done = self.done(architecture, rung)
        if done is not None:
            return done
        path, steps = self._path(architecture), self.settings.milestones[rung]
        known, state = self._known(architecture), self._state(architecture, rung)
        before = self.settings.milestones[rung - 1] if rung else 0
        if before and str(before) not in known.identity["fits"]:
            raise unusable(path, f"it lacks the rung of {before} steps")
        network = Network(
            architecture,
            num_classes=self.data.num_classes,
            drop_path_rate=self.settings.drop_path,
        )
        network.load_state_dict(known.tensors)
        alive = path.with_name(f".{path.stem}.alive")
        try:
            train_alone(
                network.to(self.device),
                data=self.data,
                recipe=self._recipe(rung),
                state=state,
                stop=stop,
                on_progress=lambda point: on_step(1),
                teacher=self.teacher,
                loader_workers=self.loader_workers,
            )
            found = fit(
                network,
                self.images,
                self.labels,
                mean=self.data.mean,
                std=self.data.std,
                on_batch=alive.touch,
            )
        except Diverged as error:
            logger.warning("training %s alone failed: %s", architecture.hash, error)
            state.unlink(missing_ok=True)
            return Tried(steps=known.step, error=str(error))
        finally:
            alive.unlink(missing_ok=True)
        save_checkpoint(
            path,
            step=steps,
            identity={"fits": {**known.identity["fits"], str(steps): found}},
            tensors=network.cpu().state_dict(),
        )
        state.unlink(missing_ok=True)
        return Tried(steps=steps, accuracy=found.accuracy, loss=found.loss, images=len(self.labels))

    def done(self, architecture: Architecture, rung: int) -> Tried | None:
        """What a candidate had at the end of a rung, if it came there, in whatever process.

        What a process that was killed there has left of the training is removed.

        Raises:
            InputError: If its file is damaged.
        """
        known, steps = self._known(architecture), self.settings.milestones[rung]
        if str(steps) not in known.identity["fits"]:
            return None
        self._state(architecture, rung).unlink(missing_ok=True)
        return self._tried(known, steps)

    def tidy(self) -> None:
        """Remove what trainings have left that will not go on."""
        for pattern in (".*.state.safetensors", ".*.alive"):
            for file in self.folder.glob(pattern):
                file.unlink(missing_ok=True)

    def reached(self, architecture: Architecture) -> Tried:
        """The last rung that a candidate came to the end of, in whatever process: its weights'.

        Raises:
            InputError: If its file is damaged.
        """
        known = self._known(architecture)
        return self._tried(known, known.step)

    def weights(self, architecture: Architecture) -> Mapping[str, Tensor]:
        """What a candidate has learned so far.

        Raises:
            InputError: If its file is damaged.
        """
        return self._known(architecture).tensors

    def _known(self, architecture: Architecture) -> Checkpoint:
        """What a candidate's file holds: its weights, and its fit after each rung.

        Raises:
            InputError: If it is damaged.
        """
        path = self._path(architecture)
        known = load_checkpoint(path)
        network = skeleton(architecture, num_classes=self.data.num_classes)
        check_fits(path, known, network.state_dict())
        if known.step and str(known.step) not in _fits(path, known.identity):
            raise unusable(path, f"it lacks the accuracy after {known.step} steps")
        return known

    def _tried(self, known: Checkpoint, steps: int) -> Tried:
        """What a candidate's file tells of one of its rungs; of none, where it has only entered."""
        if str(steps) not in known.identity["fits"]:
            return Tried(steps=steps)
        accuracy, loss = known.identity["fits"][str(steps)]
        return Tried(steps=steps, accuracy=accuracy, loss=loss, images=len(self.labels))

    def _path(self, architecture: Architecture) -> Path:
        return self.folder / f"{architecture.hash}.safetensors"

    def _state(self, architecture: Architecture, rung: int) -> Path:
        """Where the training of a rung keeps its state: that of another rung is of no use to it."""
        steps = self.settings.milestones[rung]
        return self.folder / f".{architecture.hash}.{steps}.state.safetensors"

    def _recipe(self, rung: int) -> Recipe:
        milestones = (0, *self.settings.milestones)
        return Recipe(
            start=self.start,
            steps=milestones[rung + 1] - milestones[rung],
            batch_size=self.batch_size,
            lr=self.settings.lr,
            drop_path=self.settings.drop_path,
            augment="light",
            image_size=self.image_size,
            seed=(self.seed + rung + 1) % (1 << 32),  # each rung sees images of its own
            device=self.device,
            **named(self.teacher),
        )


def halve(
    candidates: Sequence[Architecture],
    *,
    settings: TryoutSettings,
    climb: Climb,
    on_tried: OnTried,
) -> None:
    """Successive halving: all climb a rung, those that stand first the next.

    Who goes on is decided when all have come to the end of a rung, so it does not depend on how
    many are trained at a time.

    Args:
        candidates: That have entered; of equals the earlier goes on.
        settings: How many rungs there are, and how many go on.
        climb: `climb_here`, or Ray's.
        on_tried: See `OnTried`.

    Raises:
        Interrupted: If a stop was requested; the same call goes on.
    """
    climbing = list(candidates)
    for rung in range(settings.rungs):
        reached: dict[str, Tried] = {}

        def keep(
            candidate: Architecture, tried: Tried, reached: dict[str, Tried] = reached
        ) -> None:
            on_tried(candidate, tried)
            if not tried.error:
                reached[candidate.hash] = tried

        climb(climbing, rung, keep)
        climbing = [candidate for candidate in climbing if candidate.hash in reached]
        places = standings([reached[candidate.hash] for candidate in climbing])
        going_on = math.ceil(len(climbing) / settings.reduction)
        climbing = [c for c, place in zip(climbing, places, strict=True) if place <= going_on]


def climb_here(
    candidates: Sequence[Architecture],
    rung: int,
    on_tried: OnTried,
    *,
    tryout: Tryout,
    stop: StopRequest,
    on_step: OnStep,
) -> None:
    """Have candidates climb a rung in this process, one after the other.

    Args:
        candidates: See `Climb`.
        rung: Its number, from 0.
        on_tried: See `OnTried`.
        tryout: Which the candidates have entered.
        stop: Looked at after every step.
        on_step: See `OnStep`.

    Raises:
        Interrupted: If a stop was requested; the same call goes on.
    """
    for candidate in candidates:
        on_tried(candidate, tryout.climb(candidate, rung, stop=stop, on_step=on_step))


def accuracies_by_rung(folder: Path) -> dict[str, dict[int, float]]:
    """What the files of a tryout tell: by hash, the accuracies after so many steps alone.

    Raises:
        InputError: If one is damaged.
    """
    rungs = {}
    for path in sorted(folder.glob("[!.]*.safetensors")):
        fits = _fits(path, load_identity(path))
        rungs[path.stem] = {int(steps): accuracy for steps, (accuracy, _) in fits.items()}
    return rungs


def _fits(path: Path, identity: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """What the identity in a candidate's file tells of its rungs.

    Raises:
        InputError: If it is damaged.
    """
    try:
        return _FITS.validate_python(identity.get("fits"))
    except ValidationError as error:
        raise unusable(path, first_error(error)) from None


def finalists(reached: Mapping[str, Tried], count: int) -> list[str]:
    """Who comes to the final: so many that stand first, if there is more than one.

    Args:
        reached: What each candidate that did not fail has reached, by its hash.
        count: How many are wanted.
    """
    places = standings(list(reached.values()))
    first = [name for name, place in zip(reached, places, strict=True) if place <= count]
    return first if len(first) > 1 else []


def planned_steps(settings: TryoutSettings, candidates: int, *, workers: int = 1) -> int:
    """Training steps of a tryout of so many candidates in which none fails.

    Where several workers share each rung, it is those of the one that has the most.
    """
    steps, before = 0, 0
    for milestone in settings.milestones:
        steps += math.ceil(candidates / workers) * (milestone - before)
        candidates, before = math.ceil(candidates / settings.reduction), milestone
    return steps

"""What was asked of a run and how it was measured, and the words for it.

Every page, table and card takes its numbers' wording from here, so that they agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt, TypeAdapter

from nas.latency.table import TimedNetwork
from nas.objectives.limits import Limits
from nas.objectives.objective import ACCURACY, LatencyColumns, Objective
from nas.search.front import evaluated, judged
from nas.search.trials import STATES
from nas.utilities.bounds import Amount, Count, Number, Positive, PositiveCount
from nas.utilities.errors import InputError
from nas.utilities.files import read_json, write_text
from nas.utilities.units import format_accuracy
from search_space.bounds import Pixels

if TYPE_CHECKING:
    import pandas as pd

NOTABLE_SLOWDOWN = 0.05
"""How far a device's slowdown lies from its latency table's where people are told."""

ENOUGH_TO_RANK = 5
"""The fewest finalists of which is told how well the supernet had ranked them."""


@dataclass(frozen=True, kw_only=True)
class LatencySummary:
    """How the latency of a device was predicted and measured.

    `conditions` and `error` are for people; `measured` says whether the device is here, so that
    what came to the short list, or without one to the front, was measured; `networks` are the
    held-out networks of the table.
    """

    conditions: str
    error: str
    measured: bool
    networks: Sequence[TimedNetwork] = ()


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What was asked of a run and how it was measured.

    `limits` holds every limit by the name of its objective, `reachable` the least and the most of
    each closed form in the space. `trials` is how many evaluations were asked for; a run that did
    not tell has 0. `short_list` is how many architectures were tried by training them alone,
    `finalists` how many of these were trained from fresh weights, too.
    `supernet_run` is the folder of the run that trained the supernet, where it is another.
    `search_images` is the number of images of the search split that are looked at, `largest_class`
    the share of these that the largest class has (0 where a run of an earlier version has not
    told), `latency` says of each device with
    a limit how its latency was found, `notes` what else a reader must know, one sentence each.
    """

    command: str
    data: str
    num_classes: PositiveCount
    search_images: PositiveCount
    largest_class: Amount = 0.0
    space: str
    space_size: PositiveInt
    limits: Mapping[str, Positive]
    reachable: Mapping[str, tuple[Number, Positive]]
    image_size: Pixels
    proxy_size: Pixels
    sampler: str
    seed: Count
    device: str
    supernet_steps: Count
    supernet_seconds: Amount
    supernet_run: str = ""
    trials: Count = 0
    search_seconds: Amount
    short_list: Count = 0
    finalists: Count = 0
    tryout_seconds: Amount = 0.0
    latency: Mapping[str, LatencySummary] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path) -> RunSummary:
        """Read a summary from its file.

        Raises:
            InputError: If it cannot be read or is no whole summary, or has an objective that is not
                known here, since it was added by another program.
        """
        remedy = "run the search's command again"
        summary = read_json(path, cls, remedy=remedy)
        for objective in summary.costs:
            known = summary.reachable if objective.device is None else summary.latency
            if (objective.device or objective.name) not in known:
                raise InputError(f"{path}: says nothing of {objective.name}; {remedy}")
        return summary

    def save(self, path: Path) -> None:
        """Write the summary to a file."""
        write_text(path, TypeAdapter(RunSummary).dump_json(self, indent=2).decode() + "\n")

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """What the run traded off, limited and told; see `Limits.objectives`.

        Raises:
            InputError: If one of them is not known here, since it was added by another program.
        """
        return Limits(**self.limits).objectives

    @property
    def costs(self) -> tuple[Objective, ...]:
        """All objectives but accuracy."""
        return tuple(o for o in self.objectives if o.name != ACCURACY.name)

    @property
    def searched_costs(self) -> tuple[Objective, ...]:
        """Those that accuracy is traded off against."""
        return tuple(objective for objective in self.costs if objective.searched)

    @property
    def chance(self) -> float:
        """Accuracy of who does not look at the images, as a share."""
        return chance(self.num_classes, self.largest_class, self.search_images)

    @property
    def budget_text(self) -> str:
        """The limits in one line, as in `2 GMACs, 64 MB of memory, 15 ms on cpu`."""
        limits = [o.named_amount(o.limit) for o in self.costs if o.limit is not None]
        return ", ".join(limits) or "no limit"

    @property
    def cost_text(self) -> str:
        """How the costs were counted or measured, in one line."""
        return "; ".join(f"{objective.label}: {self._how(objective)}" for objective in self.costs)

    def counted(self, objective: Objective) -> str:
        """What exactly a closed form counts, at the run's sizes."""
        return objective.defined(image_size=self.image_size, num_classes=self.num_classes)

    def _how(self, objective: Objective) -> str:
        if objective.device is None:
            return self.counted(objective)
        if not self.latency[objective.device].measured:
            return "predicted"
        return (
            "median of repeats on the short list (without one, on the front), at the speed of the "
            "latency table "
            "(slowdown: the device's time for a reference network then, over the table's), "
            "else predicted"
        )

    @property
    def accuracy_text(self) -> str:
        """How the accuracy was measured, in one line."""
        images = (
            f"accuracy on the search split ({self.search_images:,} images at {self.proxy_size} px; "
            f"{self.chance_text})"
        )
        if not self.short_list:
            return f"{images}, weights inherited from the supernet, not retrained"
        told = (
            f"{images}: inherited with the supernet's weights; alone after so many steps of "
            "training by itself, from those weights, which the short list had"
        )
        if self.finalists:
            told += (
                "; scratch after a short training from fresh weights, which those had that "
                "stood first then: they are ranked by it"
            )
        return told

    @property
    def chance_text(self) -> str:
        """What that is, in a phrase."""
        return chance_text(self.num_classes, self.largest_class, self.search_images)

    @property
    def accuracy_labels(self) -> tuple[str, ...]:
        """What there is to be known of a trial's accuracy.

        What was inherited and, with a short list, what training alone gave in how many steps; with
        a final also what a training from fresh weights gave.
        """
        if not self.short_list:
            return ("accuracy",)
        final = ("scratch",) if self.finalists else ()
        return (*final, "alone", "steps alone", "inherited")

    def accuracies(self, row: pd.Series | Mapping[str, Any]) -> dict[str, str]:
        """What is known of a trial's accuracy, by the labels `accuracy_labels`.

        `accuracy` of the row is the inherited one.
        """
        inherited = self.accuracy_with_error(row["accuracy"])
        if not self.short_list:
            return {"accuracy": inherited}
        alone, steps = "not tried", ""
        if not math.isnan(row["tried"]):
            alone, steps = self.accuracy_with_error(row["tried"]), f"{int(row['tried_steps']):,}"
        known = {"alone": alone, "steps alone": steps, "inherited": inherited}
        if not self.finalists:
            return known
        missing = math.isnan(row["scratch"])
        scratch = "" if missing else self.accuracy_with_error(row["scratch"])
        return {"scratch": scratch, **known}

    def ranking_text(self, trials: pd.DataFrame) -> str:
        """How well the supernet had ranked those of the final; empty if they were too few to tell.

        By the loss with inherited weights, which listed them, and by the accuracy of training from
        fresh weights. Both are noisy, and the list had been chosen by the former: of the whole
        space the supernet tells more.
        """
        final = judged(trials).dropna(subset=["scratch", "loss"])
        count = len(final)
        if count < ENOUGH_TO_RANK:
            return ""
        tau = (-final["loss"]).corr(final["scratch"], method="kendall")
        if math.isnan(tau):  # all equal
            return ""
        chance = math.sqrt(2 * (2 * count + 5) / (9 * count * (count - 1)))
        return (
            f"how well the supernet had ranked the {count} finalists: Kendall's tau-b {tau:.2f} "
            "between the inherited loss, which listed them, and training from fresh weights "
            f"(1: the same order; chance: 0 ± {chance:.2f})"
        )

    def warning(self, trials: pd.DataFrame) -> str:
        """What a reader must know before all else: that nothing was learned. Empty if not so."""
        what_to_raise = (
            f"Train longer (--steps, now {self.supernet_steps:,}) or on larger images "
            f"(--proxy-size, now {self.proxy_size})."
        )
        if self.supernet_run:
            what_to_raise = (
                f"The supernet is that of {self.supernet_run}: train another, for longer than its "
                f"{self.supernet_steps:,} steps or on larger images than of {self.proxy_size} px."
            )
        largest = self.chance == self.largest_class
        guessing = "always naming the largest class" if largest else "guessing"
        chosen, inherited = judged(trials)["accuracy"], evaluated(trials)["accuracy"]
        if self._is_noise(chosen):
            return (
                f"The accuracies are within noise of chance: the best has {percent(chosen.max())}, "
                f"{guessing} gives {percent(self.chance)}. Nothing here says which architecture is "
                f"good. {what_to_raise}"
            )
        if self._is_noise(inherited):
            return (
                "The inherited accuracies are within noise of chance: the best has "
                f"{percent(inherited.max())}, {guessing} gives {percent(self.chance)}. So the "
                "short list may have been drawn nearly at random, and training alone only told "
                f"which of it is best. {what_to_raise}"
            )
        return ""

    def _is_noise(self, accuracies: pd.Series) -> bool:
        """Whether guessing would explain the best of them; not so of none."""
        if accuracies.empty:
            return False
        return float(accuracies.max()) <= _by_luck(
            self.chance, self.search_images, tries=len(accuracies)
        )

    def accuracy_with_error(self, accuracy: float) -> str:
        """An accuracy with the error that comes of the number of images."""
        return format_accuracy(accuracy, self.search_images)


def chance(num_classes: int, largest_class: float, images: int) -> float:
    """Accuracy, 0 to 1, of who does not look at the images.

    That of guessing or, where classes are unbalanced, of always naming the largest one.

    Args:
        num_classes: Of the data.
        largest_class: Share of the images that the largest class has.
        images: How many they are: of few a class has many by luck.
    """
    even = 1 / num_classes
    return largest_class if largest_class > _by_luck(even, images, tries=num_classes) else even


def _by_luck(share: float, images: int, *, tries: int) -> float:
    """The most that the best of some tries has by luck, where each has a share on average.

    The best of n is better than the average by about √(2 ln n) standard errors.
    """
    error = math.sqrt(share * (1 - share) / images)
    return share + (2 + math.sqrt(2 * math.log(tries))) * error


def chance_text(num_classes: int, largest_class: float, images: int) -> str:
    """What `chance` is, in a phrase."""
    share = chance(num_classes, largest_class, images)
    named = "always naming the largest class gives" if share == largest_class else "chance"
    return f"{named} {percent(share)}"


def percent(share: float) -> str:
    """A share (0 to 1) as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def value_text(row: pd.Series | Mapping[str, Any], objective: Objective) -> str:
    """What a trial costs, below the objective's label at the head of a table."""
    if objective.device is not None:
        return latency_text(row, LatencyColumns(objective.device))
    return objective.cell(row[objective.name])


def latency_text(row: pd.Series | Mapping[str, Any], columns: LatencyColumns) -> str:
    """The latency of a trial on a device: predicted, and measured with its interquartile range."""
    predicted, measured = row[columns.predicted], row[columns.measured]
    if math.isnan(measured):
        return f"{predicted:.2f} ms predicted"
    return f"{measured:.2f} ms ({spread_text(row, columns)}), {predicted:.2f} predicted"


def spread_text(row: pd.Series | Mapping[str, Any], columns: LatencyColumns) -> str:
    """How far a measured latency may be relied on, as in `IQR 0.25, unstable, slowdown 1.30`."""
    unstable = ", unstable" if row[columns.unstable] else ""
    slowdown = row[columns.slowdown]
    drifted = f", slowdown {slowdown:.2f}" if abs(slowdown - 1) > NOTABLE_SLOWDOWN else ""
    return f"IQR {row[columns.iqr]:.2f}{unstable}{drifted}"


def count_text(trials: pd.DataFrame) -> str:
    """How many trials ended how, in one line; duplicates and failures have no feasible share."""
    counts = trials["state"].value_counts()
    n = {state: int(counts.get(state, 0)) for state in STATES}
    tried = n["evaluated"] + n["infeasible"]
    share = f", feasible share {n['evaluated'] / tried:.0%}" if tried else ""
    return (
        f"{len(trials)} decided ({n['evaluated']} evaluated, {n['infeasible']} over a limit, "
        f"{n['duplicate']} duplicate, {n['failed']} failed){share}"
    )

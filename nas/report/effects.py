"""Which choices matter in a run, as what people read of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.search.effects import Estimate, GeneEffect, alone_effects, clear, inherited_effects
from nas.search.front import evaluated
from search_space import Architecture, SearchSpace
from search_space.encoding import Value

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class RunEffects:
    """What the choices of a run's space give at equal cost.

    Attributes:
        evaluated: Architectures that were evaluated within the limits.
        tried: Of these, how many were trained alone.
        inherited: Effects on inherited accuracy, that of the largest lead first; empty where too
            few were evaluated.
        alone: Effects on accuracy after training alone, likewise.
    """

    evaluated: int
    tried: int
    inherited: list[GeneEffect]
    alone: list[GeneEffect]

    @classmethod
    def of(
        cls, trials: pd.DataFrame, architectures: Mapping[str, Architecture], space: SearchSpace
    ) -> RunEffects:
        """The effects in a run.

        Args:
            trials: All that were decided.
            architectures: By hash.
            space: That was searched.
        """
        rows = evaluated(trials)
        return cls(
            evaluated=len(rows),
            tried=int(rows["tried"].notna().sum()),
            inherited=inherited_effects(trials, architectures, space),
            alone=alone_effects(trials, architectures, space),
        )

    @property
    def clear(self) -> list[GeneEffect]:
        """The genes whose lead in inherited accuracy is no matter of chance."""
        return clear(self.inherited)

    def table(self) -> pd.DataFrame:
        """A row for each choice: what it gives in points, and the ends of the interval of 95 %.

        Points are over the mean of the known choices of the gene, and empty where the choice is
        unknown. The column `accuracy` says of which accuracy they are, `inherited` or `alone`.
        """
        import pandas as pd

        rows = []
        for accuracy, effects in (("inherited", self.inherited), ("alone", self.alone)):
            for effect in effects:
                for each in effect.choices:
                    low, high = each.gain.interval if each.gain else (None, None)
                    rows.append(
                        {
                            "accuracy": accuracy,
                            "gene": effect.gene,
                            "choice": choice_text(each.choice),
                            "architectures": each.architectures,
                            "points": _points(each.gain.mean if each.gain else None),
                            "low": _points(low),
                            "high": _points(high),
                        }
                    )
        return pd.DataFrame(rows)


def gene_text(gene: str) -> str:
    """A gene's name for people: `stage 2, pooling`."""
    stage, _, name = gene.rpartition(".")
    return f"stage {stage.removeprefix('stage')}, {name}" if stage else name


def choice_text(choice: Value) -> str:
    """A choice for people: `max_pool`, `0.5`, `4`."""
    return f"{choice:g}" if isinstance(choice, float) else str(choice)


def gain_text(gain: Estimate | None) -> str:
    """What a choice gives in points with its interval: `+2.2 (0.4 to 4.0)`."""
    if gain is None:
        return "unknown"
    return f"{100 * gain.mean:+z.1f} ({interval_text(gain)})"


def interval_text(estimate: Estimate) -> str:
    """The interval of 95 %, in points."""
    low, high = estimate.interval
    return f"{100 * low:z.1f} to {100 * high:z.1f}"


def _points(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 3)

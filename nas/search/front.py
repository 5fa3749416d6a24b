"""Which trials matter: the best one, the Pareto front, and the hypervolume that it covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray


def evaluated(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that have an accuracy, in their order, each architecture once.

    What was evaluated is within every limit: a trial over a limit has the state infeasible.
    """
    rows = trials[trials["state"] == "evaluated"]
    return rows.sort_values("number").drop_duplicates("hash")


def best(trials: pd.DataFrame) -> pd.Series:
    """The evaluated trial of highest accuracy; of equally accurate ones, that of fewest MACs.

    Raises:
        ValueError: No trial was evaluated.
    """
    rows = evaluated(trials)
    if rows.empty:
        raise ValueError("no trial was evaluated, so none is the best")
    order = ["accuracy", "macs", "number"]
    return rows.sort_values(order, ascending=[False, True, True]).iloc[0]


def anchors(trials: pd.DataFrame) -> list[tuple[str, pd.Series]]:
    """The best trial and, for comparison, the smallest and the largest evaluated, by MACs.

    A trial that is more than one of them comes once, under its names together, as in
    `best, largest`. Empty where no trial was evaluated.
    """
    rows = evaluated(trials)
    if rows.empty:
        return []
    by_macs = rows.sort_values(["macs", "number"])
    named = {"best": best(trials), "smallest": by_macs.iloc[0], "largest": by_macs.iloc[-1]}
    merged: dict[str, tuple[str, pd.Series]] = {}
    for name, row in named.items():
        before, _ = merged.get(row["hash"], ("", row))
        merged[row["hash"]] = (f"{before}, {name}" if before else name, row)
    return list(merged.values())


def pareto_front(trials: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """The evaluated trials that no other one beats, sorted by MACs.

    `accuracy` is maximised, every other objective minimised. Of trials that are equal in all
    objectives the first stays. A trial that lacks an objective is not on the front.
    """
    names = list(objectives)
    rows = evaluated(trials).dropna(subset=names).drop_duplicates(names)
    kept = rows[_non_dominated(_losses(rows, names))]
    return kept.sort_values(["macs", "number"]).reset_index(drop=True)


def ranked_front(trials: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """The Pareto front, the most accurate first; the index is the rank, from 1.

    Of equally accurate trials the one of fewest MACs comes first, so that rank 1 is `best`.
    """
    front = pareto_front(trials, objectives)
    front = front.sort_values(["accuracy", "macs"], ascending=[False, True], ignore_index=True)
    front.index = front.index + 1
    return front


def hypervolume(points: ArrayLike, reference: Sequence[float]) -> float:
    """Exact volume that `points` dominate, bounded by `reference`.

    The first coordinate is maximised (accuracy as a share), the others are minimised (costs as
    shares of their limits), so with the reference (0, 1, ...) the value lies between 0 and 1. A
    point that does not improve on the reference in every coordinate adds nothing.

    This is our own sweep over the last coordinate: Optuna 5 computes hypervolumes too, but only in
    a private module.

    Args:
        points: Shape (points, objectives), two objectives or more; may be empty.
        reference: The worst value of each objective.
    """
    corner = np.asarray(reference, dtype=float)
    sign = np.array([1.0] + [-1.0] * (len(corner) - 1))
    gains = (np.asarray(points, dtype=float).reshape(-1, len(corner)) - corner) * sign
    return _boxes_union(gains[(gains > 0).all(axis=1)])


def hypervolume_trace(trials: pd.DataFrame, full_costs: Mapping[str, float]) -> list[float]:
    """The hypervolume after each evaluation, in the order of the trials.

    Args:
        trials: With an accuracy and these costs.
        full_costs: What each cost counts as a share of: its limit, or its largest value.
    """
    rows = evaluated(trials)
    objectives = ["accuracy", *full_costs]
    points = rows[objectives].to_numpy(dtype=float) / np.array([1.0, *full_costs.values()])
    reference = [0.0] + [1.0] * len(full_costs)
    losses = _losses(rows, objectives)
    trace: list[float] = []
    front: list[int] = []
    for i in range(len(rows)):
        if front and (losses[front] <= losses[i]).all(axis=1).any():
            trace.append(trace[-1])
            continue
        front = [j for j in front if not (losses[i] <= losses[j]).all()] + [i]
        trace.append(hypervolume(points[front], reference))
    return trace


def _losses(rows: pd.DataFrame, objectives: Sequence[str]) -> NDArray[np.float64]:
    """The objectives as numbers to minimise: shape (rows, objectives)."""
    signs = np.array([-1.0 if name == "accuracy" else 1.0 for name in objectives])
    losses: NDArray[np.float64] = rows[list(objectives)].to_numpy(dtype=float) * signs
    return losses


def _non_dominated(losses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows, all distinct, no other row equals or beats in every column."""
    # Each row is no worse than itself, so a second one that is no worse dominates it.
    return np.array([(losses <= row).all(axis=1).sum() == 1 for row in losses], dtype=bool)


def _boxes_union(gains: NDArray[np.float64]) -> float:
    """Volume of the union of the boxes that span from the origin to each row, all positive."""
    if not len(gains):
        return 0.0
    gains = gains[np.argsort(-gains[:, -1])]
    thickness = gains[:, -1] - np.append(gains[1:, -1], 0.0)
    if gains.shape[1] == 2:
        return float(np.maximum.accumulate(gains[:, 0]) @ thickness)
    slabs = (i for i in range(len(gains)) if thickness[i] > 0)
    return float(sum(thickness[i] * _boxes_union(gains[: i + 1, :-1]) for i in slabs))

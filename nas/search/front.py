"""Which trials matter: the best one, the Pareto front, and the hypervolume that it covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.objectives.objective import ACCURACY, Objective
from nas.search.standing import standings
from nas.search.trials import SCRATCH_COLUMNS, TRIED_COLUMNS, Tried

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray


def evaluated(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that have an accuracy, in their order, each architecture once.

    What was evaluated is within every limit: a trial over a limit has the state infeasible.
    """
    rows = trials[trials["state"] == "evaluated"]
    return rows.sort_values("number").drop_duplicates("hash")


def judged(trials: pd.DataFrame) -> pd.DataFrame:
    """The evaluated trials as they are judged at the end of a run.

    Where a short list was tried by training, that is its architectures alone, and `accuracy` is
    what training gave: what the others would reach is not known. `inherited` is what the supernet's
    weights gave. Without a short list the two are equal.

    `standing` is the place of each, 1 for the best: first those that were in the final, by what
    training from fresh weights gave, then the others that were tried, by that, both as in
    `standings`. Without a short list it is by accuracy.
    """
    rows = evaluated(trials)
    rows = rows.assign(inherited=rows["accuracy"])
    tried = rows.dropna(subset="tried")
    if len(tried):
        rows = tried.assign(accuracy=tried["tried"])
    if len(tried) and rows["tried_loss"].notna().all():
        compared = rows["scratch"].notna()
        if compared.sum() == 1:  # the trainings of the others failed
            compared &= False
        final, others = rows[compared], rows[~compared]
        places = _standings(final, SCRATCH_COLUMNS)
        behind = _standings(others, TRIED_COLUMNS)
        places |= {index: len(places) + place for index, place in behind.items()}
        return rows.assign(standing=rows.index.map(places))
    return rows.assign(standing=rows["accuracy"].rank(method="min", ascending=False).astype(int))


def best(trials: pd.DataFrame, objectives: Sequence[Objective]) -> pd.Series:
    """The evaluated trial that stands first; of equals the cheapest, so that it is on the front.

    Args:
        trials: Of which it is one.
        objectives: Of the run: what is cheapest is told by those that are searched for, by the
            first in which two differ.

    Raises:
        ValueError: No trial was evaluated.
    """
    rows = evaluated(trials)
    if rows.empty:
        raise ValueError("no trial was evaluated, so none is the best")
    return _in_order(rows, objectives).iloc[0]


def anchors(trials: pd.DataFrame, objectives: Sequence[Objective]) -> list[tuple[str, pd.Series]]:
    """The best trial and, for comparison, the smallest and the largest evaluated, by MACs.

    The best is that of what is `judged`; in its row, too, `accuracy` is the inherited one. A trial
    that is more than one of them comes once, under its names together, as in `best, largest`. Empty
    where no trial was evaluated.
    """
    rows = evaluated(trials)
    if rows.empty:
        return []
    by_macs = rows.sort_values(["macs", "number"])
    first = best(judged(trials), objectives)
    (_, chosen), *_ = rows[rows["hash"] == first["hash"]].iterrows()
    named = {"best": chosen, "smallest": by_macs.iloc[0], "largest": by_macs.iloc[-1]}
    merged: dict[str, tuple[str, pd.Series]] = {}
    for name, row in named.items():
        before, _ = merged.get(row["hash"], ("", row))
        merged[row["hash"]] = (f"{before}, {name}" if before else name, row)
    return list(merged.values())


def pareto_front(trials: pd.DataFrame, objectives: Sequence[Objective]) -> pd.DataFrame:
    """The evaluated trials that no other one beats, sorted by MACs.

    Of the objectives those count that are searched for; for the accuracy of trials that are
    `judged`, their standing. Of trials that are equal in all of them the first stays. A trial that
    lacks one is not on the front.
    """
    searched = [objective for objective in objectives if objective.searched]
    names = [objective.name for objective in searched]
    rows = evaluated(trials).dropna(subset=names)
    values = rows[names]
    if "standing" in rows:
        values = values.assign(**{ACCURACY.name: -rows["standing"]})
    values = values.drop_duplicates()
    kept = rows.loc[values.index][non_dominated(losses(values.to_numpy(), searched))]
    return kept.sort_values(["macs", "number"]).reset_index(drop=True)


def ranked_front(trials: pd.DataFrame, objectives: Sequence[Objective]) -> pd.DataFrame:
    """The Pareto front in the order in which its trials stand; the index is the rank, from 1.

    Rank 1 is `best`.
    """
    front = _in_order(pareto_front(trials, objectives), objectives).reset_index(drop=True)
    front.index = front.index + 1
    return front


def _in_order(rows: pd.DataFrame, objectives: Sequence[Objective]) -> pd.DataFrame:
    """Rows as they stand, or the most accurate first; of equals the cheapest.

    A row that comes first here is beaten by no other in what is searched for.
    """
    costs = [o.name for o in objectives if o.searched and o.name != ACCURACY.name]
    accurate = "standing" if "standing" in rows else ACCURACY.name
    rising = [accurate == "standing", *(_sign(o) < 0 for o in objectives if o.name in costs)]
    return rows.sort_values([accurate, *costs, "number"], ascending=[*rising, True])


def _standings(rows: pd.DataFrame, columns: Sequence[str]) -> dict[Any, int]:
    """The standing of rows that were tried, by their index.

    Args:
        rows: Of which it is.
        columns: That say what training gave: accuracy, steps, loss.
    """
    rows = rows.sort_values(["macs", "number"])
    tried = [
        Tried(steps=int(steps), accuracy=accuracy, loss=loss, images=int(images))
        for accuracy, steps, loss, images in rows[[*columns[:3], "tried_images"]].itertuples(
            index=False
        )
    ]
    return dict(zip(rows.index, standings(tried), strict=True))


def full_scales(
    objectives: Sequence[Objective], reachable: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """What the value of each objective that is searched for counts as a share of, by name.

    That is its limit, the largest that the space has, or 1 for accuracy.

    Args:
        objectives: Of the run.
        reachable: As `ConstrainedSpace.reachable`.
    """
    scales = {}
    for objective in objectives:
        if objective.searched:
            most = reachable[objective.name][1] if objective.value is not None else 1.0
            scales[objective.name] = most if objective.limit is None else objective.limit
    return scales


def hypervolume(shares: ArrayLike, objectives: Sequence[Objective]) -> float:
    """Exact volume that the points dominate: what they win over no accuracy at full cost.

    The reference is 0 in what is maximised and 1 in what is minimised, so that the value lies
    between 0 and 1. A point that does not improve on it in every objective adds nothing.

    This is our own sweep over the last objective: Optuna 5 computes hypervolumes too, but only in
    a private module.

    Args:
        shares: Shape (points, objectives): values as shares of `full_scales`; may be empty.
        objectives: Two or more, in the order of the columns.
    """
    signs = np.array([_sign(objective) for objective in objectives])
    worst = np.where(signs > 0, 0.0, 1.0)
    gains = (np.asarray(shares, dtype=float).reshape(-1, len(worst)) - worst) * signs
    gains = gains[(gains > 0).all(axis=1)]
    # What is dominated adds nothing, and the sweep takes as long as the points cubed.
    return _boxes_union(gains[non_dominated(-gains)])


def hypervolume_trace(
    trials: pd.DataFrame,
    objectives: Sequence[Objective],
    reachable: Mapping[str, tuple[float, float]],
) -> list[float]:
    """The hypervolume after each evaluation, in the order of the trials.

    Args:
        trials: With a column for each objective.
        objectives: Of the run; those count that are searched for.
        reachable: As `ConstrainedSpace.reachable`.
    """
    searched = [objective for objective in objectives if objective.searched]
    scales = full_scales(searched, reachable)
    rows = evaluated(trials)
    points = rows[list(scales)].to_numpy(dtype=float) / np.array([*scales.values()])
    to_minimise = losses(rows[list(scales)].to_numpy(), searched)
    trace: list[float] = []
    front: list[int] = []
    for i in range(len(rows)):
        if front and (to_minimise[front] <= to_minimise[i]).all(axis=1).any():
            trace.append(trace[-1])
            continue
        front = [j for j in front if not (to_minimise[i] <= to_minimise[j]).all()] + [i]
        trace.append(hypervolume(points[front], searched))
    return trace


def losses(values: ArrayLike, objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Values of the objectives as numbers to minimise: shape (points, objectives)."""
    signs = np.array([_sign(objective) for objective in objectives])
    to_minimise: NDArray[np.float64] = np.asarray(values, dtype=float) * -signs
    return to_minimise


def non_dominated(losses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows no other one beats in some column without being worse in another."""
    beaten = [((losses <= row).all(axis=1) & (losses < row).any(axis=1)).any() for row in losses]
    return ~np.array(beaten, dtype=bool)


def _sign(objective: Objective) -> float:
    """1 where more is better, -1 where less is."""
    return 1.0 if objective.direction == "maximize" else -1.0


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

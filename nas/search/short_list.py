"""The short list: which architectures of a search are tried by training them alone.

What inherited weights give proposes; it does not choose. What they prefer may be what the supernet
has learned first. So a third of the list is the front, spread over cost, and the rest is what else
has a high merit (`nas.search.trials.merits`) and differs from it in its operators.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING

from nas.objectives.objective import Objective
from nas.search.front import evaluated, pareto_front
from nas.search.trials import Record, merits, trials_table
from search_space import Architecture, SearchSpace
from search_space.encoding import is_size

if TYPE_CHECKING:
    import pandas as pd


def short_list(
    records: Mapping[int, Record],
    objectives: Sequence[Objective],
    space: SearchSpace,
    *,
    size: int,
) -> list[Record]:
    """So many evaluated architectures, that of the highest merit first; all if there are no more.

    Args:
        records: Of the search, by number.
        objectives: Of the run.
        space: That was searched.
        size: Of the list.
    """
    trials = trials_table(records, objectives)
    trials = evaluated(trials)
    losses = [records[number].loss for number in trials["number"]]
    # In the place of accuracies, so that the front is that of merits, too.
    trials = trials.assign(accuracy=merits([*trials["accuracy"]], losses))
    rows = trials.sort_values(["accuracy", "macs"], ascending=[False, True])
    chosen = _spread(_upper_half(pareto_front(trials, objectives)), ceil(size / 3))
    operators = {int(number): _operators(space, records[int(number)]) for number in rows["number"]}
    # By merit, but first of all what differs from everything chosen in a quarter of its operators.
    wanted = min(size, len(operators))
    for least in range(max(map(len, operators.values()), default=0) // 4, -1, -1):
        for number, own in operators.items():
            unlike = all(_distance(own, operators[other]) >= least for other in chosen)
            if len(chosen) < wanted and number not in chosen and unlike:
                chosen.append(number)
    return [records[number] for number in operators if number in chosen]


def _upper_half(front: pd.DataFrame) -> list[int]:
    """The trials of a front from the middle of its merits upwards, in ascending order of MACs.

    The smallest architectures are on every front, however little they merit.
    """
    if front.empty:
        return []
    middle = (front["accuracy"].min() + front["accuracy"].max()) / 2
    return [int(number) for number in front[front["accuracy"] >= middle]["number"]]


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    """So many of a sequence, evenly spread, the last and the first among them."""
    if len(numbers) <= count:
        return list(numbers)
    if count == 1:
        return [numbers[-1]]
    step = (len(numbers) - 1) / (count - 1)
    return [numbers[round(place * step)] for place in range(count)]


def _operators(space: SearchSpace, record: Record) -> tuple[object, ...]:
    """The genes of an architecture that are no sizes."""
    genotype = space.genotype(Architecture.model_validate(record.architecture))
    return tuple(value for gene, value in genotype.items() if not is_size(gene))


def _distance(one: Sequence[object], other: Sequence[object]) -> int:
    """How many operators differ."""
    return sum(a != b for a, b in zip(one, other, strict=True))

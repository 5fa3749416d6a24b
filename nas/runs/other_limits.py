"""What a run has evaluated, asked again under other limits: nothing is trained or evaluated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nas.objectives.limits import Limits, parse_limits
from nas.objectives.objective import LatencyColumns, Objective, latency_name
from nas.runs.configure import LatencyLimits, latency_limits
from nas.runs.run import Run
from nas.search.front import evaluated, judged, pareto_front
from nas.search.study import load_study, records, with_genes
from nas.search.trials import Record, trials_table
from nas.utilities.errors import InputError, NothingFound
from search_space import Architecture, total_cost

if TYPE_CHECKING:
    import pandas as pd

    from nas.report.run_summary import RunSummary


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a run knows of other limits.

    Attributes:
        rows: A row for each architecture on a front, the one of fewest MACs first, with the columns
            of `trials.csv` and `front`: `inherited` for that of all by inherited accuracies,
            `alone` for that of what was tried by training it alone, or `both`.
        objectives: What is traded off and limited.
        notes: What a reader must know, in sentences.
    """

    rows: pd.DataFrame
    objectives: tuple[Objective, ...]
    notes: tuple[str, ...]


def front_under(run: Run, *, latency: LatencyLimits = (), **limits: str | float | None) -> Answer:
    """The Pareto front of what a run has evaluated, under other limits.

    Its own limits hold where no other is given.

    Args:
        run: That has searched.
        latency: Limits on the latency of devices that the run knows.
        limits: On closed-form objectives, by their fields: `budget="1GFLOPs"`.

    Raises:
        InputError: If a limit is wrong, or the search has not finished.
        NothingFound: If nothing that was evaluated meets the limits.
    """
    summary = run.summary
    asked = parse_limits(limits)
    for device, milliseconds in latency_limits(latency, summary.device).items():
        if device not in summary.latency:
            there = ", ".join(summary.latency) or "none"
            raise InputError(
                f"`latency` {device}=...: {run.path} knows no latency on {device!r} ({there}); "
                f"search for it with `supernet` {run.path}"
            )
        asked[latency_name(device)] = milliseconds
    held = Limits(**{**summary.limits, **asked})
    study = load_study(run.folder.journal)
    known = {
        number: _judged_again(record, held, summary)
        for number, record in records(study).items()
        if record.was_evaluated
    }
    trials = with_genes(trials_table(known, held.objectives), study)
    within = evaluated(trials)
    told = ", ".join(o.named_amount(o.limit) for o in held.objectives if o.limit is not None)
    if within.empty:
        raise NothingFound(f"none of the {len(known)} evaluated architectures is within {told}")
    tried = int(within["tried"].notna().sum())
    inherited = within["hash"].isin(pareto_front(within, held.objectives)["hash"])
    alone = within["hash"].isin(pareto_front(judged(within), held.objectives)["hash"])
    alone &= tried > 0
    rows = within.assign(front=inherited.map({True: "inherited", False: ""}))
    rows.loc[alone, "front"] = "alone"
    rows.loc[alone & inherited, "front"] = "both"
    rows = rows[rows["front"] != ""].sort_values(["macs", "number"], ignore_index=True)
    counted = f"{len(within)} of {len(known)} evaluated architectures are within {told}"
    trained = f"; {tried} of them were trained alone" if summary.short_list else ""
    return Answer(
        rows=rows,
        objectives=held.objectives,
        notes=(counted + trained, *_predicted(rows, held), *_beyond(held, summary, run)),
    )


def _judged_again(record: Record, limits: Limits, summary: RunSummary) -> Record:
    """An evaluated record as it is under other limits."""
    cost = total_cost(
        Architecture.model_validate(record.architecture),
        image_size=summary.image_size,
        num_classes=summary.num_classes,
    )
    costs = {o.name: o.value(cost) for o in limits.objectives if o.value is not None}
    known = replace(record, costs=costs)
    excess = limits.excess(known.values)
    over = any(value > 0 for value in excess.values())
    return replace(known, excess=excess, state="infeasible" if over else "evaluated")


def _predicted(rows: pd.DataFrame, limits: Limits) -> list[str]:
    """On which devices rows were not measured, in sentences."""
    notes = []
    for objective in limits.objectives:
        if objective.device is not None:
            predicted = int(rows[LatencyColumns(objective.device).measured].isna().sum())
            if predicted:
                notes.append(
                    f"{objective.label}: predicted, not measured, of {predicted} of the "
                    f"{len(rows)} shown"
                )
    return notes


def _beyond(limits: Limits, summary: RunSummary, run: Run) -> list[str]:
    """Where limits reach beyond what was searched, in sentences."""
    notes = []
    for objective in limits.objectives:
        limit, searched = objective.limit, summary.limits.get(objective.name)
        if limit is None:
            continue
        if searched is None:
            notes.append(
                f"the search knew no limit on {objective.label} and did not look for what is good "
                f"in it; one with the supernet of {run.path} would"
            )
        elif limit > searched:
            here, there = objective.named_amount(limit), objective.named_amount(searched)
            notes.append(
                f"{here} reach beyond the {there} that were searched: what lies between is missing "
                f"here; a search with the supernet of {run.path} would look for it"
            )
    return notes

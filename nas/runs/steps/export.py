"""The last step of a run: what it was and what it found, written down."""

from collections.abc import Sequence

from nas.export.network import export_front, stage_rows
from nas.report.cards import ModelSummary, model_card
from nas.report.run_summary import LatencySummary, RunSummary
from nas.runs.job import Job
from nas.search.front import best, ranked_front
from nas.search.study import load_study, records
from nas.search.trials import trials_table
from search_space import Architecture
from supernet import Store


def summarise(job: Job, command: str, notes: Sequence[str]) -> RunSummary:
    """What the report needs to know of this run."""
    config, constrained = job.config, job.constrained
    return RunSummary(
        command=command,
        data=job.data.name,
        num_classes=job.data.num_classes,
        search_images=len(job.labels),
        space=config.space.name,
        space_size=config.space.count(),
        limits=dict(config.limits),
        reachable=constrained.reachable,
        image_size=config.image_size,
        proxy_size=config.proxy_size,
        sampler=config.sampler,
        seed=config.seed,
        device=config.device,
        supernet_steps=config.steps,
        supernet_seconds=job.clock.seconds("supernet_seconds"),
        search_seconds=job.clock.seconds("search_seconds"),
        latency={
            device: LatencySummary(
                conditions=str(table.conditions),
                error=table.error_text,
                measured=device in constrained.measured,
                networks=[network.model_dump() for network in table.networks],
            )
            for device, table in constrained.tables.items()
        },
        notes=tuple(notes),
    )


def export(job: Job, store: Store, summary: RunSummary) -> None:
    """Export the front and the best, where anything was evaluated."""
    known = records(load_study(job.folder.journal))
    trials = trials_table(known, summary.objectives)
    front = ranked_front(trials, summary.objectives)
    if front.empty:
        return
    assert front.iloc[0]["hash"] == best(trials)["hash"]
    rows = front.to_dict("records")
    architectures = [Architecture.model_validate(known[row["number"]].architecture) for row in rows]

    def card(name: str, place: int) -> str:
        model = ModelSummary(
            name=name,
            trial=rows[place],
            stages=stage_rows(architectures[place], job.config.image_size),
            class_names=job.data.class_names,
            mean=job.data.mean,
            std=job.data.std,
        )
        return model_card(model, summary)

    export_front(
        job.folder.path,
        store,
        architectures,
        data=job.data,
        image_size=job.config.proxy_size,
        card=card,
    )

"""The last step of a run: what it was and what it found, written down."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nas.export.network import export_front, stage_rows
from nas.report.cards import ModelSummary, model_card
from nas.report.description import predicted_parts
from nas.report.legend import legend
from nas.report.picture import architecture_svg
from nas.report.run_summary import LatencySummary, RunSummary
from nas.runs.job import Job
from nas.runs.reuse import Origin
from nas.runs.steps.tryout import tryout_of
from nas.search.front import judged, ranked_front
from nas.search.study import load_study, records
from nas.search.trials import Record, from_scratch, trials_table, tried_alone
from nas.training.accuracy import largest_class
from search_space import Architecture
from supernet import Network, Store


def summarise(
    job: Job, command: str, notes: Sequence[str], known: Collection[Record]
) -> RunSummary:
    """What the report needs to know of this run, of which so many records are known."""
    config, constrained = job.config, job.constrained
    origin = Origin.of(job.folder)
    return RunSummary(
        command=command,
        data=job.data.name,
        num_classes=job.data.num_classes,
        largest_class=largest_class(job.labels),
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
        supernet_run=origin.run if config.supernet else "",
        supernet_seconds=origin.seconds,
        trials=config.trials,
        search_seconds=job.clock.seconds("search_seconds"),
        # Those of a list before more trials made it another stay tried.
        short_list=tried_alone(known),
        finalists=from_scratch(known),
        tryout_seconds=job.clock.seconds("tryout_seconds"),
        latency={
            device: LatencySummary(
                conditions=str(table.conditions),
                error=table.error_text,
                measured=device in constrained.measured,
                networks=table.networks,
            )
            for device, table in constrained.tables.items()
        },
        notes=tuple(notes),
    )


def export(job: Job, store: Store, summary: RunSummary) -> None:
    """Export the front and the best, where anything was evaluated.

    What was tried alone is exported with the weights that it has then.
    """
    known = records(load_study(job.folder.journal))
    trials = trials_table(known, summary.objectives)
    chosen = judged(trials)
    front = ranked_front(chosen, summary.objectives)
    if front.empty:
        return
    rows = front.to_dict("records")
    architectures = [Architecture.model_validate(known[row["number"]].architecture) for row in rows]

    def card(name: str, place: int) -> str:
        model = ModelSummary(
            name=name,
            trial=rows[place],
            stages=stage_rows(architectures[place], job.config.image_size),
            words=legend([architectures[place]]),
            class_names=job.data.class_names,
            mean=job.data.mean,
            std=job.data.std,
            crop=job.data.crop,
        )
        return model_card(model, summary)

    def picture(place: int) -> str:
        architecture = architectures[place]
        return architecture_svg(
            architecture,
            name=f"architecture {architecture.hash}",
            image_size=job.config.image_size,
            num_classes=job.data.num_classes,
            latency=[
                predicted_parts(architecture, table, f"the table of {device}")
                for device, table in job.constrained.tables.items()
            ],
            standalone=True,
        )

    export_front(
        job.folder.path,
        (
            _network(job, store, architecture, row)
            for architecture, row in zip(architectures, rows, strict=True)
        ),
        data=job.data,
        image_size=job.config.proxy_size,
        card=card,
        picture=picture,
    )


def _network(job: Job, store: Store, architecture: Architecture, row: Mapping[Any, Any]) -> Network:
    """The network of a row of the front with the weights that its accuracy is of."""
    network = store.extract(architecture)
    if not math.isnan(row["tried"]):
        network.load_state_dict(tryout_of(job).weights(architecture))
    return network
